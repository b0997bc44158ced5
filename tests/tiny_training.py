"""A training that takes seconds, and what it leaves."""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file

from idc.commands.train import start_training
from idc.training.trainer import Trainer

SMALL = {
    "epochs": 2.0, "batch_size": 16, "validate_every": 0.5, "checkpoint_every": 0.25, "validation_limit": 20,
    "final_limit": 20, "precision": "fp32", "dropout": 0.1, "accumulation": 2,
}  # fmt: skip
FLAGS = ("--limit", 128, *(part for k, v in SMALL.items() for part in (f"--{k.replace('_', '-')}", v)))
NETWORK = "base_channels: 8\nmultipliers: [1]\ngroups: 4\nhead_channels: 8\npatch: 8\nresidual: true\n"


def train(out: Path, network: str, **more):
    return start_training("digits", out, preset=network, limit=128, changes=SMALL, **more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "last" / "model.safetensors")


def signalled(number: int, within: int) -> None:
    """For ``before``: the process gets this signal within this step."""
    plain = Trainer.step

    def step(self, now):
        if now == within:
            os.kill(os.getpid(), number)
        return plain(self, now)

    Trainer.step = step
