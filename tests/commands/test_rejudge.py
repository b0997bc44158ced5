"""The images that an evaluation kept are judged again, by the same weights or not at all."""

import importlib
import json
import sys
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
    with pytest.raises(IDCError, match="its weights or its answers are others"):
        rejudge(tmp_path / "bare2")
    evaluate(replace(request, split="validation"), tmp_path / "v")
    assert rejudge(tmp_path / "v", draws=2)["robust"]["mean"]["n"] == 20
    assert again["same_model"]
    assert not rejudge(tmp_path / "bare2", model=saved)["same_model"]
    for folder in (tmp_path / "bare", tmp_path / "none"):
        with pytest.raises(IDCError):
            rejudge(folder)


def test_keeping_later_keeps_all(saved, tmp_path):
    request = Request(model=saved, data="digits", protocol="pgd", eps=0.05, limit=6, draws=2, steps=1)
    first = evaluate(request, tmp_path / "r")
    second = evaluate(replace(request, keep=True), tmp_path / "r")
    assert first["robust"] == second["robust"]
    assert rejudge(tmp_path / "r", draws=2)["robust"]["mean"]["n"] == 6


CODE = """
import pathlib, torch

class Net(torch.nn.Linear):
    input_shape = (1, 8, 8)

    def forward(self, x):
        return super().forward(INPUT.flatten(1))

def run():
    pathlib.Path("EXECUTED").touch()
    torch.manual_seed(0)
    return Net(64, 10)
"""


@pytest.fixture
def write_code(tmp_path, monkeypatch):
    """Write the module ``evil``, a linear one of an input."""
    monkeypatch.chdir(tmp_path)

    def write(of="x"):
        (tmp_path / "evil.py").write_text(CODE.replace("INPUT", of))
        monkeypatch.delitem(sys.modules, "evil", raising=False)
        importlib.invalidate_caches()

    return write


def test_code_that_a_result_names_runs_only_if_it_is_named_again(saved, tmp_path, write_code):
    write_code()
    evaluate(Request(model=saved, data="digits", limit=4, keep=True), tmp_path / "r")
    file = tmp_path / "r" / "request.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model": "evil:run"}))
    with pytest.raises(IDCError, match=r"evil:run in .*no file chooses code; add --model evil:run"):
        rejudge(tmp_path / "r")
    assert not (tmp_path / "EXECUTED").exists()
    assert not rejudge(tmp_path / "r", model="evil:run")["same_model"]
    assert (tmp_path / "EXECUTED").exists()


def test_a_model_with_the_weights_of_then_and_other_code_is_another(tmp_path, write_code):
    write_code()
    evaluate(Request(model="evil:run", data="digits", limit=4, keep=True), tmp_path / "r")
    assert rejudge(tmp_path / "r", model="evil:run")["same_model"]
    write_code("(1 - x)")
    with pytest.raises(IDCError, match="a result of the same answers"):
        evaluate(Request(model="evil:run", data="digits", limit=4, keep=True), tmp_path / "r")
    assert not rejudge(tmp_path / "r", model="evil:run")["same_model"]
    file = tmp_path / "r" / "settings.json"  # as those of before answers were kept
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "answers"}))
    assert rejudge(tmp_path / "r", model="evil:run")["same_model"]
    evaluate(Request(model="evil:run", data="digits", limit=4, keep=True), tmp_path / "r")
