"""A training of seconds on digits, for the tests of what a training leaves."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from idc.commands.train import start_training
from idc.training.trainer import TrainResult

SMALL = {
    "epochs": 2.0, "batch_size": 16, "validate_every": 0.5, "checkpoint_every": 0.25, "validation_limit": 20,
    "precision": "fp32", "dropout": 0.1, "accumulation": 2,
}  # fmt: skip
NETWORK = "base_channels: 8\nmultipliers: [1, 2]\ngroups: 4\nhead_channels: 8\npatch: 4\nresidual: true\n"

Changes = dict[str, Any]


def train(out: Path, network: str, changes: Changes | None = None, *, limit: int = 128, **more: Any) -> TrainResult:
    """16 steps of 16 images, 8 an epoch, unless ``changes`` say otherwise."""
    return start_training("digits", out, preset=network, limit=limit, changes=SMALL | (changes or {}), **more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "last" / "model.safetensors")
