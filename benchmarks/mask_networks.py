"""Small networks for 8x8 digits, and their training; see masks.py."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.data import load


class Attention(nn.Module):
    """A small vision transformer on 2x2 patches."""

    num_classes, input_shape, stochastic = 10, (1, 8, 8), False

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, activation="gelu")
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.patches(x).flatten(2).mT + self.places).mean(1))

    def surrogates(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {}


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 10))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


@cache
def trained(
    make: Callable[[], nn.Module], steps: int = 300, *, eps: float = 0.0, trades: float = 0.0, seed: int = 0
) -> nn.Module:
    """On the training digits; with ``eps`` adversarially (Madry et al., ICLR 2018), with ``trades`` by the divergence
    of adversarial from clean answers (Zhang et al., ICML 2019)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images, classes = pixels("train", None)
        net = make()
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(steps):
            rows = torch.randint(len(images), (128,))
            x, y = images[rows], classes[rows]
            near = _near(net, x, y, eps, trades) if eps else x
            loss = F.cross_entropy(net(x if trades else near), y)
            if trades:
                loss = loss + trades * _divergence(net(near), net(x))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.requires_grad_(False).eval()


def _divergence(near: Tensor, clean: Tensor) -> Tensor:
    return F.kl_div(near.log_softmax(1), clean.softmax(1), reduction="batchmean")


def _near(net: nn.Module, x: Tensor, y: Tensor, eps: float, trades: float) -> Tensor:
    found = x + torch.empty_like(x).uniform_(-eps, eps)
    for _ in range(5):
        found.requires_grad_(True)
        logits = net(found)
        loss = _divergence(logits, net(x).detach()) if trades else F.cross_entropy(logits, y)
        (gradient,) = torch.autograd.grad(loss, found)
        found = x + (found.detach() + eps / 3 * gradient.sign() - x).clamp(-eps, eps)
        found = found.clamp(0, 1)
    return found.detach()


def pixels(split: str, limit: int | None) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in [0, 1] and classes of a split of the digits."""
    digits = load("digits", split=split, image_size=8, limit=limit)
    return digits.images.float() / 255, digits.labels
