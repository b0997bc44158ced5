"""Image labels, the K fixed pictures into which IDC translates, and the distance of a translation to each of them.

Paper, section "orthogonal image labels": ``P = 2 scale(Q) - 1``, with Q the K columns of QR(G^T) as pictures, G a
(K, D) Gaussian matrix, and ``scale`` to [0, 1] by each picture's own minimum and maximum.

The paper's are random directions (``qr``). The other kinds are for finding out what a label's looks have to do with how
well it works; docs/labels.md says in which sense each is orthogonal.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from idc.errors import IDCError
from idc.method.label_kinds import Shape, blocks, hadamard, hadamard_factors, low_frequency, scaled

LabelKind = Literal["qr", "hadamard", "low-frequency", "blocks"]
LabelFunction = Callable[[int, Shape, int], Tensor]  # num_classes, shape, seed -> (K, C, H, W) in [0, 1]
_GAP = 0.08  # by how much a qr label's inner product with itself exceeds the others', over C*H*W, on 3x32x32


def orthogonal_labels(
    num_classes: int, shape: Shape, *, seed: int = 0, kind: str | LabelFunction = "qr", cell: int = 1
) -> Tensor:
    """The image labels.

    Args:
        num_classes: K >= 2; more than ``kind`` has at this resolution cannot be orthogonal.
        shape: (C, H, W) of a label, which is that of the images.
        seed: the published models use 0. ``low-frequency`` and ``blocks`` have nothing to draw.
        kind: what they look like. With D = C*H*W, at the labels' own resolution:

            - "qr": orthonormal Gaussian directions, drawn on the CPU, each scaled to [0, 1] by its own minimum and
              maximum, as in the paper; K <= D.
            - "hadamard": rows of a Hadamard matrix of order D, 1 for +1 and 0 for -1, chosen by the seed among all but
              the constant one; K < D. It is Sylvester's where D is a power of two, else a Kronecker product with
              Paley's (3x32x32: one of order 12, and eight of order 2); not every D has one.
            - "low-frequency": images of the DCT from the lowest frequency up, without the constant one, each scaled to
              [0, 1] as ``qr`` is; the channels are alike as long as H*W - 1 images suffice; K < D.
            - "blocks": the image plane is cut into K compact regions whose sizes differ by at most one pixel; label k
              is 1 on the k-th and 0 elsewhere; K <= H*W.

            Or a function of your own, (num_classes, shape, seed) -> labels in [0, 1], which need not be orthogonal.
        cell: labels are drawn at (C, H/cell, W/cell), and every pixel becomes a square of cell x cell.

    Returns:
        (K, C, H, W) float32 in [0, 1] on the CPU, always a fresh copy.

    Raises:
        IDCError: if there is no such kind, K is out of range, ``cell`` does not divide H and W, or a function gives
            no labels.
    """
    if not callable(kind) and kind not in get_args(LabelKind):
        raise IDCError(f"labels of kind {kind!r}", f"one of {', '.join(get_args(LabelKind))}", "correct the kind")
    channels, height, width = shape
    size = "x".join(map(str, shape))
    if not isinstance(cell, int) or isinstance(cell, bool) or cell < 1 or height % cell or width % cell:
        sides = str(height) if height == width else f"{height} and {width}"
        raise IDCError(
            f"label cell {cell} for images of {size}", f"a whole number that divides {sides}",
            "use 1 for full resolution, or another image size",
        )  # fmt: skip
    if num_classes < 2:
        raise IDCError(f"{num_classes} classes", "at least 2", "give images of two or more classes")
    drawn = (channels, height // cell, width // cell)
    if not callable(kind):
        _check_room(num_classes, drawn, kind, f"{kind} labels of {size}" + (f" in cells of {cell}" if cell > 1 else ""),
                    "use a smaller cell" if cell > 1 else "use a larger image size")  # fmt: skip
        found = _labels(num_classes, drawn, seed, kind)
    else:
        found = _checked(kind(num_classes, drawn, seed), (num_classes, *drawn))
    return found.repeat_interleave(cell, dim=2).repeat_interleave(cell, dim=3) if cell > 1 else found.clone()


def _checked(labels: object, shape: tuple[int, ...]) -> Tensor:
    """Labels that a function of a user gave, float32 on the CPU. Raises IDCError unless they can be labels."""
    if not isinstance(labels, Tensor) or tuple(labels.shape) != shape:
        given = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise IDCError(f"labels of shape {given}", f"a tensor of shape {shape}", "correct the function of the labels")
    found = labels.detach().to("cpu", torch.float32)
    if not ((found >= 0) & (found <= 1)).all():
        raise IDCError("labels with pixels outside of [0, 1]", "pixels in [0, 1]", "scale them in their function")
    if len(found.flatten(1).unique(dim=0)) < len(found):
        raise IDCError("labels of which two are the same", "a different one for each class", "correct their function")
    return found


def _check_room(num_classes: int, shape: Shape, kind: str, name: str, remedy: str) -> None:
    """Raise IDCError unless ``kind`` has so many labels of ``shape``."""
    size = math.prod(shape)
    if kind == "hadamard" and hadamard_factors(size) is None:
        raise IDCError(
            f"{name}, {size} values", "a number of values of which a Hadamard matrix can be built here",
            "use an image size that is a power of two, another cell, or another kind",
        )  # fmt: skip
    most = {"qr": size, "hadamard": size - 1, "low-frequency": size - 1, "blocks": shape[1] * shape[2]}[kind]
    if num_classes > most:
        raise IDCError(f"{num_classes} classes", f"at most {most} ({name}: more cannot be orthogonal)", remedy)


@lru_cache(maxsize=8)
def _labels(num_classes: int, shape: Shape, seed: int, kind: str) -> Tensor:
    if kind == "hadamard":
        return hadamard(num_classes, shape, seed)
    if kind == "low-frequency":
        return low_frequency(num_classes, shape)
    if kind == "blocks":
        return blocks(num_classes, shape)
    return _qr(num_classes, shape, seed)


def _qr(num_classes: int, shape: Shape, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(num_classes, math.prod(shape), generator=generator)
    # The draw is float32, as published; its QR in float64 has the same signs and, unlike float32, the same first
    # digits on every LAPACK, so that a stored fingerprint can be checked on another machine.
    columns, _ = torch.linalg.qr(gaussian.T.to(torch.float64))
    return scaled(columns.T, shape)


# -- what is known of labels -------------------------------------------------------------------------------------------


def inner_products(labels: Tensor, *, published: bool) -> tuple[Tensor, Tensor]:
    """The inner products of a translation with the labels, ``x0_hat @ weights.T - offsets``: weights and offsets.

    A label of larger norm has larger inner products with everything. Half its squared norm, subtracted, makes the order
    that of the L2 distances; and the scale is such that a perfect translation is as far above the other labels as
    with ``qr``, so that temperatures mean the same for every kind.

    Args:
        labels: (K, C, H, W) in [0, 1].
        published: the labels are the paper's, whose inner products are left plain, as an attack on the published method
            takes them, although their norms differ too.

    Returns:
        (K, C*H*W) and (K,), for x0_hat on [-1, 1].
    """
    signed = 2 * labels.flatten(1) - 1
    if published:
        return signed, signed.new_zeros(len(signed))
    squares, (count, size) = signed.square().sum(dim=1), signed.shape
    # The mean of |P_i - P_j|^2 / 2 over pairs is (K sum |P_i|^2 - |sum P_i|^2) / (K (K - 1)).
    gap = (count * squares.sum() - signed.sum(dim=0).square().sum()) / (count * (count - 1)) / size
    return signed * (_GAP / gap), squares / 2 * (_GAP / gap)


def to_unit(x0_hat: Tensor, *, clip: bool) -> Tensor:
    """``x0_hat`` on [-1, 1] as an image: on [0, 1], and within it if ``clip``."""
    unit = (x0_hat + 1) / 2
    return unit.clamp(0, 1) if clip else unit


def distances_to_labels(x0_hat: Tensor, labels: Tensor, *, clip: bool) -> Tensor:
    """Mean absolute difference between each translation and each label, both on [0, 1].

    Args:
        x0_hat: (B, C, H, W) on [-1, 1], float32 or float64; no autocast rounds it.
        labels: (K, C, H, W) in [0, 1], of the same type.
        clip: count what lies outside of [0, 1] as its nearest end.

    Returns:
        (B, K), differentiable.
    """
    unit = to_unit(x0_hat, clip=clip).flatten(1)
    with torch.autocast(unit.device.type, enabled=False):
        return torch.cdist(unit, labels.flatten(1), p=1.0) / unit.shape[1]


def fingerprint(labels: Tensor) -> str:
    """SHA-256 of the labels at 8 bits a pixel: equal across machines, different for any other seed, K or shape."""
    return hashlib.sha256((labels * 255).round().to(torch.uint8).cpu().numpy().tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class GramReport:
    """How orthogonal the labels are: cosines between different ones, and how far apart they lie.

    Which of the cosines is small depends on the kind. Scaling to [0, 1] adds a constant image, so that ``qr`` and
    ``low-frequency`` labels as used share a large common part; without it the latter are orthogonal exactly, the former
    up to the small product of their directions' means. ``hadamard`` labels are orthogonal exactly on [-1, 1], where the
    bridge uses them, and without their means; ``blocks`` exactly on [0, 1] and there alone: without their means their
    cosine is that of one-hot vectors, -1/(K-1).
    """

    max_cosine: float  # on [0, 1]
    max_cosine_signed: float  # on [-1, 1]
    max_cosine_centred: float  # each without its mean
    min_distance: float  # smallest mean absolute difference between two labels on [0, 1]
    mean_distance: float
    norm_ratio: float  # largest norm over smallest on [-1, 1]


def gram_report(labels: Tensor) -> GramReport:
    """Measure the Gram matrix of ``labels`` (K, C, H, W) in [0, 1]."""
    flat = labels.flatten(1).to(torch.float64)
    signed = 2 * flat - 1
    other = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)

    def max_cosine(rows: Tensor) -> float:
        unit = torch.nn.functional.normalize(rows, dim=1)
        return float((unit @ unit.T)[other].abs().max())

    distance = torch.cdist(flat, flat, p=1)[other] / flat.shape[1]
    norms = signed.norm(dim=1)
    return GramReport(
        max_cosine=max_cosine(flat),
        max_cosine_signed=max_cosine(signed),
        max_cosine_centred=max_cosine(flat - flat.mean(dim=1, keepdim=True)),
        min_distance=float(distance.min()),
        mean_distance=float(distance.mean()),
        norm_ratio=float(norms.max() / norms.min()),
    )
