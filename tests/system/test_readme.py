"""What the README shows works: its marked blocks are run as they stand, and its figures are those on disk."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from idc.commands.profile import profile
from idc.method.presets import PRESETS
from program import idc
from tiny import SMALL_DIGITS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "idc"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    found = re.search(rf"<!-- test: {kind} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, kind
    return found.group(1)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder after the README's shell commands, where the digits and their network are fewer and smaller."""
    folder, digits = tmp_path_factory.mktemp("readme"), load_digits()
    fewer = Bunch(images=digits.images[:500], target=digits.target[:500])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "digits", SMALL_DIGITS)
        patch.setattr("sklearn.datasets.load_digits", lambda: fewer)
        patch.setitem(profile.__kwdefaults__, "repeats", 1)
        for line in block("shell").splitlines():
            program, *args = shlex.split(line, comments=True)
            assert program == "idc"
            result = idc(*args, cwd=folder)
            assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["parameters"] == 9393475
    return folder


def test_shell_then_python(workplace, monkeypatch):
    assert (workplace / "runs" / "digits-test" / "summary.json").is_file()
    monkeypatch.chdir(workplace)
    exec(compile(block("python"), "README.md", "exec"), {"__name__": "__main__"})
    assert (workplace / "runs" / "copy" / "model.safetensors").is_file()


def test_the_two_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}: setup", makefile, re.MULTILINE)


def test_figures_are_those_on_disk(monkeypatch):
    script = ROOT / "benchmarks" / "pages.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--check"])
    runpy.run_path(str(script), run_name="__main__")  # it would exit with what differs


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/method.md"])
def test_files_that_a_page_names_are_there(page):
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / page).read_text(encoding="utf-8")))
    assert named
    assert [name for name in sorted(named) if not any((top / name).is_file() for top in (ROOT, SOURCE))] == []


def test_every_room_is_named():
    rooms = {p.stem for p in SOURCE.iterdir() if not p.name.startswith(("_", "py."))}
    block = README[README.index("## Where things are") :].split("```")[1]
    said = {word.rstrip("/") for line in block.splitlines() for word in line.split("   ")[0].split()}
    assert said == rooms


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
