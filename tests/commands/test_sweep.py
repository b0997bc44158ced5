"""A sweep is its evaluations."""

import json

import pytest

from idc.commands.request import Request
from idc.commands.sweep import parse_sweep, run_sweep
from idc.errors import IDCError
from tiny import save_digits_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return str(save_digits_model(tmp_path_factory.mktemp("model") / "m"))


def test_a_sweep_is_its_evaluations(saved, tmp_path):
    request = Request(model=saved, data="digits", protocol="pgd", eps=0.05, limit=6, draws=2)
    found = run_sweep(request, "steps=1,3", tmp_path / "s", say=lambda _: None)
    for row, steps in zip(found["rows"], (1, 3), strict=True):
        own = json.loads((tmp_path / "s" / f"steps-{steps}" / "summary.json").read_text())
        assert row["robust"] == own["robust"]
        assert own["settings"]["protocol"]["attacks"][f"pgd-{steps}"]["steps"] == steps
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["setting"] == "steps"
    visits = run_sweep(request, "visits=3;3,0", tmp_path / "v", say=lambda _: None)
    assert [row["robust"]["draws"] for row in visits["rows"]] == [1, 2]


@pytest.mark.parametrize("text", ["steps", "steps=", "colour=1,2", "steps=a", "visits=3;x", "eps=1/0"])
def test_sweeps_that_make_no_sense_are_refused(text):
    with pytest.raises(IDCError):
        parse_sweep(text)
