"""Mixing: each image of a batch becomes part of its own and part of another one's, with both their classes.

CutMix (Yun et al., ICCV 2019) pastes a box of another image; mixup (Zhang et al., ICLR 2018) blends two images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mixed:
    """A mixed batch, whose loss is ``share * loss(classes) + (1 - share) * loss(others)`` for each image.

    Attributes:
        images: (B, C, H, W).
        classes: (B,) of the images themselves.
        others: (B,) of the images that are mixed in.
        share: (B,) in [0, 1], how much of each image is its own; 1 where nothing is mixed in.
    """

    images: Tensor
    classes: Tensor
    others: Tensor
    share: Tensor


def mix(
    images: Tensor,
    classes: Tensor,
    kind: Literal["none", "cutmix", "mixup"],
    rate: float,
    random: torch.Generator,
) -> Mixed | None:
    """Mix a batch, each image with the one before it (batches have no order).

    An image's own share is uniform in [0, 1], which is Beta(1, 1), as both papers draw it for CIFAR-10. "cutmix" takes
    the height and width of its box as sqrt(1 - share) of the image's, about a point anywhere in the image; what would
    lie outside is cut off, and the share is then that of the pixels which are left.

    Args:
        images: (B, C, H, W) floating point.
        classes: (B,).
        kind: "none" mixes nothing.
        rate: how likely each image is mixed, in [0, 1].
        random: of the draws, on the images' device.

    Returns:
        None, and no draw, if nothing can be mixed: kind "none" or a rate of 0.
    """
    if kind == "none" or rate == 0:
        return None
    height, width = images.shape[-2:]
    chosen, share, down, right = torch.rand(4, len(images), generator=random, device=images.device)
    share = torch.where(chosen < rate, share, 1.0)
    if kind == "cutmix":
        side = (1 - share).sqrt() / 2
        rows = ((_centres(height, images) - down[:, None]).abs() < side[:, None])[:, None, :, None]
        columns = ((_centres(width, images) - right[:, None]).abs() < side[:, None])[:, None, None, :]
        box = rows & columns
        mixed, share = torch.where(box, images.roll(1, 0), images), 1 - box.flatten(1).float().mean(1)
    else:
        own = share.view(-1, 1, 1, 1)
        mixed = own * images + (1 - own) * images.roll(1, 0)
    return Mixed(mixed, classes, classes.roll(1, 0), share)


def _centres(pixels: int, like: Tensor) -> Tensor:
    """Where the centres of so many pixels in a row lie on [0, 1]."""
    return (torch.arange(pixels, device=like.device) + 0.5) / pixels
