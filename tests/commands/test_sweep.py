"""A sweep is its evaluations."""

import json
from dataclasses import replace

import pytest

from idc.commands.request import Request
from idc.commands.sweep import parse_sweep, run_sweep
from idc.errors import IDCError
from idc.report.curves import over_setting
from idc.report.results_page import write_report
from tiny import save_digits_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return str(save_digits_model(tmp_path_factory.mktemp("model") / "m"))


def test_a_sweep_is_its_evaluations(saved, tmp_path):
    request = Request(model=saved, data="digits", protocol="pgd", eps=0.05, limit=6, draws=2)
    found = run_sweep(request, "steps=1,3", tmp_path / "s", say=lambda _: None)
    for row, steps in zip(found["rows"], (1, 3), strict=True):
        own = json.loads((tmp_path / "s" / f"steps-{steps}" / "summary.json").read_text())
        assert (row["robust"], row["reliable"], row["images"]) == (own["robust"], own["reliable"], 6)
        attack = own["settings"]["protocol"]["attacks"][f"pgd-{steps} (margin)"]
        assert (attack["steps"], attack["surrogate"], attack["objective"]["kind"]) == (
            steps,
            "one-step-inner",
            "Margin",
        )
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["setting"] == "steps"
    losses = run_sweep(replace(request, steps=1), "loss=dlr,none", tmp_path / "l", say=lambda _: None)
    attacks = [
        json.loads((tmp_path / "l" / f"loss-{name}" / "summary.json").read_text())["attacks"]
        for name in ("dlr", "none")
    ]
    assert [list(own) for own in attacks] == [["pgd-1 (dlr)"], ["pgd-1 (margin)", "pgd-1 (cross-entropy)"]]
    assert losses["data"] == "digits test"
    [axes] = over_setting(losses).axes
    assert {line.get_linestyle() for line in axes.lines} == {"None"}, "names are not joined"
    radii = run_sweep(replace(request, steps=1), "eps=2/255,0.1", tmp_path / "e", say=lambda _: None)
    assert [row["value"] for row in radii["rows"]] == [2 / 255, 0.1]
    assert {path.name for path in (tmp_path / "e").glob("eps-*")} == {"eps-2-255", "eps-0.1"}
    visits = run_sweep(request, "visits=3;3,0", tmp_path / "v", say=lambda _: None)
    assert [row["robust"]["draws"] for row in visits["rows"]] == [1, 2]


def test_norms_stand_beside_each_other_with_their_union(saved, tmp_path):
    request = Request(model=saved, data="digits", protocol="pgd", steps=1, limit=4, draws=2)
    found = run_sweep(request, "norm=linf:0.05,l2,l1", tmp_path / "n", say=lambda _: None)
    assert [(row["value"], row["eps"]) for row in found["rows"]] == [("linf", 0.05), ("l2", 1.0), ("l1", 4.0)]
    right = {}
    for norm in ("linf", "l2", "l1"):
        text = (tmp_path / "n" / f"norm-{norm}" / "images-0.jsonl").read_text()
        for line in map(json.loads, text.splitlines()):
            right.setdefault(line["id"], []).append(line["robust"][0])
    assert found["union"]["mean"]["mean"] == pytest.approx(sum(map(min, right.values())) / (2 * 4))
    assert json.loads((tmp_path / "n" / "sweep.json").read_text())["union"] == found["union"]
    [file] = write_report([tmp_path / "n"], tmp_path / "r.json", form="json")
    held = json.loads(file.read_text())
    [row] = [row for row in held["rows"] if row["norm"] == "union" and row["verdict"] == "mean"]
    assert row["accuracy"] == found["union"]["mean"]["mean"]
    assert any("union of L-inf 0.05, L2 1, L1 4" in text for text in held["statements"])
    write_report([tmp_path / "n"], tmp_path / "r.html")
    assert "union of the norms" in (tmp_path / "r.html").read_text()
    with pytest.raises(IDCError, match="a radius for each norm"):
        run_sweep(replace(request, eps=0.1), "norm=linf,l2", tmp_path / "no", say=lambda _: None)


def test_every_value_is_built_before_the_first_is_evaluated(saved, tmp_path):
    request = Request(model=saved, data="digits", protocol="autoattack", limit=4)
    with pytest.raises(IDCError, match="norm l1 for AutoAttack"):
        run_sweep(request, "norm=linf,l2,l1", tmp_path / "n", say=lambda _: None)
    assert not (tmp_path / "n").exists()


def test_what_has_no_radius_is_not_swept_over_radii(saved, tmp_path):
    request = Request(model=saved, data="digits", protocol="shifts", limit=2, one_step=True)
    for over in ("eps=0.1,0.2", "norm=linf,l2"):
        with pytest.raises(IDCError, match=r"a sweep of shifts over (eps|norm): expected a protocol"):
            run_sweep(request, over, tmp_path / "s", say=lambda _: None)
    assert not (tmp_path / "s").exists()
    told = []
    found = run_sweep(replace(request, eps=0.1), "draws=1", tmp_path / "d", say=told.append)
    assert "noise" not in found["rows"][0]
    assert sum("--norm and --eps mean nothing to shifts" in text for text in told) == 1
    over_setting(found)


@pytest.mark.parametrize(
    "text",
    [
        "norm=l3",
        "norm=linf:x",
        "norm=l2:0.1,l2:0.2",
        "norm=",
        "steps",
        "steps=",
        "colour=1,2",
        "steps=a",
        "loss=hinge",
        "visits=3;x",
        "eps=1/0",
        "eps=0.1,0.2,1/10",
        "eps=0.1,0.10000001",
    ],
)
def test_sweeps_that_make_no_sense_are_refused(text):
    with pytest.raises(IDCError):
        parse_sweep(text)
