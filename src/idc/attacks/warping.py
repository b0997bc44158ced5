"""Images turned, shifted and magnified; and the worst of a grid of rotations and shifts."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.noise import Streams
from idc.types import answered

_SIDE = 32  # of the images that the shifts are for


def sampled(
    images: Tensor, degrees: Tensor, right: Tensor, down: Tensor, *, zoom: float = 1.0,
    outside: Literal["zeros", "border"] = "zeros",
) -> Tensor:  # fmt: skip
    """Images (B, C, H, W), H = W, turned about their middles, then shifted, by bilinear interpolation.

    Args:
        degrees: (B,), anticlockwise as the image is seen. right, down: (B,) pixels.
        zoom: how much larger they are shown.
        outside: black, or the pixel at the edge.
    """
    angle, half = degrees * math.pi / 180, images.shape[-1] / 2
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    x, y = -right / half, -down / half
    turn = torch.stack([cos, -sin, cos * x - sin * y, sin, cos, sin * x + cos * y], 1).view(-1, 2, 3).to(images)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=outside, align_corners=False).clamp(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstShift:
    """Of a grid of rotations and shifts the one with the largest margin of a wrong class (Engstrom et al., ICML 2019):
    each image is tried with them all, but leaves once a deterministic answer is wrong.

    Args:
        threat: the whole range of pixels: no ball bounds it.
        degrees: of the largest rotation, both ways.
        pixels: of the largest shift of an image of 32 pixels a side, in all directions; it grows with the side.
        angles, shifts: how many of each, along each axis, at equal distances.
        draws: of the noise by which a stochastic answer is asked about each.
    """

    threat: Threat
    degrees: float = 30.0
    pixels: float = 3.0
    angles: int = 31
    shifts: int = 5
    draws: int = 4

    @property
    def grid(self) -> list[tuple[float, float, float]]:
        """Degrees, pixels to the right and down, of an image of 32 pixels a side."""
        turns = torch.linspace(-self.degrees, self.degrees, self.angles).tolist()
        moves = torch.linspace(-self.pixels, self.pixels, self.shifts).tolist()
        return [(turn, right, down) for turn in turns for right in moves for down in moves]

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        worst, rows = images.clone(), torch.arange(len(images), device=images.device)
        highest = torch.full((len(images),), -math.inf, device=images.device)
        draws, scale = self.draws if target.stochastic else 1, images.shape[-1] / _SIDE
        for at, (turn, right, down) in enumerate(self.grid):
            if not len(rows):
                break
            each = torch.ones(len(rows), device=images.device)
            x = sampled(images[rows], turn * each, scale * right * each, scale * down * each)
            logits = target.logits(ANSWER, x, streams.of("grid", at).take(rows), draws=draws).mean(0)
            margin = torch.nan_to_num(Margin()(logits, classes[rows]), nan=0.0)
            worse = margin > highest[rows]
            worst[rows[worse]], highest[rows[worse]] = x[worse], margin[worse].to(highest)
            if not target.stochastic:
                rows = rows[answered(logits) == classes[rows]]
        return worst
