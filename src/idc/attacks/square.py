"""Square: random search over squares of pixels, from the answer's logits alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.third_party import square_l2
from idc.attacks.threat import Threat
from idc.noise import Streams
from idc.types import answered

_SHARE = 0.8  # of an image's pixels that the first squares cover
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which that share is halved
_LOOK = 10  # queries after which wrong answers leave, and for which random numbers are drawn together


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """The score-based black-box attack (Andriushchenko et al., ECCV 2020), on the mean logits of several draws.

    It starts from vertical stripes at the ends of the ball, and sets a square of pixels of each image to an end of it,
    one query after the other; what raises the margin stays. After a tenth of the queries only those images go on whose
    margin has come closer to 0 by ``progress`` of what it was. In L2 it is that of pyautoattack, with all queries.

    Args:
        threat: norm and radius.
        queries: for each image; of a stochastic model a query counts once for each draw.
        draws: of the noise averaged in each query of a stochastic model.
        progress: see above; 0 lets all go on.
    """

    threat: Threat
    queries: int = 5000
    draws: int = 8
    progress: float = 0.0

    def __post_init__(self) -> None:
        self.threat.refuse_l1("Square")

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        if not len(images) or self.threat.eps == 0:
            return images.clone()
        draws = self.draws if target.stochastic else 1
        if self.threat.norm == "l2":
            return square_l2(self.threat, self.queries // draws, draws, target, images, classes, streams)
        return self._linf(target, images, classes, streams, draws)

    def _linf(self, target: Target, images: Tensor, classes: Tensor, streams: Streams, draws: int) -> Tensor:
        queries = self.queries // draws
        result, rows = images.clone(), torch.arange(len(images), device=images.device)
        channels, height, width = images.shape[1:]
        clean, _ = self._ask(target, images, classes, streams.of("clean"), draws)
        stripes = 2 * (streams.of("stripes").uniform((channels, 1, width)) < 0.5).to(images) - 1
        x = self.threat.project(images + self.threat.eps * stripes, images)
        held, wrong = self._ask(target, x, classes, streams.of("query"), draws)
        numbers = torch.empty(0)
        for at in range(queries):
            if at % _LOOK == 0:
                result[rows] = x
                keep = ~wrong
                if at == max(1, queries // 10 // _LOOK) * _LOOK and self.progress:
                    keep &= held >= (1 - self.progress) * clean
                rows, x, held, wrong, clean = (v[keep] for v in (rows, x, held, wrong, clean))
                if not len(rows):
                    return result
                numbers = streams.take(rows).of("squares", at).uniform((_LOOK, 2 + channels))
            side = _side(at, height, width)
            inside = _squares(numbers[:, at % _LOOK, :2], side, height, width)
            ends = self.threat.eps * (2 * (numbers[:, at % _LOOK, 2:] < 0.5).to(images) - 1)
            tried = torch.where(inside, images[rows] + ends[:, :, None, None], x)
            tried = self.threat.project(tried, images[rows])
            margin, fails = self._ask(target, tried, classes[rows], streams.take(rows).of("query", at), draws)
            better = ~wrong & ((margin > held) | fails)
            x = torch.where(better.view(-1, 1, 1, 1), tried, x)
            held, wrong = torch.where(better, margin, held), wrong | fails
        result[rows] = x
        return result

    @staticmethod
    def _ask(target: Target, x: Tensor, classes: Tensor, streams: Streams, draws: int) -> tuple[Tensor, Tensor]:
        """(B,) margin, above 0 once the mean of the draws is wrong, and whether it is."""
        logits = target.logits(ANSWER, x, streams, draws=draws).mean(0)
        return torch.nan_to_num(Margin()(logits, classes), nan=0.0), answered(logits) != classes


def _side(at: int, height: int, width: int) -> int:
    """Of the square of query ``at``, in pixels."""
    share = _SHARE / 2 ** sum(at > halving for halving in _HALVINGS)
    return min(max(1, round(math.sqrt(share * height * width))), height, width)


def _squares(numbers: Tensor, side: int, height: int, width: int) -> Tensor:
    """(B, 2) uniform in (0, 1) -> (B, 1, H, W) bool: a square of that side somewhere in each image."""
    inside = []
    for number, length in zip(numbers.unbind(1), (height, width), strict=True):
        start = (number * (length - side + 1)).floor()[:, None]
        place = torch.arange(length, device=numbers.device)
        inside.append((place >= start) & (place < start + side))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]
