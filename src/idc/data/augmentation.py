"""Augmentation: random flips, shifted crops and rotations of a whole batch at once, on the device where it lies.

The default augmentation of a training is that of its recipe, in ``idc.training.recipe``.

Images come in as uint8 (B, C, H, W) and leave as float32 (B, C, H, W) in [0, 1]. Flip and crop only move pixels
(one gather, no interpolation); only a rotation interpolates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from idc.errors import IDCError
from idc.storage.fields import check, setting


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The settings of the augmentation; calling it augments one batch. All off: the images divided by 255.

    Attributes:
        flip: mirror each image left to right with probability 1/2.
        crop: shift each image by up to this many pixels in both directions; what enters at the border is the image
            reflected (the edge pixel itself is not repeated). Must be below the height and the width.
        rotation: rotate each image by an angle uniform in [-rotation, rotation] degrees about its centre, bilinear;
            corners that come from outside of the image are black.

    Raises:
        IDCError: a negative crop, or a rotation outside of [0, 180].
    """

    flip: bool = False
    crop: int = setting(0, least=0, remedy="use 4 for 32x32 images, 0 for none")
    rotation: float = setting(0.0, least=0, most=180, remedy="use 15, or 0 for none")

    def __post_init__(self) -> None:
        check(self)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment uint8 images (B, C, H, W) to float32 in [0, 1]; see `augment`."""
        return augment(images, flip=self.flip, crop=self.crop, rotation=self.rotation, generator=generator)


def augment(
    images: Tensor,
    *,
    flip: bool = False,
    crop: int = 0,
    rotation: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Flip, shift and rotate every image of a batch on its own draw.

    Four numbers per image are drawn whenever anything is on, so that turning one part off leaves the others as they
    were. They come from `generator` on its own device (from torch's CPU generator if None) and move to the images.

    Args:
        images: uint8 (B, C, H, W).
        flip: see `Augmentation`.
        crop: see `Augmentation`.
        rotation: see `Augmentation`.
        generator: of the draws.

    Returns: float32 (B, C, H, W) in [0, 1] on the images' device.

    Raises:
        TypeError: images are not a uint8 batch.
        IDCError: `crop` is not below the images' height and width.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise TypeError(f"augment takes uint8 images (B, C, H, W), not {images.dtype} {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if crop >= min(height, width):
        raise IDCError(f"crop={crop}", f"less than the image's side of {min(height, width)} pixels", "lower the crop")
    if not (flip or crop or rotation):
        return images.float() / 255
    device = generator.device if generator is not None else torch.device("cpu")
    draws = torch.rand(4, len(images), generator=generator, device=device).to(images.device)
    if flip or crop:
        mirrored = draws[0] < 0.5 if flip else torch.zeros_like(draws[0], dtype=torch.bool)
        shifts = (draws[1:3] * (2 * crop + 1)).floor().long() - crop
        images = _move(images, mirrored, shifts[0], shifts[1])
    scaled = images.float() / 255
    if rotation:
        scaled = rotated(scaled, (2 * draws[3] - 1) * math.radians(rotation))
    return scaled


def _move(images: Tensor, mirrored: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Pixel (i, j) of image b becomes pixel (i + down[b], j + right[b]) of it, mirrored afterwards where asked."""
    batch, channels, height, width = images.shape
    rows = _reflect(torch.arange(height, device=images.device) + down[:, None], height)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    columns = _reflect(columns + right[:, None], width)
    # One gather over flattened pixels: three to seven times as fast as indexing rows and columns apart.
    flat = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, height * width)
    moved = images.reshape(batch, channels, height * width).gather(2, flat.expand(batch, channels, height * width))
    return moved.view(batch, channels, height, width)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold indices in (-size, 2 * size - 1) back into [0, size) as a mirror at both edge pixels does."""
    last = size - 1
    return last - (last - index.abs()).abs()


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """Rotate float images (B, C, H, W) counter-clockwise by angles (B,) in radians; bilinear, black outside."""
    height, width = images.shape[-2:]
    cos, sin = angles.cos(), angles.sin()
    zero = torch.zeros_like(cos)
    # The grid's coordinates run over [-1, 1] along both sides, so a rotation of an oblong image needs the aspect.
    rows = [torch.stack([cos, -sin * (height / width), zero], 1), torch.stack([sin * (width / height), cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
