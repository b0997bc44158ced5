"""A peer's interrupted and resumed training ends, on the CPU, bit for bit like one that was not."""

import pytest
import torch
from safetensors.torch import load_file

from idc.training.start_peers import start_cnn, start_ddpm
from idc.training.trainer import Trainer

SHORT = {"epochs": 2, "validate_every": 1, "checkpoint_every": 1, "precision": "fp32", "batch_size": 32}
STARTS = {
    "cnn": (start_cnn, {"width": 4}, {"attack_steps": 2}),
    "cnn, trades": (start_cnn, {"width": 4}, {"attack_steps": 2, "method": "trades"}),
    "ddpm": (start_ddpm, {}, {"conditional": True}),
}


@pytest.mark.parametrize("kind", STARTS)
def test_stopped_and_resumed(kind, tmp_path, monkeypatch):
    start, options, changes = STARTS[kind]

    def train(name: str, resume: bool = False):
        return start("digits", tmp_path / name, limit=128, changes=SHORT | changes, resume=resume,
                     say=lambda text: None, **options)  # fmt: skip

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
