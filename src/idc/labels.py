"""Orthogonal image labels: the K fixed images into which IDC translates (paper, section "orthogonal image labels")."""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from idc.errors import IDCError


@lru_cache(maxsize=8)
def _labels(num_classes: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    size = math.prod(shape)
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(num_classes, size, generator=generator)
    # The draw is float32, as published; its QR in float64 has the same signs and, unlike float32, the same first
    # digits on every LAPACK, so that a stored fingerprint can be checked on another machine.
    columns, _ = torch.linalg.qr(gaussian.T.to(torch.float64))
    rows = columns.T
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    return ((rows - low) / (high - low)).to(torch.float32).view(num_classes, *shape)


def orthogonal_labels(num_classes: int, shape: tuple[int, int, int], *, seed: int = 0) -> Tensor:
    """The image labels: orthonormal Gaussian directions, each scaled to [0, 1] by its own minimum and maximum.

    Args:
        num_classes: K >= 2, at most C*H*W (more directions cannot be orthogonal).
        shape: (C, H, W) of a label, which is that of the images.
        seed: of the Gaussian draw on the CPU; the published models use 0.

    Returns:
        (K, C, H, W) float32 in [0, 1] on the CPU, always a fresh copy.

    Raises:
        IDCError: if K < 2 or K > C*H*W.
    """
    size = math.prod(shape)
    if num_classes < 2:
        raise IDCError(f"{num_classes} classes", "at least 2", "give images of two or more classes")
    if num_classes > size:
        raise IDCError(
            f"{num_classes} classes",
            f"at most {size} (C*H*W of {'x'.join(map(str, shape))}: more labels cannot be orthogonal)",
            "use a larger image size",
        )
    return _labels(num_classes, tuple(shape), seed).clone()


def fingerprint(labels: Tensor) -> str:
    """SHA-256 of the labels at 8 bits a pixel: equal across machines, different for any other seed, K or shape."""
    return hashlib.sha256((labels * 255).round().to(torch.uint8).numpy().tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class GramReport:
    """How orthogonal the labels are: cosines between different ones, as drawn and with each one's mean removed.

    Scaling to [0, 1] adds a constant image, so the labels as used share a large common part; without their means they
    are orthogonal up to the small product of those means.
    """

    max_cosine: float
    max_cosine_centred: float
    min_distance: float  # smallest mean absolute difference between two labels on [0, 1]
    mean_distance: float


def gram_report(labels: Tensor) -> GramReport:
    """Measure the Gram matrix of ``labels`` (K, C, H, W) in [0, 1]."""
    flat = labels.flatten(1).to(torch.float64)
    other = ~torch.eye(len(flat), dtype=torch.bool)

    def max_cosine(rows: Tensor) -> float:
        unit = torch.nn.functional.normalize(rows, dim=1)
        return float((unit @ unit.T)[other].abs().max())

    distance = torch.cdist(flat, flat, p=1)[other] / flat.shape[1]
    return GramReport(
        max_cosine=max_cosine(flat),
        max_cosine_centred=max_cosine(flat - flat.mean(dim=1, keepdim=True)),
        min_distance=float(distance.min()),
        mean_distance=float(distance.mean()),
    )
