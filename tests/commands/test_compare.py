"""A comparison: what it reads, what it refuses, and that its table is what the evaluations found."""

import csv
import json
import shutil
from dataclasses import replace
from statistics import mean

import pytest
import torch
from markdown_it import MarkdownIt

from idc.commands import compare as comparing
from idc.commands.compare import compare, finished_rows, read_comparison
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig
from idc.report.comparison import FRESH, figure, markdown, published, table, write_comparison
from idc.report.results import read_pairs, read_results, read_rows
from idc.report.results_page import write_report
from tiny import save_digits_model

YAML = """
data: digits
protocols: [clean, pgd]
eps: [0.05, 0.1]
limit: 12
draws: 3
models:
  IDC, tiny: {idc}
  CNN:
    model: {cnn}
    limit: 6
    training: by hand
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    save_digits_model(folder / "idc")
    torch.manual_seed(0)
    names = tuple("0123456789")
    CNN(CNNConfig("wrn-10-1", 10, (1, 8, 8), width=2, class_names=names)).save_pretrained(folder / "cnn")
    (folder / "compare.yaml").write_text(YAML.format(idc=folder / "idc", cnn=folder / "cnn"))
    return folder / "compare.yaml"


@pytest.fixture(scope="module")
def done(file):
    out = file.parent / "out"
    compare(read_comparison(file), out, say=lambda text: None)
    write_comparison(out)
    return out


def test_what_is_asked_of_each(file):
    found = read_comparison(file)
    idc, cnn = found.entries
    assert (found.protocols, found.eps) == (("clean", "pgd"), (0.05, 0.1))
    assert (idc.folder, idc.request.limit, idc.request.draws, idc.training) == ("IDC-tiny", 12, 3, None)
    assert (cnn.request.limit, cnn.request.draws, cnn.training) == (6, 3, "by hand")


def test_the_table_is_what_the_evaluations_found(done):
    with (done / "table.csv").open() as text:
        lines = list(csv.DictReader(text))
    assert len(lines) == 2 * 2 * 2  # models, sizes, protocols
    for line in lines:
        summary = json.loads((done / line["folder"] / "summary.json").read_text())
        assert float(line["clean"]) == summary["clean"]["mean"]["mean"]
        assert float(line["robust_worst_of_n_high"]) == summary["robust"]["worst_of_n"]["high"]
        assert int(line["images"]) == summary["images"] == (12 if line["name"] == "IDC, tiny" else 6)
        if line["protocol"] != "clean":
            assert float(line["eps"]) == summary["settings"]["protocol"]["threat"]["eps"]
    assert {line["model"] for line in lines} == {str(done.parent / "idc"), str(done.parent / "cnn")}
    assert {(line["answer"], line["precision"]) for line in lines} == {("", "fp32")}  # as configured
    assert {line["network_evaluations"] for line in lines if line["name"] == "IDC, tiny"} == {"3"}
    text = (done / "table.md").read_text()
    assert text.count("\n") == 2 + 4 + 3 + 2 + 2  # rows; what pairs are; pairs
    assert "by hand" in text
    assert (done / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (done / "figure.svg").read_text()


def test_the_best_is_set_beside_the_others_image_by_image(done):
    pairs = read_pairs(done)
    assert [(p["eps"], p["protocol"]) for p in pairs] == [(0.05, "pgd"), (0.1, "pgd")]  # no attack in clean
    for pair in pairs:
        right = {}
        for row in (r for r in read_rows(done) if r["eps"] == pair["eps"]):
            lines = (done / row["protocols"]["pgd"]["folder"] / "images-0.jsonl").read_text().splitlines()
            held = [json.loads(line) for line in lines]
            right[row["name"]] = {line["id"]: line["robust"][0] / line["draws"] for line in held}
        best, other = right[pair["best"]], right[pair["other"]]
        assert mean(best.values()) >= mean(other.values())
        ahead = [best[i] - other[i] for i in best.keys() & other.keys()]
        assert pair["images"] == len(ahead) == 6  # the first of the 12 that the other was given
        assert pair["difference"] == pytest.approx(mean(ahead))
        assert pair["ahead_first"] == sum(d > 0 for d in ahead)
        assert pair["ahead_second"] == sum(d < 0 for d in ahead)
        assert f"| {pair['best']} | {pair['other']} |" in (done / "table.md").read_text()
    write_report([done], done.parent / "page.html")
    page = (done.parent / "page.html").read_text()
    for pair in pairs:
        ahead_on = f"of 6 images {pair['best']} is ahead on {pair['ahead_first']}, {pair['other']} on"
        assert f"pgd at eps {pair['eps']:g}: {ahead_on} {pair['ahead_second']}: " in page


def test_it_goes_on_where_it_was(done, file):
    """Nothing of what is done is done again: neither images nor summaries (with their sanity checks) nor rows."""
    before = {p: p.stat().st_mtime_ns for p in done.glob("*/*/*")}
    rows = read_rows(done)
    assert len([p for p in before if p.name == "summary.json"]) == 8
    (done / "compare.json").write_text(json.dumps({"rows": rows[1:]}))  # as after an interrupt
    found = compare(read_comparison(file), done, say=lambda text: None)
    assert {p: t for p, t in before.items() if p.name != "request.json"} == {
        p: p.stat().st_mtime_ns for p in done.glob("*/*/*") if p.name != "request.json"
    }
    assert found == rows == read_rows(done)


def test_what_has_no_radius_is_made_once_and_is_no_robust_accuracy_at_an_eps(file, tmp_path):
    comparison = read_comparison(file)
    cnn = replace(comparison.entries[1], request=replace(comparison.entries[1].request, limit=2))
    both = replace(comparison, entries=(cnn, replace(cnn, name="again")), protocols=("pgd", "shifts"))
    rows = compare(both, tmp_path / "c", say=lambda text: None)
    assert [(row["eps"], *row["protocols"]) for row in rows] == [(0.05, "pgd")] * 2 + [(0.1, "pgd", "shifts")] * 2
    lines = csv.DictReader(table(rows).splitlines())
    assert [(line["norm"], line["eps"]) for line in lines if line["protocol"] == "shifts"] == [("", "")] * 2
    assert "No eps bounds shifts" in markdown(rows)
    assert [len(axes.collections) for axes in figure(rows).axes] == [4, 4]  # a bar and a mark a model: pgd alone


def test_rows_are_of_what_is_asked_now(done, file):
    """A result of another limit, answer or precision under the same name is no row; one of another batch size is."""
    comparison = read_comparison(file)
    assert finished_rows(comparison, done) == read_rows(done)
    idc, cnn = comparison.entries
    others = ({"limit": 5}, {"one_step": True}, {"precision": "bf16"}, {"batch_size": 64})
    for changes, kept in zip(others, (0, 0, 0, 2), strict=True):
        other = replace(comparison, entries=(replace(idc, request=replace(idc.request, **changes)), cnn))
        names = [row["name"] for row in finished_rows(other, done)]
        assert (names.count(idc.name), names.count(cnn.name)) == (kept, 2), changes


def test_the_table_tells_answers_apart(done):
    rows = read_rows(done)
    asked = [{"one_step": True}, {"visits": [3, 0], "eta": 0.5}, {"precision": "bf16"}]
    lines = list(csv.DictReader(table([row | {"answer": a} for row, a in zip(rows, asked, strict=False)]).splitlines()))
    found = list(dict.fromkeys((line["answer"], line["precision"]) for line in lines))
    assert found == [("one step", "fp32"), ("3, 0; eta 0.5", "fp32"), ("", "bf16")]


def test_the_table_shows_names_as_they_are(done):
    bad = "<script>|`\n[a](http://b)"
    rows, pairs = read_rows(done), read_pairs(done)
    plain = markdown(rows, pairs)
    rows = [row | {"name": bad, "training": bad, "answer": {"precision": "bf16"}} for row in rows]
    tokens = (
        MarkdownIt("commonmark").enable("table").parse(markdown(rows, [p | {"best": bad, "other": bad} for p in pairs]))
    )
    kinds = [child.type for token in tokens for child in token.children or ()]
    assert {"html_inline", "link_open"}.isdisjoint(kinds)
    lines = sum(line.startswith("|") for line in plain.splitlines())
    assert sum(token.type == "tr_open" for token in tokens) == lines - 2  # but for the rules below the heads


def test_more_robust_than_accurate_is_explained(done):
    rows = read_rows(done)
    for value in (0.0, 1.0):
        rows[0]["protocols"]["pgd"]["robust"]["mean"]["mean"] = value
        rows[1]["protocols"]["pgd"]["robust"]["mean"]["mean"] = 0.0
        assert (FRESH in markdown(rows[:2])) == (value == 1.0)


def test_a_report_has_the_names_of_the_comparison(done, file):
    results, _ = read_results([done])
    assert {r.name for r in results} == {"IDC, tiny", "CNN"}
    [alone], _ = read_results([done / "IDC-tiny" / "pgd-0.1"])
    assert alone.name == f"{file.parent / 'idc'}, visits 3, 1, 0"


def test_a_report_reads_results_within_the_comparison_alone(done, tmp_path):
    shutil.copytree(done / "CNN" / "pgd-0.1", tmp_path / "elsewhere")
    (tmp_path / "c").mkdir()
    for place in ("../elsewhere", str(tmp_path / "elsewhere")):
        rows = [{"name": "a", "protocols": {"pgd": {"folder": place}}}]
        (tmp_path / "c" / "compare.json").write_text(json.dumps({"rows": rows}))
        with pytest.raises(IDCError, match="results within it"):
            read_results([tmp_path / "c"])


def test_unreliable_results_are_marked(done):
    rows = read_rows(done)
    rows[0]["protocols"]["pgd"]["reliable"] = False
    assert markdown(rows).count("unreliable") == 1


def test_published_figures_are_apart(done):
    """No published number is in the measured table; those of the file are those of the sources we were given."""
    text = (done / "table.md").read_text() + (done / "table.csv").read_text()
    assert not any(entry["system"].split(" (")[0] in text for entry in published())
    assert {"WRN-28-10 (Cui et al., 2023)": 67.73, "RDC (Chen et al., 2024)": 75.67}.items() <= {
        entry["system"]: entry["robust"] for entry in published()
    }.items()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("models: {}", "models"), ("- a", "models"), ("data: digits\nprotocol: pgd\nmodels: {a: b}", "without eps:"),
        ("data: digits\neps: 0.1\nprotocol: pgd\nmodels: {a: }", "a: None"),
        ("data: digits\neps: 0.1\nprotocol: pgd\nmodels: {a: {model: b, lr: 1}}", "lr"),
        ("data: digits\neps: 0.1\nlr: 1\nmodels: {a: b}", "lr"),
        ("data: digits\neps: x\nmodels: {a: b}", "eps"),
        ("data: digits\neps: 0.1\nlimit: many\nmodels: {a: b}", "limit"),
        ("data: digits\neps: 0.1\nprotocol: pgd\nmodels: {a b: c, a-b: d}", "different name"),
        ("data: digits\neps: 0.1\nprotocol: pgd\nmodels: {a: {limit: 3}}", "a in"),
        ("data: digits\neps: 0.1\nprotocol: pgd\nmodels: {a: b, a: c}", "a twice"),
        ("data: digits\neps: 0.1\nmodels: {a: b}", "without protocols:"), ("data: [", "YAML"),
        ("data: 5\neps: 0.1\nmodels: {a: b}", "a text"),
        ("data: digits\neps: 0.1\nprotocol: pgd\nmodels: {a: {model: b, visits: x}}", "timesteps"),
        ("data: digits\neps: 0.1\nprotocol: pgd\nmodels: {a: {model: b, one_step: 'no'}}", "true or false"),
        ("data: digits\neps: 0.1\nprotocols: []\nmodels: {a: b}", "protocols"),
        ("data: digits\neps: [0.1, 0.10]\nprotocol: pgd\nmodels: {a: b}", "once"),
        ("data: digits\neps: 0.1\nprotocols: [pgd, pgd]\nmodels: {a: b}", "once"),
        ("data: digits\neps: 0.1\nprotocol: pgd\nnested: 'yes'\nmodels: {a: b}", "true or false"),
    ],
)  # fmt: skip
def test_what_is_no_comparison(text, word, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(IDCError, match=word):
        read_comparison(tmp_path / "c.yaml")


@pytest.mark.parametrize("name", ["..", ".", ".lock", "...", "../up", "", " ", "x" * 101, "日" * 90, "NUL", "com1.txt",
                                  "a.", "compare.json", "Table.md", "figure.svg"])  # fmt: skip
def test_names_that_lead_out_of_the_folder_or_are_taken_in_it_are_refused(name, tmp_path):
    (tmp_path / "c.yaml").write_text(f"data: digits\neps: 0.1\nprotocol: pgd\nmodels: {{{json.dumps(name)}: b}}")
    with pytest.raises(IDCError, match="rename it") as caught:
        read_comparison(tmp_path / "c.yaml")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name", ["/etc/x", "a/../../b", "a\\\\b", "IDC, 8/255", "console", "tables", "x" * 100, "++", "v1.2"]
)
def test_any_other_name_is_one_folder_within_the_comparisons(name, tmp_path):
    (tmp_path / "c.yaml").write_text(f"data: digits\neps: 0.1\nprotocol: pgd\nmodels: {{{json.dumps(name)}: b}}")
    [entry] = read_comparison(tmp_path / "c.yaml").entries
    assert entry.name == name
    assert (tmp_path / entry.folder).resolve().parent == tmp_path.resolve()
    (tmp_path / entry.folder).mkdir()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("  CNN:", "  Lost: ./nowhere\n  CNN:"), "nowhere"), (("pgd]", "papre]"), "papre"), (("0.1]", "8]"), "eps"),
        (("training: by hand", "one_step: true"), "one-step"), (("training: by hand", "protocols: [x]"), "'x'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_runs(file, tmp_path, change, word):
    (tmp_path / "c.yaml").write_text(file.read_text().replace(*change))
    with pytest.raises(IDCError, match=word):
        compare(read_comparison(tmp_path / "c.yaml"), tmp_path / "out", say=lambda text: None)
    assert not (tmp_path / "out").exists()


def test_images_of_one_size(file, tmp_path):
    """An eps is another threat on other pixels."""
    torch.manual_seed(0)
    names = tuple("0123456789")
    CNN(CNNConfig("preact-resnet18", 10, (1, 16, 16), width=2, class_names=names)).save_pretrained(tmp_path / "large")
    (tmp_path / "c.yaml").write_text(file.read_text() + f"  large: {tmp_path / 'large'}\n")
    with pytest.raises(IDCError, match="1x16x16"):
        compare(read_comparison(tmp_path / "c.yaml"), tmp_path / "out", say=lambda text: None)


def test_protocols_of_its_own_and_tables_as_it_goes(file, tmp_path, monkeypatch):
    """A model may have fewer protocols; what is done when another fails is in the tables, and in a report."""
    text = file.read_text().replace("[0.05, 0.1]", "[0.05]").replace("training: by hand", "protocols: [pgd]")
    (tmp_path / "c.yaml").write_text(text)
    plain = comparing.evaluate

    def failing(request, *rest, **settings):
        if "cnn" in request.model:
            raise RuntimeError("broken")
        return plain(request, *rest, **settings)

    monkeypatch.setattr(comparing, "evaluate", failing)
    with pytest.raises(RuntimeError):
        compare(read_comparison(tmp_path / "c.yaml"), tmp_path / "out", say=lambda text: None)
    assert "IDC, tiny" in (tmp_path / "out" / "table.md").read_text()
    monkeypatch.undo()
    rows = compare(read_comparison(tmp_path / "c.yaml"), tmp_path / "out", say=lambda text: None)
    assert [list(row["protocols"]) for row in rows] == [["clean", "pgd"], ["pgd"]]
    write_comparison(tmp_path / "out")
    results, _ = read_results([tmp_path / "out"])
    assert [result.protocol for result in results] == ["clean", "pgd", "pgd"]
    with pytest.raises(IDCError, match="a folder of a result"):
        read_results([tmp_path / "nowhere"])
