"""The pages of the documentation: none is left out of the navigation or llms.txt, and links lead somewhere."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if not p.relative_to(DOCS).parts[0].startswith("_")}
OTHERS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def prose(file: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(file: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_navigation_once():
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    named = Counter(line for tree in trees for line in tree.splitlines() if line and not line.startswith(":"))
    assert named == Counter(page.removesuffix(".md") for page in PAGES - {"index.md"})


def test_llms_txt_names_every_page_in_its_format():
    title, blank, summary, *rest = (DOCS / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert (title[:2], blank, summary[:2]) == ("# ", "", "> ")
    links = [re.fullmatch(r"- \[[^]]+\]\(([\w/-]+)\.html\): .+", line) for line in rest if line.startswith("- ")]
    assert Counter(link and f"{link[1]}.md" for link in links) == Counter(PAGES)


@pytest.mark.parametrize("page", [*OTHERS, *(f"docs/{page}" for page in sorted(PAGES))])
def test_relative_links_and_their_anchors_lead_somewhere(page):
    file = ROOT / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", prose(file)):
        to = file.parent / target if target else file
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), f"{target}#{anchor}"


def test_the_pages_that_the_program_names_are_there():
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py")]
    named = {found.rstrip(".") for text in sources for found in re.findall(r"\bdocs/[\w/.-]+", text)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
