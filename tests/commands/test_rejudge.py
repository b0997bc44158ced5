"""The images that an evaluation kept are judged again, by the same weights or not at all."""

import json
from dataclasses import replace

import pytest

from idc.commands.evaluate import evaluate
from idc.commands.rejudge import rejudge
from idc.commands.request import Request
from idc.errors import IDCError
from tiny import save_digits_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return str(save_digits_model(tmp_path_factory.mktemp("model") / "m"))


def test_kept_images_are_judged_again(saved, tmp_path):
    request = Request(model=saved, data="digits", protocol="pgd", eps=0.05, limit=20, draws=5, keep=True,
                      steps=2)  # fmt: skip
    summary = evaluate(request, tmp_path / "r")
    again = rejudge(tmp_path / "r", draws=40, seed=9)
    assert again["robust"]["draws"] == 40
    assert again["robust"]["mean"]["mean"] == pytest.approx(summary["robust"]["mean"]["mean"], abs=0.15)
    assert rejudge(tmp_path / "r", draws=40, seed=9) == again
    assert rejudge(tmp_path / "r", draws=40, seed=10) != again
    evaluate(Request(model=saved, data="digits", limit=4), tmp_path / "bare")
    evaluate(Request(model=saved, data="digits", limit=4, keep=True), tmp_path / "bare2")
    settings = json.loads((tmp_path / "bare2" / "settings.json").read_text())
    settings["classifier"]["fingerprint"] = "other"
    (tmp_path / "bare2" / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(IDCError, match="weights"):
        rejudge(tmp_path / "bare2")
    for folder in (tmp_path / "bare", tmp_path / "none"):
        with pytest.raises(IDCError):
            rejudge(folder)


def test_keeping_later_keeps_all(saved, tmp_path):
    request = Request(model=saved, data="digits", protocol="pgd", eps=0.05, limit=6, draws=2, steps=1)
    first = evaluate(request, tmp_path / "r")
    second = evaluate(replace(request, keep=True), tmp_path / "r")
    assert first["robust"] == second["robust"]
    assert rejudge(tmp_path / "r", draws=2)["robust"]["mean"]["n"] == 6
