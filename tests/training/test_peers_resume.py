"""Peers, and trainings with all that may be added, resumed: they end, on the CPU, bit for bit like whole ones."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from idc.commands.train import start_training
from idc.commands.train_peers import start_cnn, start_ddpm
from idc.data import ImageSet
from idc.training.selection import Selection
from idc.training.trainer import Trainer
from tiny import tiny_model
from tiny_training import NETWORK

SHORT = {
    "epochs": 2, "validate_every": 1, "checkpoint_every": 1, "precision": "fp32", "batch_size": 16,
    "validation_limit": 20, "final_limit": 20,
}  # fmt: skip
FEW = {"limit": 64, "image_size": 16}
EVERY = {
    "attack_steps": 2, "mix": "cutmix", "label_smoothing": 0.1, "eps_warmup": 1.0, "step_share": 1.0,
    "weight_perturbation": 0.005, "awp_start": 0.4, "rectify": (0.7, 0.95), "ema_start": 2,
}  # fmt: skip
BRIDGE = {"eps": 0.1, "ce_weight": 1.0, "t_weights": (0.0, 0.0, 0.0, 1.0)}


def start_idc(data, out, **given):
    file = out.parent / "network.yaml"
    file.write_text(f"{NETWORK}norm: batch\nmiddle_attention: false\n")
    return start_training(data, out, preset=str(file), visits=(3,), **given)


STARTS = {
    "idc, every ingredient": (start_idc, {}, BRIDGE | EVERY | {"hinge_weight": 1.0}),
    "idc, two halves": (
        start_idc,
        {},
        BRIDGE | {"attack_steps": 1, "strong_branch": True, "method": "trades", "rectify": (0.5, 0.5)},
    ),
    "idc, taught": (start_idc, {}, BRIDGE | {"mix": "cutmix", "rectify": (1.0, 1.0), "teachers": ("TEACHER",)}),
    "cnn": (start_cnn, {"width": 4}, {"attack_steps": 2}),
    "cnn, trades": (start_cnn, {"width": 4}, {"attack_steps": 2, "method": "trades"}),
    "cnn, every ingredient": (start_cnn, {"width": 4}, EVERY),
    "cnn, two halves": (start_cnn, {"width": 4}, {"attack_steps": 1, "strong_branch": True, "rectify": (0.5, 0.5)}),
    "ddpm": (start_ddpm, {}, {"conditional": True}),
}


class Scored:
    """A validation with another score."""

    def __init__(self, found: Any, score: float) -> None:
        self.found, self.score = found, score

    def __getattr__(self, name: str) -> Any:
        return getattr(self.found, name)


@pytest.mark.parametrize("kind", STARTS)
def test_stopped_and_resumed(kind, tmp_path, monkeypatch):
    start, options, changes = STARTS[kind]
    if "teachers" in changes:  # one whose usual answer draws noise
        tiny_model(10, (1, 16, 16), class_names=tuple("0123456789")).save_pretrained(tmp_path / "teacher")
        changes = changes | {"teachers": (str(tmp_path / "teacher"),)}

    def train(name: str, resume: bool = False):
        return start("digits", tmp_path / name, changes=SHORT | changes, resume=resume,
                     say=lambda text: None, **FEW, **options)  # fmt: skip

    whole = train("whole")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_stopped", lambda self, signals, step: step == 5)
        assert train("parts").step == 5
    again = train("parts", resume=True)
    assert (again.step, again.steps) == (whole.step, whole.steps) == (8, 8)
    for name in ("last", "best"):
        expected, found = (load_file(tmp_path / run / name / "model.safetensors") for run in ("whole", "parts"))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[k], found[k]) for k in expected)


@pytest.mark.parametrize("kind", ["cnn", "ddpm"])
def test_the_figures_of_a_peer_are_those_of_its_best_weights(kind, tmp_path, monkeypatch):
    start, options, changes = STARTS[kind]
    score = iter([2.0, 1.0])  # of the two epochs' validations
    found: dict[str, dict[str, torch.Tensor]] = {}

    def judged(selection: Selection, network: torch.nn.Module, data: ImageSet, *, final: bool):
        true = measured(selection, network, data, final=final)
        if final:
            found["weights"] = {k: v.clone() for k, v in network.state_dict().items()}
            return true
        return Scored(true, next(score))

    measured = Selection._measured
    monkeypatch.setattr(Selection, "_measured", judged)
    start("digits", tmp_path / "run", changes=SHORT | changes, say=lambda text: None, **FEW, **options)
    best, last = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("best", "last"))
    name = next(iter(found["weights"]))
    held = next(key for key in best if key.endswith(name))
    assert torch.equal(found["weights"][name], best[held])
    assert not torch.equal(best[held], last[held])
