"""The report as Markdown, JSON and LaTeX: the same statements and rows as the page, names shown as they are."""

import csv
import json
import re
import shutil
import subprocess

import pytest
from markdown_it import MarkdownIt

from idc.errors import IDCError
from idc.report.comparison import latex
from idc.report.content import Heading, readings
from idc.report.results import read_results
from idc.report.results_page import write_report
from idc.text import in_latex, latex_row
from summaries import own_answers, share, verdict, write_result, write_sweep


@pytest.fixture
def folders(tmp_path):
    failed = [{"name": "a check", "passed": False, "figure": "x | y", "remedy": "do <b>"}]
    return [
        write_result(tmp_path / "a", reliable=False, sanity=failed),
        write_result(tmp_path / "b", protocol="paper", robust=0.3),
        write_result(tmp_path / "c", **own_answers()),
        write_sweep(tmp_path / "s", "eps", {0.05: 0.9, 0.1: 0.1}),
    ]


def test_json_has_the_rows_of_the_csv_as_numbers(folders, tmp_path):
    write_report(folders := folders[:3], tmp_path / "page.html")
    [file] = write_report(folders, tmp_path / "out" / "r.json", Heading("T", "A", "D"), form="json")
    found = json.loads(file.read_text())
    assert (found["title"], found["author"], found["date"]) == ("T", "A", "D")
    assert found["statements"][: len(readings(read_results(folders)[0]))] == readings(read_results(folders)[0])
    lines = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert len(found["rows"]) == len(lines)
    for row, line in zip(found["rows"], lines, strict=True):
        assert [row["accuracy"], *row["interval"]] == [float(line[name]) for name in ("accuracy", "low", "high")]
        assert row["eps"] == (float(line["eps"]) if line["eps"] else None)
        assert (row["points"], row["verdict"], row["n"]) == (line["points"], line["verdict"], int(line["n"]))
    assert [r["reliable"] for r in found["results"]] == [False, True, True]
    assert found["results"][0]["checks"][0]["remedy"] == "do <b>"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["r.json"]


def test_markdown_has_statements_tables_checks_and_figures(folders, tmp_path):
    written = write_report(folders, tmp_path / "a b.md", Heading("Audit <1>", "A. Person"), form="md")
    text = (tmp_path / "a b.md").read_text()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    assert not [child for child in inline if child.type in ("html_inline", "link_open", "code_inline")]
    shown = "\n".join(token.content for token in tokens if token.type == "inline")
    for sentence in readings(read_results(folders)[0]):
        assert sentence in MarkdownIt().render(text).replace("&lt;", "<").replace("&gt;", ">")
    assert "Audit" in shown
    for words in (
        "12.3% [7.3%, 17.3%]",
        "8/255",
        "FAILED",
        "unreliable",
        "not adaptive",
        "the worst of each",
        "pgd-20",
    ):
        assert words in shown
    pictures = [child.attrs["src"] for child in inline if child.type == "image"]
    names = {path.name for path in written}
    assert pictures
    assert all(picture.replace("%20", " ") in names for picture in pictures)
    cells = re.findall(r"<td>(.*?)</td>", MarkdownIt("commonmark").enable("table").render(text))
    assert "x | y" in cells
    assert "do &lt;b&gt;" in cells


def test_a_file_of_another_form_is_refused(folders, tmp_path):
    for form, name in (("html", "r.md"), ("md", "r.html"), ("json", "r")):
        with pytest.raises(IDCError, match=f"report.{form}"):
            write_report(folders, tmp_path / "none" / name, form=form)
    with pytest.raises(IDCError, match="one of html, md, json"):
        write_report(folders, tmp_path / "none" / "r.pdf", form="pdf")
    assert not (tmp_path / "none").exists()


def row(name: str) -> dict:
    own = {"robust": verdict(0.1234), "reliable": True, "seconds": 1.5, "attacks": {"a": 0.1}}
    return {
        "name": name, "eps": 8 / 255, "eps_text": "8/255", "parameters": 1234567, "flops": 3e8, "network_evaluations":
        3, "clean": {"mean": share(0.8)}, "stochastic": True, "images": 100, "protocols": {"adaptive": own},
    }  # fmt: skip


def test_latex_is_a_booktabs_table():
    head, *lines = latex([row("A_1 & 50%"), row("[b]")]).splitlines()
    assert "booktabs" in head
    assert lines[0] == r"\begin{tabular}{llrrrrrrrr}"
    assert [lines[1], lines[3], *lines[-2:]] == [r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"]
    assert lines[4].split(" & ") == [
        r"A\_1 \& 50\%", "8/255", "1,234,567", "0.3", "3", r"80.0\% [75.0\%, 85.0\%]", r"12.3\% [7.3\%, 17.3\%]",
        r"6.2\% [1.2\%, 11.2\%]", "1.5", r"100 \\",
    ]  # fmt: skip
    assert lines[5].startswith("{}[b] & ")
    assert len({re.sub(r"\\&", "", line).count(" & ") for line in (lines[2], *lines[4:-2])}) == 1


@pytest.mark.parametrize("text", [r"a\b", "x^2 ~ {y}", "#1 $5 <z> |", "a--b---c", "two\nlines \x1b[0m"])
def test_latex_takes_back_to_what_was_written(text):
    """Undone by the definition of each command."""
    found = in_latex(text)
    names = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">",
             "textbar": "|", "textasciigrave": "`"}  # fmt: skip
    undone = re.sub(r"\\(\w+)\{\}|\\(\W|_)|\{\}", lambda m: names[m[1]] if m[1] else m[2] or "", found)
    assert undone == " ".join(text.split()).replace("\x1b", r"\x1b")
    assert "--" not in found
    assert not re.search(r"(?<!\\)[&%$#_]", found)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX")
def test_latex_compiles(tmp_path):
    body = latex([row(r"a\b_c & 5% ^~{}#$<>|`-- [x]"), row("[b]"), row("*")])
    text = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "t.tex").write_text(text)
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert latex_row("a", 1) == r"a & 1 \\"
