"""Deterministic models for benchmarks, as factories: ``idc evaluate benchmarks.models:digits_cnn ...``."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from idc import data
from idc.attacks.gradient import pgd
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.noise import Streams
from idc.storage.files import make_folder, whole_file

CACHE = Path("runs/parity")


def _small_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def digits_cnn(eps: float = 0.1, epochs: int = 40) -> nn.Module:
    """A small CNN trained on the digits by PGD-AT (Madry et al., 2018); trained once, then read from runs/parity."""
    file = CACHE / "digits-cnn.safetensors"
    torch.manual_seed(0)
    network = _small_cnn()
    if file.exists():
        network.load_state_dict(load_file(file))
        return network.eval()
    train = data.load("digits", split="train")
    images, classes = train.images.float().div(255), train.labels
    attack = pgd(Threat("linf", eps), steps=7)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            streams = Streams(train.ids[rows], epoch)
            x = attack(Target(network), images[rows], classes[rows], streams)
            loss = nn.functional.cross_entropy(network(x), classes[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    make_folder(CACHE)
    with whole_file(file) as part:
        save_file(network.state_dict(), part)
    return network.eval()
