"""The code of the pages about extensions, and of the reference of Python, runs as it stands."""

import json
import math
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from idc import IDC, IDCConfig, data
from idc.attacks.gradient import fgsm
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.method.presets import PRESETS
from idc.noise import Streams
from idc.storage import records
from program import idc
from tiny import SMALL_DIGITS

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Writes and runs the marked blocks of a page in a folder that has a small model of the digits in runs/digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        IDC(IDCConfig(10, (1, 32, 32), SMALL_DIGITS, class_names=tuple("0123456789"))).save_pretrained(
            tmp_path / "runs" / "digits"
        )
    digits = load_digits()
    fewer = Bunch(images=digits.images[:300], target=digits.target[:300])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "digits", SMALL_DIGITS)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: fewer)
    monkeypatch.syspath_prepend(str(tmp_path))

    def page(name):
        for kind, code in blocks(name):
            if kind.endswith(".py"):
                (tmp_path / kind).write_text(code)
                monkeypatch.delitem(sys.modules, kind.removesuffix(".py"), raising=False)
            elif kind == "shell":
                for line in code.splitlines():
                    program, *args = shlex.split(line, comments=True)
                    result = idc(*args)
                    assert (program, result.returncode) == ("idc", 0), result.stderr
            else:
                exec(compile(code, name, "exec"), {"__name__": "__main__"})
        return tmp_path

    yield page
    for kind in ("mine", "npz", "quantised"):
        sys.modules.pop(kind, None)


def test_every_page_about_extensions_has_code_that_is_run():
    marked = {page.name: [kind for kind, _ in blocks(f"extending/{page.name}")] for page in DOCS.glob("extending/*.md")}
    assert [name for name, kinds in marked.items() if len(kinds) < 2] == ["index.md"]


def test_attack(run):
    folder = run("extending/attack.md")
    summary = json.loads((folder / "runs" / "with-mine" / "summary.json").read_text())
    assert list(summary["attacks"]) == ["adaptive", "mine:Attack"]
    own = runpy.run_path(str(folder / "mine.py"))["Attack"]
    model, threat, images = IDC.from_pretrained("runs/digits").one_step, Threat("linf", 0.1), torch.rand(4, 1, 32, 32)
    given = (Target.of(model), images, torch.arange(4), Streams(torch.arange(4), 0))
    assert torch.equal(own(threat=threat)(*given), fgsm(threat)(*given))


def test_protocol(run):
    folder = run("extending/protocol.md")
    summary = json.loads((folder / "runs" / "mine" / "summary.json").read_text())
    assert (summary["protocol"], list(summary["attacks"]), summary["adaptive"]) == ("mine", ["pgd", "apgd"], False)


def test_labels(run):
    run("extending/labels.md")
    labels = IDC.from_pretrained("runs/stripes").labels
    assert labels.shape == (10, 1, 32, 32)
    assert float(labels[2, 0, 7, 5]) == pytest.approx((1 + math.cos(math.pi * 3 * 7.5 / 32)) / 2, abs=1e-6)


def test_objective(run):
    lines = records.read(run("extending/objective.md") / "runs" / "intra" / "metrics.jsonl")
    losses = [line for line in lines if "loss/total" in line]
    assert losses
    assert all(line["loss/total"] == line["loss/intra"] and line["loss/inter"] > 0 for line in losses)


def test_data_source(run, monkeypatch):
    folder = run("extending/data-source.md")
    source = runpy.run_path(str(folder / "npz.py"))["npz_source"](folder / "images.npz")
    monkeypatch.setattr("idc.data.loading.open_source", lambda name: source)
    held = np.load(folder / "images.npz")
    parts = [data.load("images.npz", split=split, image_size=8) for split in ("train", "validation", "test")]
    rows = {int(i): image for part in parts for i, image in zip(part.ids, part.images, strict=True)}
    assert sorted(rows) == list(range(10))
    assert all(np.array_equal(rows[i][0].numpy(), held["images"][i]) for i in rows)


def test_peer(run):
    folder = run("extending/peer.md")
    settings = json.loads((folder / "runs" / "quantised" / "settings.json").read_text())
    assert (settings["classifier"]["kind"], settings["classifier"]["config"]) == ("Quantised", {"levels": 8})
    model, plain = runpy.run_path(str(folder / "quantised.py"))["model"](), IDC.from_pretrained("runs/digits").one_step
    images = torch.rand(3, 1, 32, 32)
    assert torch.equal(model(images), plain((images * 7).round() / 7))
    x = images.clone().requires_grad_()
    (surrogate,) = model.surrogates().values()
    assert torch.autograd.grad(model(x).sum(), x)[0].abs().max() == 0
    assert torch.autograd.grad(surrogate(x).sum(), x)[0].abs().max() > 0


def test_python(run):
    assert (run("reference/python.md") / "runs" / "copy" / "model.safetensors").is_file()
