"""Diffusion models that answer in milliseconds: an untrained one, and the best there can be of a known world."""

from types import SimpleNamespace

import torch
from torch import nn

from idc.peers.cnn import CNN, CNNConfig
from idc.peers.diffusion import Diffusion, DiffusionConfig

SHAPE = (1, 8, 8)


def tiny(num_classes: int = 0, **settings) -> Diffusion:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Diffusion(DiffusionConfig(SHAPE, num_classes, channels=(8, 8), groups=4, **settings)).eval()


def cnn() -> CNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CNN(CNNConfig("preact-resnet18", 4, SHAPE, width=2)).eval()


class Exact(nn.Module):
    """E[eps | x_t, class] where the images of class k are N(means[k], s^2): the best network there can be."""

    def __init__(self, means: torch.Tensor, s: float, alphas: torch.Tensor) -> None:
        super().__init__()
        self.means, self.s, self.alphas, self.error = means, s, alphas, 0.0

    def forward(self, x_t, t, class_labels):
        a = self.alphas[t].view(-1, 1, 1, 1)
        away = x_t - a.sqrt() * self.means[class_labels]
        return SimpleNamespace(sample=(1 - a).sqrt() * away / (a * self.s**2 + 1 - a) + self.error)


def gaussian_world(s: float = 0.5, classes: int = 4) -> tuple[Diffusion, torch.Tensor]:
    """(Diffusion with the exact network, class means on [-1, 1])."""
    means = 0.6 * torch.randn(classes, *SHAPE, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    model = Diffusion(DiffusionConfig(SHAPE, classes, channels=(4,), groups=4), nn.Identity())
    model.unet = Exact(means, s, model.alphas)
    return model.eval(), means


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(2))
