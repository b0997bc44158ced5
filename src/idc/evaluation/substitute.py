"""A small network trained to answer as another model does: the attacker who has only the answers."""

import torch
from torch import Tensor, nn


def train_substitute(images: Tensor, answers: Tensor, num_classes: int, *, steps: int = 150) -> nn.Module:
    """A small convolutional network fitted to ``answers`` (Papernot et al., AsiaCCS 2017).

    Args:
        images: (B, C, H, W) in [0, 1].
        answers: (B,) the model's.
        num_classes: K.
        steps: of Adam, on all images at once.

    Returns:
        A module in evaluation mode; the global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(images.shape[1], 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(16),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(64 * 16, num_classes),
        ).to(images.device)  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    with torch.enable_grad():
        for _ in range(steps):
            loss = nn.functional.cross_entropy(network(images), answers)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.requires_grad_(False).eval()
