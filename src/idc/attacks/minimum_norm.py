"""The smallest change that makes an answer wrong, of whatever size that is: C&W in L2."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat, l2
from idc.noise import Streams
from idc.types import answered

_BETAS, _TINY = (0.9, 0.999), 1e-8  # of Adam


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagner:
    """The C&W attack in L2 without confidence (Carlini and Wagner, IEEE S&P 2017, section VI-A).

    Adam descends |x - x0|^2 + c max(0, z_true - max_other z) over w, with x = (1 + tanh w) / 2, which keeps to [0, 1].
    The constant c is sought for each image: ten times larger as long as no adversarial example is found, then by
    bisection. Without ``threat`` the result may lie anywhere; with it, an image whose change exceeds the radius comes
    back as it was, as does one for which nothing is found.

    Args:
        threat: the ball that counts, or None.
        surrogate: the function under attack.
        steps: of Adam, for each constant.
        step: Adam's rate, in w.
        constant: the first c.
        searches: constants that are tried.
        abort_early: an image whose loss has not fallen in a tenth of the steps is done with this constant.
        reseed: the noise repeats in every step (a flaw, kept for comparison).
    """

    threat: Threat | None = None
    surrogate: str = ANSWER
    steps: int = 1000
    step: float = 0.01
    constant: float = 1e-3
    searches: int = 9
    abort_early: bool = True
    reseed: bool = False

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        nearest = _Nearest(images)
        constant = torch.full((len(images),), self.constant, device=images.device, dtype=torch.float64)
        low, high = torch.zeros_like(constant), torch.full_like(constant, math.inf)
        for search in range(self.searches if len(images) else 0):
            found = self._descend(target, classes, constant.to(images), nearest, streams, search)
            low, high = torch.where(found, low, constant), torch.where(found, constant, high)
            constant = torch.where(high.isinf(), 10 * constant, (low + high) / 2)
        if self.threat is None:
            return nearest.x
        outside = self.threat.size(nearest.x, images) > self.threat.eps * (1 + 1e-6)
        return torch.where(outside.view(-1, 1, 1, 1), images, nearest.x)

    def _descend(
        self, target: Target, classes: Tensor, constant: Tensor, nearest: "_Nearest", streams: Streams, search: int
    ) -> Tensor:
        """(B,) for which images Adam finds an adversarial example with these constants; ``nearest`` keeps the best."""
        w = ((2 * nearest.images - 1) * 0.999999).atanh()
        found = torch.zeros(len(w), dtype=torch.bool, device=w.device)
        rows, mean, square = torch.arange(len(w), device=w.device), torch.zeros_like(w), torch.zeros_like(w)
        start, before = _image(w), torch.full_like(constant, math.inf)
        for at in range(self.steps):
            x = _image(w[rows])
            noise = streams.of("noise") if self.reseed else streams.of("noise", search, at)
            margin, gradient, logits = target.gradient(
                self.surrogate, x, classes[rows], noise.take(rows), objective=Margin()
            )
            wrong = answered(logits) != classes[rows]
            found[rows] |= wrong
            nearest.offer(x[wrong], rows[wrong])
            pull = torch.where(margin < 0, -constant[rows], 0).view(-1, 1, 1, 1) * gradient
            slope = (pull + 2 * (x - start[rows])) * 2 * x * (1 - x)  # dx/dw = (1 - tanh^2 w) / 2
            mean[rows] = _BETAS[0] * mean[rows] + (1 - _BETAS[0]) * slope
            square[rows] = _BETAS[1] * square[rows] + (1 - _BETAS[1]) * slope.square()
            rate, spread = (v[rows] / (1 - b ** (at + 1)) for v, b in zip((mean, square), _BETAS, strict=True))
            w[rows] -= self.step * rate / (spread.sqrt() + _TINY)
            if self.abort_early and at % math.ceil(self.steps / 10) == 0:
                loss = l2(x - start[rows]).square() - constant[rows] * margin.clamp(max=0)
                falls = loss <= 0.9999 * before[rows]
                before[rows], rows = loss, rows[falls]
                if not len(rows):
                    break
        return found


class _Nearest:
    """The adversarial example of each image that is nearest to it; as long as there is none, the image."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.x = images, images.clone()
        self.size = torch.full((len(images),), math.inf, device=images.device)

    def offer(self, x: Tensor, rows: Tensor) -> None:
        """Keep those of ``x``, adversarial examples for the images ``rows``, that are nearer than what is held."""
        size = l2(x - self.images[rows])
        nearer = size < self.size[rows]
        self.x[rows[nearer]], self.size[rows[nearer]] = x[nearer], size[nearer]


def _image(w: Tensor) -> Tensor:
    return (w.tanh() + 1) / 2
