"""A memory outside of a model, of which no copy is free, is found by a process that begins anew."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
import torch

from idc.attacks.gradient import pgd
from idc.attacks.objective import Margin
from idc.attacks.threat import Threat
from idc.commands.evaluate import evaluate
from idc.commands.fresh import _compared, judged_anew, main, same_in_fresh_process
from idc.commands.request import Request
from idc.evaluation.protocol import Protocol
from idc.evaluation.runner import kept_images
from idc.evaluation.summary import read_lines

CODE = """
import torch
from torch import nn

SEEN, TF32 = [], []

class Net(nn.Linear):
    # From the fortieth image on it may answer otherwise, and no copy of it knows of less.
    input_shape, num_classes = (1, 8, 8), 10

    def __init__(self, after):
        torch.manual_seed(0)
        super().__init__(64, 10)
        self.after = after

    def forward(self, x):
        SEEN.extend(range(len(x)))
        TF32.append(torch.backends.cudnn.allow_tf32)
        return super().forward((x.flip(-1) if len(SEEN) > self.after else x).flatten(1))

def honest():
    return Net(1e9)

def tiring():
    print("a word of its own")
    return Net(40)
"""


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    (tmp_path / "kept_outside.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "kept_outside", raising=False)
    threat = Threat("linf", 0.1)
    attack = pgd(threat, steps=3, random_start=False, objective=Margin())

    def run(name, **settings):
        request = Request(model=f"kept_outside:{name}", data="digits", eps=0.1, limit=20, **settings)
        found = evaluate(request, tmp_path / name, protocol=Protocol("own", threat, (("pgd", attack),)))
        return request, tmp_path / name, found

    return run


def here(command, *, input, **how):
    """In place of a process, which tests/system starts: this one, where the module is imported anew."""
    sys.modules.pop("kept_outside")
    err, out = "", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr("sys.stdin", io.StringIO(input))
        try:
            main()
        except SystemExit as ended:
            err = str(ended)
    return subprocess.CompletedProcess(command, int(bool(err)), out.getvalue(), err)


def test_a_memory_outside_of_the_model_is_found(evaluated, monkeypatch):
    monkeypatch.setattr(subprocess, "run", here)
    request, out, summary = evaluated("tiring", keep=True)
    assert all(own["passed"] for own in summary["sanity"] if own["name"] == "the same answer as before it was asked")
    assert [own["name"] for own in summary["sanity"] if "fresh" in own["name"]] == []  # a short protocol
    finding = same_in_fresh_process(request, out, read_lines(out))
    assert not finding.passed
    assert finding.figure.startswith("20 adversarial images: ")


def test_the_first_few_are_judged_where_none_are_kept(evaluated):
    request, out, _ = evaluated("honest")
    found, lines = judged_anew(request, out, 1), {line["id"]: line["robust"] for line in read_lines(out)}
    assert len(found) == 8
    assert found == {image: lines[image] for image in found}
    (out / "first.safetensors").unlink()
    assert len(kept_images(out, 3)[1]) == 0
    finding = same_in_fresh_process(request, out, read_lines(out))
    assert (finding.made, finding.figure) == (False, "no adversarial image is kept")


def test_the_model_is_asked_in_full_float32_as_the_evaluation_asked(evaluated):
    request, out, _ = evaluated("honest")
    seen = sys.modules["kept_outside"].TF32
    seen.clear()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        judged_anew(request, out, 1)
    assert seen[-1] is False  # the last call is the question, those before it open the model


def test_no_more_files_are_read_than_images_are_wanted(evaluated, monkeypatch):
    _, out, _ = evaluated("honest", keep=True, block=8)
    for number, kept in ((1, 8), (9, 9), (99, 20)):
        assert len(kept_images(out, number)[1]) == min(number, kept)
    (out / "adversarial" / "block-000001.safetensors").write_bytes(b"")
    assert [len(part) for part in kept_images(out, 8)] == [8, 8]
    assert [len(part) for part in kept_images(out, 9)] == [0, 0]


def test_an_honest_model_passes_and_one_that_does_not_open_again_has_failed(evaluated, monkeypatch):
    request, out, _ = evaluated("honest", keep=True)
    monkeypatch.setattr(subprocess, "run", here)
    finding = same_in_fresh_process(request, out, read_lines(out))
    assert finding.passed
    assert finding.figure == "20 adversarial images: 0 verdicts differ"
    finding = same_in_fresh_process(replace(request, model="kept_outside:none"), out, read_lines(out))
    assert not finding.passed
    assert "kept_outside:none" in finding.figure


def ended(code, out="", err=""):
    return lambda command, **how: subprocess.CompletedProcess(command, code, out, err)


def late(command, *, timeout, **how):
    raise subprocess.TimeoutExpired(command, timeout)


def one_answer_only(command, *, input, **how):
    return ended(0, json.loads(input)["token"] + '{"-1": [1, 1]}')(command)


def test_what_keeps_another_process_from_answering_is_said(evaluated, monkeypatch):
    request, out, _ = evaluated("honest")
    for run, why in (
        (ended(-9), "the other process was killed"),
        (ended(1, err="CUDA out of memory"), "CUDA out of memory"),
        (ended(-6, err="what():  std::bad_alloc"), "std::bad_alloc"),
        (ended(1, err="CUDA-capable device(s) is/are busy or unavailable"), "busy or unavailable"),
    ):
        monkeypatch.setattr(subprocess, "run", run)
        finding = same_in_fresh_process(request, out, read_lines(out))
        assert not finding.made
        assert why in finding.figure
    finding = same_in_fresh_process(replace(request, model="__main__:net"), out, read_lines(out))
    assert not finding.made
    assert "__main__:net is in a script" in finding.figure


def test_a_process_that_ends_without_all_answers_is_a_failure(evaluated, monkeypatch):
    request, out, _ = evaluated("honest")
    for run, why in (
        (ended(-11), "stopped: Segmentation fault: no answer"),
        (ended(-6, err="Fatal Python error: Aborted"), "stopped: Aborted: Fatal Python error: Aborted"),
        (late, "stopped: no answer within 3600 seconds"),
        (ended(0, 'idc judged anew: {"0": [1, 1]}'), "stopped: no answer"),  # that of a model, in place of ours
        (one_answer_only, "no answer to image "),
    ):
        monkeypatch.setattr(subprocess, "run", run)
        finding = same_in_fresh_process(request, out, read_lines(out))
        assert not finding.passed
        assert finding.figure.startswith(why)


def test_another_process_imports_what_this_one_does_and_has_its_environment(evaluated, monkeypatch):
    """All but its place among the processes of a launcher."""
    request, out, _ = evaluated("honest")
    seen = {}
    monkeypatch.setattr(subprocess, "run", lambda command, *, env, **how: seen.update(env) or here(command, **how))
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")
    for name in ("LOCAL_MODELS", "ROLE_OF_MODEL"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.syspath_prepend("")
    same_in_fresh_process(request, out, read_lines(out))
    assert seen["PYTHONPATH"].split(os.pathsep)[0] == os.getcwd()
    assert {name for name in os.environ if name not in seen} <= {"PYTHONPATH", "RANK", "LOCAL_RANK", "MASTER_ADDR"}
    assert not {"RANK", "LOCAL_RANK", "MASTER_ADDR"} & seen.keys()


def test_what_chance_and_rounding_do_is_let_pass():
    right, wrong = [1, 3], [0, 5]
    assert _compared([(right, right)] * 7 + [(right, wrong)], 1, bf16=False)[0]
    assert not _compared([(right, right)] * 6 + [(right, wrong)] * 2, 1, bf16=False)[0]
    assert _compared([(right, right)] * 6 + [(right, wrong)] * 2, 1, bf16=True)[0]
    assert _compared([([12, 3], [9, 5])] * 8, 20, bf16=False)[0]
    assert not _compared([([20, 3], [0, 5])] + [([20, 3], [20, 3])] * 7, 20, bf16=False)[0]
    assert not _compared([([4, 3], [0, 5])] * 8, 4, bf16=False)[0]
