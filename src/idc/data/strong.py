"""Strong augmentation of a whole batch at once: one change of colours or geometry for each image, of random strength.

TrivialAugment (Mueller and Hutter, ICCV 2021): for each image one operation, uniformly, at a strength that is uniform
too, here of its "wide" space those that need no histogram. Then a square is cut out of each (DeVries and Taylor, 2017),
as is usual on CIFAR-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from idc.data.augmentation import rotated

Operation = Callable[[Tensor, Tensor], Tensor]  # images (B, C, H, W), strengths (B,) in [-1, 1] -> images


def strongly_augmented(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image after one of ``OPERATIONS`` and a ``cutout``.

    Args:
        images: (B, C, H, W) floating point in [0, 1]; of more than three channels the fourth has no colour.
        random: of the draws, on the images' device.

    Returns:
        (B, C, H, W) in [0, 1].
    """
    count = len(images)
    chosen = torch.randint(len(OPERATIONS), (count,), generator=random, device=images.device)
    strength = 2 * torch.rand(count, generator=random, device=images.device) - 1
    changed = images.clone()
    for index, operation in enumerate(OPERATIONS.values()):
        rows = (chosen == index).nonzero().flatten()
        if len(rows):
            changed[rows] = operation(images[rows], strength[rows])
    return cutout(changed.clamp(0, 1), torch.rand(3, count, generator=random, device=images.device))


def _each(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def _coloured(operation: Operation) -> Operation:
    """The operation on the colours alone, whatever other channel there is."""
    return lambda images, strength: torch.cat([operation(images[:, :3], strength), images[:, 3:]], 1)


def _identity(images: Tensor, strength: Tensor) -> Tensor:
    return images


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Darker or brighter by up to 0.99 of itself."""
    return images * _each(1 + 0.99 * strength)


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Towards its mean, or away from it."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * _each(1 + 0.99 * strength)


def _saturation(images: Tensor, strength: Tensor) -> Tensor:
    """Towards grey, or away from it; nothing of an image of one channel."""
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * _each(1 + 0.99 * strength)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    """2 to 8 bits a pixel."""
    levels = _each(2 ** (2 + (6 * strength.abs()).round()))
    return (images * levels).floor().clamp(max=levels - 1) / (levels - 1)


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Inverted where brighter than a threshold."""
    return torch.where(images > _each(strength.abs()), 1 - images, images)


def cutout(images: Tensor, draws: Tensor) -> Tensor:
    """A grey square in each image, of up to half of its sides, about any point; ``draws`` (3, B) in [0, 1): the side,
    and where its centre is, down and across."""
    (side, down, right), (height, width) = draws, images.shape[-2:]
    rows = ((torch.arange(height, device=images.device) + 0.5) / height - down[:, None]).abs() < side[:, None] / 4
    columns = ((torch.arange(width, device=images.device) + 0.5) / width - right[:, None]).abs() < side[:, None] / 4
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], 0.5, images)


def _moved(
    images: Tensor, *, across: Tensor | float = 0.0, down: Tensor | float = 0.0, shear: Tensor | float = 0.0,
    lean: Tensor | float = 0.0,
) -> Tensor:  # fmt: skip
    """Sheared and shifted, each value (B,) in units of half of the image; bilinear, black outside."""
    one = images.new_ones(len(images))
    rows = [torch.stack([one, shear * one, across * one], 1), torch.stack([lean * one, one, down * one], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _rotate(images: Tensor, strength: Tensor) -> Tensor:
    """By up to 45 degrees (135 in the published space, which turns digits and signs into others)."""
    return rotated(images, strength * math.pi / 4)


OPERATIONS: dict[str, Operation] = {
    "identity": _identity,
    "brightness": _coloured(_brightness),
    "contrast": _coloured(_contrast),
    "saturation": _coloured(_saturation),
    "posterize": _coloured(_posterize),
    "solarize": _coloured(_solarize),
    "shear across": lambda images, strength: _moved(images, shear=0.99 * strength),
    "shear down": lambda images, strength: _moved(images, lean=0.99 * strength),
    "shift across": lambda images, strength: _moved(images, across=strength),  # by up to half of the width
    "shift down": lambda images, strength: _moved(images, down=strength),
    "rotate": _rotate,
}
