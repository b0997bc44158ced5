"""Classifiers with a known answer, honest and not, shared by the tests of attacks and evaluation."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from idc.types import ClassifierDefaults, Logits


class Linear(nn.Module, ClassifierDefaults):
    """Logits are inner products with fixed rows: the strongest attack is known in closed form."""

    stochastic = False

    def __init__(self, num_classes: int = 4, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0) -> None:
        super().__init__()
        self.num_classes, self.input_shape = num_classes, shape
        size = shape[0] * shape[1] * shape[2]
        random = torch.Generator().manual_seed(seed)
        self.register_buffer("weights", torch.randn(num_classes, size, generator=random))
        self.eval()

    def surrogates(self) -> Mapping[str, Logits]:
        return {}

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weights.T


class Noisy(Linear):
    """The same with Gaussian noise added to its input."""

    stochastic = True

    def __init__(self, sigma: float = 0.1, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + self.sigma * torch.randn_like(images))


def easy_images(model: Linear, count: int, *, seed: int = 1, spread: float = 0.2) -> tuple[Tensor, Tensor]:
    """Images in [0.5 - spread, 0.5 + spread] and the model's own classes."""
    random = torch.Generator().manual_seed(seed)
    images = 0.5 + spread * (2 * torch.rand(count, *model.input_shape, generator=random) - 1)
    return images, Linear.forward(model, images).argmax(1)
