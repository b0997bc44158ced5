"""The page of results, from records made by hand: its figures, its words, its files, its refusals."""

import copy
import csv
import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from idc.errors import IDCError
from idc.report import curves
from idc.report.content import Heading, readings, survival
from idc.report.results import read_results, read_trainings
from idc.report.results_page import write_report
from summaries import own_answers, share, summary, write_result, write_sweep


@pytest.fixture
def write(tmp_path):
    return lambda name, **settings: write_result(tmp_path / name, **settings)


def test_page_holds_the_figures_and_nothing_from_elsewhere(write, tmp_path):
    folders = [write("a", panel=2), write("b", protocol="paper", robust=0.3), write("c", eps=4 / 255, robust=0.4)]
    written = write_report(folders, tmp_path / "out" / "page.html")
    text = (tmp_path / "out" / "page.html").read_text()
    for words in ("12.3% [7.3%, 17.3%]", "linf 8/255", "linf 4/255", "1,234,567", "a check", "12.5 times the floor"):
        assert words in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert not re.search(r"url\((?!#)", text)
    assert text.count('<img class="px"') == 2 * 6 + (2 + 2 * (1 + 3 + 1))  # the panel; the labels, and the way to them
    assert 'name="viewport"' in text
    assert {p.name for p in written} == {p.name for p in (tmp_path / "out").iterdir()} == {
        "page.html", "page.csv", "page-eps.png", "page-eps.svg", "page-flops.png", "page-flops.svg"}  # fmt: skip


