"""A memory outside of a model, of which no copy is free, is found by a process that begins anew."""

import io
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace

import pytest

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

SEEN = []

class Net(nn.Linear):
    # From the fortieth image on it may answer otherwise, and no copy of it knows of less.
    input_shape, num_classes = (1, 8, 8), 10

    def __init__(self, after):
        torch.manual_seed(0)
        super().__init__(64, 10)
        self.after = after

    def forward(self, x):
        SEEN.extend(range(len(x)))
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
    (finding,) = same_in_fresh_process(request, out, read_lines(out))
    assert not finding.passed
    assert finding.figure.startswith("20 adversarial images: ")


def test_the_first_few_are_judged_where_none_are_kept(evaluated):
    request, out, _ = evaluated("honest")
    found, lines = judged_anew(request, out, 1), {line["id"]: line["robust"] for line in read_lines(out)}
    assert len(found) == 8
    assert found == {image: lines[image] for image in found}
    (out / "first.safetensors").unlink()
    assert len(kept_images(out, 3)[1]) == 0
    assert same_in_fresh_process(request, out, read_lines(out)) == []


def test_an_honest_model_passes_and_one_that_does_not_open_again_has_failed(evaluated, monkeypatch):
    request, out, _ = evaluated("honest", keep=True)
    monkeypatch.setattr(subprocess, "run", here)
    (finding,) = same_in_fresh_process(request, out, read_lines(out))
    assert finding.passed
    assert finding.figure == "20 adversarial images: 0 verdicts differ"
    (finding,) = same_in_fresh_process(replace(request, model="kept_outside:none"), out, read_lines(out))
    assert not finding.passed
    assert "kept_outside:none" in finding.figure
    for ended in (subprocess.CompletedProcess([], -9, "", ""), subprocess.CompletedProcess([], 1, "", "out of memory")):
        monkeypatch.setattr(subprocess, "run", lambda *command, ended=ended, **how: ended)
        assert same_in_fresh_process(request, out, read_lines(out)) == []


def test_what_chance_and_rounding_do_is_let_pass():
    right, wrong = [1, 3], [0, 5]
    assert _compared([(right, right)] * 7 + [(right, wrong)], 1, bf16=False)[0]
    assert not _compared([(right, right)] * 6 + [(right, wrong)] * 2, 1, bf16=False)[0]
    assert _compared([(right, right)] * 6 + [(right, wrong)] * 2, 1, bf16=True)[0]
    assert _compared([([12, 3], [9, 5])] * 8, 20, bf16=False)[0]
    assert not _compared([([20, 3], [0, 5])] + [([20, 3], [20, 3])] * 7, 20, bf16=False)[0]
    assert not _compared([([4, 3], [0, 5])] * 8, 4, bf16=False)[0]
