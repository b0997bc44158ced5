"""The page of results, from records made by hand: its figures, its words, its files, its refusals."""

import copy
import csv
import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from idc.errors import IDCError
from idc.report.results import read_results
from idc.report.results_page import readings, write_report


def share(mean: float, n: int = 100) -> dict[str, float]:
    return {"mean": mean, "low": max(mean - 0.05, 0), "high": min(mean + 0.05, 1), "n": n}


def verdict(mean: float, draws: int = 10) -> dict[str, object]:
    return {"mean": share(mean), "majority": share(mean), "worst_of_n": share(mean / 2), "draws": draws}


NAMES = ["cat", "<script>alert(1)</script>"]


def summary(protocol: str = "adaptive", eps: float = 8 / 255, robust: float = 0.1234, **more) -> dict:
    attacks = {"adaptive": {"adaptive": 0.13}, "paper": {"fgsm": 0.55, "pgd-20": 0.4, "cw-l2": 0.95}, "clean": {}}
    threat = {"norm": "linf", "eps": eps, "bounds": {"lower": 0.0, "upper": 1.0}}
    described = {name: {"kind": "Attack", "threat": {"kind": "Threat"}, "steps": 7, "objective": {"kind": "Margin"}}
                 for name in attacks[protocol]}  # fmt: skip
    found = {
        "clean": verdict(0.8), "noise": verdict(0.79), "robust": verdict(robust), "protocol": protocol,
        "attacks": {name: verdict(v) | {"attacked": 90} for name, v in attacks[protocol].items()}, "adaptive":
        protocol == "adaptive", "reliable": True, "images": 100, "draws": 10, "single_draw": share(0.1), "flags": [],
        "sanity": [{"name": "a check", "passed": True, "figure": "fine", "remedy": "none"}] * (protocol == "adaptive"),
        "confusion": {"clean": [[40, 10, 0], [10, 40, 0]], "robust": [[5, 45, 0], [40, 5, 5]]}, "class_names": NAMES,
        "cost": {"forward": {"answer": 10.0}, "backward": {"answer": 5.0}, "flops": 2e9, "answers": 10.0,
                 "seconds": 0.25, "peak_flops_per_second": 1e11, "floor_seconds": 0.02, "ratio": 12.5,
                 "seconds_by_attack": {}},
        "answer": {"parameters": 1234567, "flops": 3e8, "stochastic": True},
        "settings": {"model": "runs/m", "visits": [3, 1, 0], "eta": 1.0, "seed": 0, "device": "cpu", "threads": 2,
                     "processes": 1, "versions": {"torch": "2"}, "data": {"source": "toys", "split": "test"},
                     "protocol": {"name": protocol, "threat": threat, "attacks": described, "gate": True}},
    }  # fmt: skip
    return found | more


@pytest.fixture
def write(tmp_path):
    def make(name: str, panel: bool = False, **settings):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps(summary(**settings)))
        if panel:
            random = np.random.default_rng(0)
            names = ("clean", "adversarial", "clean_translation", "adversarial_translation", "clean_nearest",
                     "adversarial_nearest")  # fmt: skip
            save_file({n: random.random((2, 1, 8, 8), dtype=np.float32) for n in names}, folder / "panel.safetensors")
            rows = [{"id": i, "class": 0, "clean": 0, "adversarial": 1} for i in range(2)]
            (folder / "panel.json").write_text(json.dumps(rows))
        return folder

    return make


def test_page_holds_the_figures_and_nothing_from_elsewhere(write, tmp_path):
    folders = [write("a", panel=True), write("b", protocol="paper", robust=0.3), write("c", eps=4 / 255, robust=0.4)]
    written = write_report(folders, tmp_path / "out" / "page.html")
    text = (tmp_path / "out" / "page.html").read_text()
    for words in ("12.3% [7.3%, 17.3%]", "linf 8/255", "linf 4/255", "1,234,567", "a check", "12.5 times the floor"):
        assert words in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert not re.search(r"url\((?!#)", text)
    assert text.count('<img class="px"') == 2 * 6
    assert 'name="viewport"' in text
    assert {p.name for p in written} == {p.name for p in (tmp_path / "out").iterdir()} == {
        "page.html", "page.csv", "page-eps.png", "page-eps.svg", "page-flops.png", "page-flops.svg"}  # fmt: skip


def test_csv_holds_every_verdict(write, tmp_path):
    write_report([write("a"), write("b", protocol="paper")], tmp_path / "page.html")
    rows = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert len(rows) == 3 * (3 + 1) + 3 * (3 + 3)
    robust = [r for r in rows if (r["protocol"], r["points"], r["verdict"]) == ("adaptive", "robust", "mean")]
    assert [float(r["accuracy"]) for r in robust] == [0.1234]


def test_overstatement_is_put_in_words_and_numbers(write):
    results, _ = read_results([write("a", robust=0.1), write("b", protocol="paper", robust=0.3)])
    (text,) = readings(results)
    assert "10.0%" in text
    assert "40.0% (pgd-20) to 55.0% (fgsm)" in text
    assert "30.0 to 45.0 points" in text
    assert readings(results[:1]) == []


def test_a_failed_check_is_shouted(write, tmp_path):
    failed = [{"name": "gradients", "passed": False, "figure": "0%", "remedy": "give a surrogate"}]
    write_report([write("a", reliable=False, sanity=failed)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "UNRELIABLE" in text
    assert "give a surrogate" in text


def test_sweeps_become_figures_and_results(write, tmp_path):
    rows = []
    (tmp_path / "s").mkdir()
    for steps in (5, 50):
        own = summary(robust=0.5 - steps / 200)
        (tmp_path / "s" / f"steps-{steps}").mkdir()
        (tmp_path / "s" / f"steps-{steps}" / "summary.json").write_text(json.dumps(own))
        rows.append({"value": steps, "text": str(steps)} | {k: own[k] for k in ("clean", "noise", "robust", "cost")})
    sweep = {"setting": "steps", "protocol": "pgd", "model": "m", "rows": rows}
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(sweep))
    written = write_report([tmp_path / "s"], tmp_path / "page.html")
    assert tmp_path / "page-sweep-steps.svg" in written
    assert "over steps" in (tmp_path / "page.html").read_text()
    assert len(read_results([tmp_path / "s"])[0]) == 2


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
    assert "runs/m (3, 1, 0), sigma 0.12" in text
    assert "worst point" not in text  # nothing was attacked
    assert "<title>Certified robustness</title>" in text
    rows = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert [(r["norm"], float(r["eps"]), float(r["accuracy"])) for r in rows if r["verdict"] == "sigma 0.5"] == [
        ("l2", k * 0.125, pytest.approx(0.9 - k / 5)) for k in range(5)
    ]
    write_report([write("a"), *folders], tmp_path / "both.html")
    text = (tmp_path / "both.html").read_text()
    assert "<title>Robustness evaluation</title>" in text
    assert "worst point" in text
    assert "sigma 0.5" in text


def test_certificates_of_one_model_are_told_apart_by_their_folders(certified, tmp_path):
    write_report([certified("one", 0.25), certified("two", 0.25), certified("high", 0.5)], tmp_path / "page.html")
    names = {r["model"] for r in csv.DictReader((tmp_path / "page.csv").open())}
    m = "runs/m (3, 1, 0)"
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
    with pytest.raises(IDCError, match="nothing"):
        write_report([tmp_path / "nothing"], tmp_path / "none" / "page.html")
    assert not (tmp_path / "none").exists()
