"""The peers' commands as a user types them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idc.commands.opening import open_model
from idc.commands.train_peers import start_cnn, start_ddpm
from idc.errors import IDCError
from idc.storage.model_folder import CONFIG
from processes import run
from program import idc, refused


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    common = ("--data", "digits", "--limit", "100", "--epochs", "1", "--validate-every", "1")
    cnn = idc("train-peer", "cnn", *common, "--width", "2", "--method", "standard", "--out", folder / "cnn")
    assert cnn.returncode == 0, cnn.stderr
    assert "clean" in cnn.stdout
    ddpm = idc("train-peer", "ddpm", *common, "--conditional", "--out", folder / "ddpm")
    assert ddpm.returncode == 0, ddpm.stderr
    assert "noise error" in ddpm.stdout
    return folder


@pytest.mark.parametrize(
    ("name", "evaluations"),
    [
        ("{}/cnn", 1),
        ("diffpure:ddpm={}/ddpm,classifier={}/cnn,depth=0.02,steps=2", 3),
        ("zdc:ddpm={}/ddpm,timesteps=1", 10),
    ],
)
def test_evaluate_by_name(runs, tmp_path, name, evaluations):
    model = name.replace("{}", str(runs))
    result = idc("evaluate", model, "--data", "digits", "--protocol", "pgd", "--eps", "0.1", "--steps", "1", "--limit",
                 "3", "--draws", "2", "--out", tmp_path / "r")  # fmt: skip
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["answer"]["network_evaluations"] == evaluations
    assert summary["settings"]["classifier"]["name"] == model


def test_mistakes_are_one_line(runs, tmp_path):
    new = ("--out", str(tmp_path / "n"))
    for args, word in (
        (("train-peer", "cnn", "--arch", "vgg", *new), "vgg"),
        (("train-peer", "cnn", "--eps", "8/zero", *new), "8/zero"),
        (("evaluate", f"zdc:ddpm={runs}/cnn", "--data", "digits", *new), "diffusion"),
        (("compare", str(tmp_path / "none.yaml"), *new), "none.yaml"),
    ):
        refused(idc(*args), word)
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("zdc:ddpm=./nowhere", "nowhere"), ("diffpure:ddpm={0}/ddpm,classifier={0}/ddpm", "holds a diffusion model"),
        ("diffpure:ddpm={0}/ddpm,classifier={0}/cnn,steps=7", "steps"), ("{0}/ddpm", "name it as zdc"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_opened(runs, name, word):
    with pytest.raises(IDCError, match=word):
        open_model(name.format(runs))


@pytest.mark.parametrize(
    ("start", "settings", "word"),
    [
        (start_cnn, {"changes": {"method": "magic"}}, "magic"), (start_cnn, {"recipe": "huge"}, "huge"),
        (start_ddpm, {"network": "huge"}, "huge"), (start_ddpm, {"changes": {"drop": "2"}}, "drop"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(start, settings, word, tmp_path):
    with pytest.raises(IDCError, match=word):
        start("digits", tmp_path / "n", **settings)
    assert not (tmp_path / "n").exists()


def test_two_processes_resumed_are_two_processes_whole(tmp_path):
    """Each process has running statistics of its own after a step; a resumed run must not differ by that."""
    flags = ("--data", "digits", "--image-size", 16, "--limit", 64, "--width", 2, "--epochs", 2, "--batch-size", 16,
             "--checkpoint-every", 1, "--attack-steps", 1, "--precision", "fp32")  # fmt: skip

    def train(out: Path, *more: str, processes: int = 2) -> dict[str, torch.Tensor]:
        result = run("train-peer", "cnn", *flags, "--out", out, *more, processes=processes)
        assert result.returncode == 0, result.stderr
        return load_file(out / "last" / "model.safetensors")

    whole = train(tmp_path / "whole")
    for copy in ("parts", "other"):
        shutil.copytree(tmp_path / "whole", tmp_path / copy)
        first, last = sorted((tmp_path / copy / "checkpoints").iterdir())
        assert (first.name, last.name) == ("step-00000004", "step-00000008")
        shutil.rmtree(last)
        shutil.rmtree(tmp_path / copy / "last")
    parts = train(tmp_path / "parts", "--resume")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    # Elsewhere, with another number of processes, it goes on too, and says what it took of each.
    train(tmp_path / "other", "--resume", processes=1)
    summary = json.loads((tmp_path / "other" / "summary.json").read_text())
    assert list(summary["seconds_on"]) == ["2 x CPU", "1 x CPU"]
    assert sum(summary["seconds_on"].values()) == pytest.approx(summary["seconds"], abs=0.2)
    card = json.loads((tmp_path / "other" / "last" / CONFIG).read_text())["card"]
    assert re.fullmatch(r"[\d,]+ s on 2 x CPU, [\d,]+ s on 1 x CPU", card["Training"])