def test_a_clean_page_has_the_own_answer_and_nothing_of_attacks(write, tmp_path):
    folder = write("a", panel=2, **own_answers())
    save_file({"images": np.zeros((2, 1, 8, 8), np.float32)}, folder / "mistakes.safetensors")
    write_report([folder], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    for words in ("<h1>Evaluation</h1>", "85.1% [80.1%, 90.1%]", "77.8%", "a single draw, on average over 10",
                  "majority vote of 10 draws", "5.1%", "no probability", "98.7%", "&lt;script&gt;"):  # fmt: skip
        assert words in text
    assert "<script>" not in text
    table = re.findall(r"<tr><td>cat</td>(.*?)</tr>", text)
    assert [re.sub("<.*?>", " ", row).split()[:3] for row in table] == [["80.0%", "40", "50"]]
    assert not re.search(r"adversarial|robust|under attack|random noise|worst of", text, re.IGNORECASE)
    rows = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert [(r["points"], r["verdict"]) for r in rows][-1] == ("clean", "own answer")
    assert {r["points"] for r in rows} == {"clean"}
    write_report([folder, write("b")], tmp_path / "both.html")
    assert "Robustness evaluation" in (tmp_path / "both.html").read_text()


def test_csv_holds_every_verdict(write, tmp_path):
    write_report([write("a"), write("b", protocol="paper")], tmp_path / "page.html")
    rows = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert len(rows) == 3 * (3 + 1) + 3 * (3 + 3)
    robust = [r for r in rows if (r["protocol"], r["points"], r["verdict"]) == ("adaptive", "robust", "mean")]
    assert [float(r["accuracy"]) for r in robust] == [0.1234]


def test_overstatement_is_put_in_words_and_numbers(write):
    results, _ = read_results([write("a", robust=0.1), write("b", protocol="paper", robust=0.3)])
    first, second, text = readings(results)
    assert "adaptive: " in first
    assert "An upper bound" in second
    assert "10.0%" in text
    assert "40.0% (pgd-20) to 55.0% (fgsm)" in text
    assert "30.0 to 45.0 points" in text
    assert readings(results[:1]) == [first]


def test_a_page_has_a_title_an_author_and_a_date(write, tmp_path):
    write_report([write("a")], tmp_path / "page.html", Heading("Audit <1>", "A. Person", "2026-11-27"))
    text = (tmp_path / "page.html").read_text()
    assert "<h1>Audit &lt;1&gt;</h1>" in text
    assert "A. Person, 2026-11-27" in text


def test_a_failed_check_is_shouted(write, tmp_path):
    failed = [{"name": "gradients", "passed": False, "figure": "0%", "remedy": "give a surrogate"}]
    write_report([write("a", reliable=False, sanity=failed)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "UNRELIABLE" in text
    assert "give a surrogate" in text


def test_another_programs_table_is_not_written_over(write, tmp_path):
    folder = write("a")
    (tmp_path / "page.csv").write_text("image,class\na.png,cat\n")
    with pytest.raises(IDCError, match=r"page\.csv: expected the table of an earlier report"):
        write_report([folder], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    assert (tmp_path / "page.csv").read_text().startswith("image")
    assert write_report([folder], tmp_path / "other.html") == write_report([folder], tmp_path / "other.html")


def test_sweeps_become_figures_and_results(write, tmp_path):
    write_sweep(tmp_path / "s", "steps", {5: 0.475, 50: 0.25})
    written = write_report([tmp_path / "s"], tmp_path / "page.html")
    assert tmp_path / "page-sweep-steps.svg" in written
    assert "over steps" in (tmp_path / "page.html").read_text()
    assert len(read_results([tmp_path / "s"])[0]) == 2


@pytest.mark.parametrize(
    ("robust", "words"),
    [
        (
            (0.9, 0.8),
            ("80.0% right without: clearly keeps more than half of that up to eps 0.1 (80.0% [75.0%, 85.0%] right",),
        ),
        (
            (0.6, 0.1),
            ("keeps more than half of that up to eps 0.05", "clearly less from eps 0.1 (10.0%", "size leaves 79.0%"),
        ),
        ((0.1, 0.0), ("without: clearly less from eps 0.05",)),
        ((0.42, 0.38), ("neither",)),
    ],
)
def test_words_follow_from_the_numbers(write, tmp_path, robust, words):
    """Of a sweep over eps, and of no other."""
    write_sweep(tmp_path / "s", "eps", dict(zip((0.05, 0.1), robust, strict=True)))
    write_sweep(tmp_path / "other", "steps", {5: 0.9, 50: 0.1})
    (text,) = survival(read_results([tmp_path / "s", tmp_path / "other"])[1])
    assert text.startswith("runs/m, visits 3, 1, 0 under pgd")
    assert all(word in text for word in words), text
    said = [word in text for word in ("more than half of", "less from")]
    assert said == [word in str(words) for word in ("more than half of", "less from")]


@pytest.mark.parametrize("keys", [("one_step", "multi_step"), ("clean", "robust")])
def test_a_training_has_its_curve(tmp_path, keys):
    """Of any kind of run, its last line cut short by a kill; nothing of one that has not finished."""
    rows = [{"step": 1, "lr": 0.1}, {"step": 2, "epoch": 1, f"validation/{keys[0]}": 0.5, f"validation/{keys[1]}": 0.4}]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step"')
    with pytest.raises(IDCError, match="finish the training"):
        write_report([tmp_path / "run"], tmp_path / "out" / "page.html")
    assert not (tmp_path / "out").exists()
    (tmp_path / "run" / "summary.json").write_text(json.dumps({"seconds": 12.3, "images_seen": 4567}))
    (run,) = read_trainings([tmp_path / "run"])
    assert run["history"] == rows[1:]
    (axes,) = curves.over_epochs(run["history"]).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[50.0], [40.0]]
    assert tmp_path / "out" / "page-training.svg" in write_report([tmp_path / "run"], tmp_path / "out" / "page.html")
    assert "training, 12 s, 4,567 images seen" in (tmp_path / "out" / "page.html").read_text()


def test_each_attack_of_a_resumed_run_has_its_own_curve():
    older = [
        {"epoch": e, "validation/one_step": 0.6, "validation/attacked_one_step": 0.4, "validation/eps": 0.1}
        for e in (1, 2)
    ]
    newer = {"epoch": 3, "validation/one_step": 0.7, "validation/attacked_one_step": 0.3, "validation/eps": 0.1}
    (axes,) = curves.over_epochs([*older, newer | {"validation/attacked_by": "PGD-10 on the margin"}]).axes
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn == {
        "one-step": ([1, 2, 3], [60.0, 60.0, 70.0]),
        "one-step, attacked: without a name": ([1, 2], [40.0, 40.0]),
        "one-step, attacked: PGD-10 on the margin": ([3], [30.0]),
    }


@pytest.fixture
def certified(tmp_path):
    def make(name: str, sigma: float):
        (tmp_path / name).mkdir()
        curve = [{"radius": k * sigma / 4} | share(0.9 - k / 5) for k in range(5)]
        own = {k: v for k, v in summary()["settings"].items() if k != "protocol"}
        found = {
            "kind": "certify", "accuracy": share(0.911), "abstained": share(0.02), "uncertified": share(0.03),
            "curve": curve, "mean_radius": 0.1, "standard_error": 0.01, "largest_radius": 0.4, "images": 100,
            "cost": {"samples": 1100, "evaluations": 3300, "flops": 5e9, "seconds": 0.5},
            "settings": own | {"smoothing": {"sigma": sigma, "n0": 100, "n": 1000, "alpha": 0.001}},
        }  # fmt: skip
        (tmp_path / name / "certify.json").write_text(json.dumps(found))
        return tmp_path / name

    return make


def test_certificates_have_a_table_a_curve_and_lines_in_the_csv(write, certified, tmp_path):
    folders = [certified("low", 0.12), certified("high", 0.5)]
    written = write_report(folders, tmp_path / "page.html")
    assert {p.name for p in written} == {"page.html", "page.csv", "page-radius.png", "page-radius.svg"}
    text = (tmp_path / "page.html").read_text()
    assert text.count("91.1% [86.1%, 96.1%]") == 2
    assert "runs/m, visits 3, 1, 0, sigma 0.12" in text
    assert "adversarial example" not in text  # nothing was attacked
    assert "<title>Certified robustness</title>" in text
    rows = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert [(r["norm"], float(r["eps"]), float(r["accuracy"])) for r in rows if r["verdict"] == "sigma 0.5"] == [
        ("l2", k * 0.125, pytest.approx(0.9 - k / 5)) for k in range(5)
    ]
    write_report([write("a"), *folders], tmp_path / "both.html")
    text = (tmp_path / "both.html").read_text()
    assert "<title>Robustness evaluation</title>" in text
    assert "adversarial example" in text
    assert "sigma 0.5" in text


def test_certificates_of_one_model_are_told_apart_by_their_folders(certified, tmp_path):
    write_report([certified("one", 0.25), certified("two", 0.25), certified("high", 0.5)], tmp_path / "page.html")
    names = {r["model"] for r in csv.DictReader((tmp_path / "page.csv").open())}
    m = "runs/m, visits 3, 1, 0"
    assert names == {m, f"{m}, {tmp_path / 'one'}", f"{m}, {tmp_path / 'two'}"}


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "certify"}', '{"curve": []}'])
def test_damaged_certificates_are_refused(certified, tmp_path, content):
    folder = certified("a", 0.25)
    (folder / "certify.json").write_text(content)
    with pytest.raises(IDCError):
        write_report([folder], tmp_path / "none" / "page.html")
    assert not (tmp_path / "none").exists()


def test_damaged_results_are_refused_and_nothing_is_written(write, tmp_path):
    folder = write("a")
    good = json.loads((folder / "summary.json").read_text())
    broken = copy.deepcopy(good)
    del broken["clean"]["mean"]["low"]
    for content in ("{", "[]", json.dumps({"clean": 1}), json.dumps(broken)):
        (folder / "summary.json").write_text(content)
        with pytest.raises(IDCError):
            write_report([folder], tmp_path / "none" / "page.html")
    with pytest.raises(IDCError, match=rf"^{re.escape(str(folder))}: expected a whole result \('low' is missing\)"):
        write_report([write("whole"), folder], tmp_path / "none" / "page.html")
    with pytest.raises(IDCError, match="the name of a page"):
        write_report([write("other")], tmp_path / "none" / "summary.json")
    with pytest.raises(IDCError, match="nothing"):
        write_report([tmp_path / "nothing"], tmp_path / "none" / "page.html")
    assert not (tmp_path / "none").exists()
