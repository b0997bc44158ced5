"""``idc train --labels`` and ``--visits``: what is asked for is trained on, recorded, kept, and reproduced."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from safetensors.torch import load_file

from idc import IDC
from idc.method.labels import LabelKind, orthogonal_labels
from tiny_training import NETWORK

KINDS = get_args(LabelKind)
RECIPE = (
    "--limit", 64, "--epochs", 1, "--batch-size", 16, "--validation-limit", 20, "--final-limit", 20,
    "--precision", "fp32",
)  # fmt: skip
IMAGES = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    file = tmp_path_factory.mktemp("network") / "small.yaml"
    file.write_text(NETWORK)
    return file


def recorded(run: Path) -> dict[str, object]:
    return yaml.safe_load((run / "recipe.yaml").read_text())


@pytest.mark.parametrize(("kind", "cell"), [("qr", 1), ("qr", 2), *((kind, 4) for kind in KINDS[1:])])
def test_train_save_and_reload(kind, cell, network, tmp_path, idc):
    run = tmp_path / "run"
    flags = () if (kind, cell) == ("qr", 1) else ("--labels", kind, "--label-cell", cell)
    code, _, said = idc("train", "--data", "digits", "--preset", network, *RECIPE, *flags, "--out", run)
    assert code == 0, said
    model = IDC.from_pretrained(run)
    assert torch.equal(model.labels, orthogonal_labels(10, (1, 32, 32), kind=kind, cell=cell))
    model.save_pretrained(tmp_path / "copy")
    again = IDC.from_pretrained(tmp_path / "copy")
    assert again.config == model.config
    assert torch.equal(again.predict(IMAGES).distances, model.predict(IMAGES).distances)
    assert f"- Image labels: {kind}, seed 0" in (run / "best" / "README.md").read_text()
    # A run of the paper's labels has the record that it had before there were others.
    found = {k: v for k, v in recorded(run).items() if k in ("labels", "label_cell")}
    assert found == ({"labels": kind} if kind != "qr" else {}) | ({"label_cell": cell} if cell != 1 else {})


def test_a_run_keeps_its_labels(network, tmp_path, idc):
    run, asked = tmp_path / "run", ("--labels", "blocks", "--label-cell", 2)
    args = ("train", "--data", "digits", "--preset", network, *RECIPE)
    assert idc(*args, *asked, "--out", run)[0] == 0
    assert idc(*args, *asked, "--out", run, "--resume")[0] == 0
    for other in ((), ("--labels", "hadamard", "--label-cell", 2), ("--labels", "blocks")):
        code, _, said = idc(*args, *other, "--out", run, "--resume")
        assert (code, "as the run that it holds" in said) == (2, True), said
    # Its recipe alone makes the same run again; a flag beside it wins.
    own = ("train", "--recipe", run / "recipe.yaml", "--limit", 64)
    assert idc(*own, "--out", tmp_path / "again")[0] == 0
    assert recorded(tmp_path / "again") == recorded(run)
    first, second = (load_file(r / "last" / "model.safetensors") for r in (run, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert idc(*own, "--labels", "qr", "--label-cell", 1, "--out", tmp_path / "qr")[0] == 0
    assert not {"labels", "label_cell"} & recorded(tmp_path / "qr").keys()
    code, text, _ = idc("profile", run, "--json")
    assert (code, json.loads(text)["label_kind"], json.loads(text)["label_cell"]) == (0, "blocks", 2)


def test_a_run_keeps_its_visits(network, tmp_path, idc):
    """A model that answers in one step by its training is asked so wherever nothing else is said."""
    run = tmp_path / "run"
    args = ("train", "--data", "digits", "--preset", network, *RECIPE)
    assert idc(*args, "--visits", "3", "--out", run)[0] == 0
    model = IDC.from_pretrained(run)
    assert (model.config.visits, model.stochastic) == ((3,), False)
    assert idc("train", "--recipe", run / "recipe.yaml", "--limit", 64, "--out", tmp_path / "again")[0] == 0
    assert IDC.from_pretrained(tmp_path / "again").config.visits == (3,)
    code, _, said = idc(*args, "--visits", "3,0", "--out", run, "--resume")
    assert (code, "as the run that it holds" in said) == (2, True), said


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--labels", "onehot"), "hadamard, low-frequency, blocks"),
        (("--label-cell", 3), "label cell 3"),
        (("--label-cell", 16, "--labels", "blocks"), "10 classes: expected at most 4"),
        (("--image-size", 40, "--labels", "hadamard", "--label-cell", 4), "100 values"),
        (("--recipe", "RECIPE"), "label_cell = 'two'"),
        (("--visits", "2,0"), "visits = 2,0"),
        (("--visits", "last"), "--visits = 'last'"),
    ],
)
def test_labels_that_cannot_be_leave_no_folder(flags, word, network, tmp_path, idc):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("recipe: digits\nlabel_cell: two\n")
    flags = [recipe if flag == "RECIPE" else flag for flag in flags]
    code, _, said = idc("train", "--data", "digits", "--preset", network, *flags, "--out", tmp_path / "run")
    assert code == 2
    assert word in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()
