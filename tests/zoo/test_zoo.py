"""The packaged models: what is shipped, by which names it is found, and what bf16 does to it."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from idc import IDC, data, zoo
from idc.commands.opening import open_model
from idc.evaluation.adapter import as_classifier
from idc.storage.locate import HOME, packaged_names
from idc.storage.model_folder import CARD, CONFIG, WEIGHTS

ROOT = Path(__file__).parents[2]
NAMES = packaged_names()


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    """An empty working folder, and a hub that nobody may ask for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("idc.storage.hub.reachable", lambda: pytest.fail("asked the network"))


def statistic(name: str) -> bool:
    """Of BatchNorm: kept as it is."""
    return "running_" in name or "num_batches_tracked" in name


def test_the_nano_model_is_shipped():
    assert "idc-nano-cifar10" in NAMES
    assert set(NAMES) <= {
        "idc-nano-cifar10", "idc-nano-cifar10-robust", "idc-nano-cifar10-robust-v2", "idc-nano-cifar10-distilled",
        "idc-digits-robust",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_bf16_and_labelled(name):
    folder = HOME / name
    assert {p.name for p in folder.iterdir()} == {CONFIG, WEIGHTS, CARD}
    assert (folder / WEIGHTS).stat().st_size < 3_000_000
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        stored = {file.get_slice(key).get_dtype() for key in file.keys() if not statistic(key)}  # noqa: SIM118
    assert stored == {"BF16"}
    card, text = json.loads((folder / CONFIG).read_text())["card"], (folder / CARD).read_text()
    if "cifar" in name:
        assert "JPEG-75" in card["Data"]
        assert "- Data: CIFAR-10 (JPEG-75)" in text
    assert f'IDC.from_pretrained("{name}")' in text
    assert {"About", "Training", "recipe", "figures", "measured", "limits"} <= set(card)
    assert not re.search(r"(?<![\w.:/])/[\w.-]+/", text + json.dumps(card))  # no path of the machine it was trained on


@pytest.mark.parametrize("name", NAMES)
def test_loads_by_name_in_float32(name):
    model = IDC.from_pretrained(name)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    assert type(open_model(name)) is IDC  # what evaluate, sweep, certify and compare open
    logits = as_classifier(model, input_shape=model.input_shape, name=name)(torch.rand(2, *model.input_shape))
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_package_data(name):
    """By the patterns of pyproject.toml, which are relative to the package."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["idc"]
    package = ROOT / "src" / "idc"
    shipped = {file for pattern in patterns for file in package.glob(pattern)}
    assert set((package / "zoo" / name).iterdir()) <= shipped


def test_listing_agrees_with_the_models():
    for listed in zoo.models():
        model = IDC.from_pretrained(listed.name)
        assert listed.parameters == sum(p.numel() for p in model.parameters())
        assert (listed.data, listed.about) == (model.card["Data"], model.card["About"])
        assert list(listed.measured) == model.card["measured"]
    assert [m.name for m in zoo.models()] == list(NAMES)


def test_nano_is_the_network_that_it_was():
    (listed,) = [m for m in zoo.models() if m.name == "idc-nano-cifar10"]
    assert listed.parameters == 948_204


def test_bf16_keeps_the_answers_on_digits(tmp_path):
    """Measured: all of them."""
    full = IDC.from_pretrained(ROOT / "models" / "digits")
    full.save_pretrained(tmp_path / "m", dtype="bf16")
    rounded = IDC.from_pretrained(tmp_path / "m")
    images = data.load("digits", split="test").images.float() / 255
    with torch.no_grad():
        answers = [model.one_step(images).argmax(1) for model in (full, rounded)]
    assert (answers[0] == answers[1]).float().mean() > 0.99
    assert any(not torch.equal(a, b) for a, b in zip(full.parameters(), rounded.parameters(), strict=True))
