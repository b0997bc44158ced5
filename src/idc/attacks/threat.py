"""What an attacker may do to an image: a norm, a radius, the range of a pixel."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from idc.errors import IDCError
from idc.noise import Streams
from idc.types import Bounds

Norm = Literal["linf", "l2"]


def _each(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to go with images."""
    return values.view(-1, *[1] * (like.ndim - 1))


def l2(delta: Tensor) -> Tensor:
    """(B, ...) -> (B,) Euclidean length."""
    return torch.linalg.vector_norm(delta.flatten(1), dim=1)


@dataclass(frozen=True, slots=True)
class Threat:
    """The set of images that an attacker may present in place of a given one.

    Args:
        norm: "linf" or "l2".
        eps: radius of the ball: units of pixels on [0, 1] (linf), Euclidean length over all pixels (l2).
        bounds: of every pixel.

    Raises:
        IDCError: for another norm or a radius that is not a number of 0 or more.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise IDCError(f"norm {self.norm!r}", "linf or l2", "correct --norm")
        if not 0 <= self.eps < float("inf"):
            raise IDCError(f"eps = {self.eps}", "0 or more, on [0, 1]", "write 8/255 or 0.0314")
        if self.norm == "linf" and self.eps > 1:
            raise IDCError(
                f"eps = {self.eps:g}", "at most 1 (pixels lie in [0, 1])", "divide by 255: write 8/255, not 8"
            )

    def project(self, x: Tensor, images: Tensor, radius: Tensor | None = None) -> Tensor:
        """The point of the set nearest to ``x``, up to the order of the two clamps; both (B, C, H, W). ``radius`` (B,)
        gives each image a ball of its own in place of ``eps``."""
        if self.norm == "linf":
            eps = self.eps if radius is None else _each(radius, x)
            x = torch.clamp(x, images - eps, images + eps)
        else:
            delta = x - images
            size = self.eps if radius is None else radius
            x = images + delta * _each((size / l2(delta).clamp(min=1e-12)).clamp(max=1), delta)
        return x.clamp(self.bounds.lower, self.bounds.upper)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of unit norm along which a linear loss rises fastest; 0 where the gradient is 0 or not
        finite."""
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        if self.norm == "linf":
            return gradient.sign()
        # First to unit maximum: the square of a small float32 gradient would vanish.
        gradient = gradient / _each(gradient.flatten(1).abs().amax(1).clamp(min=1e-30), gradient)
        return gradient / _each(l2(gradient).clamp(min=1e-12), gradient)

    def random(self, images: Tensor, streams: Streams) -> Tensor:
        """A random point of the set: uniform in the cube (linf); of uniform direction and length (l2)."""
        shape = tuple(images.shape[1:])
        if self.norm == "linf":
            delta = self.eps * (2 * streams.uniform(shape) - 1)
        else:
            direction = streams.normal(shape)
            delta = direction * _each(self.eps * streams.of("length").uniform((1,))[:, 0] / l2(direction), direction)
        return self.project(images + delta.to(images), images)

    def size(self, x: Tensor, images: Tensor) -> Tensor:
        """(B,) the norm of the perturbation."""
        delta = x - images
        return delta.flatten(1).abs().amax(1) if self.norm == "linf" else l2(delta)
