"""The smallest change that makes an answer wrong, of whatever size that is: C&W in L2, FMN in L-inf, L2 and L1."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat, l2
from idc.noise import Streams
from idc.types import answered

_BEYOND = (1.001, 1.05, 1.25, 2.0)  # of the way to a point that one function of the model gets wrong
_OVERSHOOT = 1.02  # of the way to a boundary that is taken as linear: on it the answer is still the true class
_DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}  # the norm of a gradient that goes with each
_BETAS, _TINY = (0.9, 0.999), 1e-8  # of Adam


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagner:
    """The C&W attack in L2 without confidence (Carlini and Wagner, IEEE S&P 2017, section VI-A).

    Adam descends ``|x - x0|^2 + c max(0, z_true - max_other z)`` over w, with x = (1 + tanh w) / 2, which keeps to
    [0, 1]. The constant c is sought for each image: ten times larger as long as no adversarial example is found, then
    by bisection. Without ``threat`` the result may lie anywhere; with it, an image whose change exceeds the radius
    comes back as it was, as does one for which nothing is found.

    Args:
        threat: the ball that counts, or None.
        surrogate: the function under attack.
        steps: of Adam, for each constant.
        step: Adam's rate, in w.
        constant: the first c.
        searches: constants that are tried.
        abort_early: an image whose loss has not decreased in a tenth of the steps is done with this constant.
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
        nearest = Nearest(images, Threat("l2", 0.0))
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
        self, target: Target, classes: Tensor, constant: Tensor, nearest: "Nearest", streams: Streams, search: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FMN:
    """The fast minimum-norm attack (Pintor et al., NeurIPS 2021), in L-inf, L2 and L1.

    The gradient of the margin is followed in steps of decreasing length, within a ball around the image whose radius
    shrinks by a share where the point is adversarial and grows by it where it is not; before any such point is found,
    the radius is what a linear margin would need. It is run along every function of the model; what the answer itself
    gets wrong is brought nearer to the image by bisection, and the nearest one comes back, wherever it lies; an image
    for which nothing is found comes back as it was.

    Args:
        threat: norm and bounds; what comes back may lie outside of it.
        steps: along each function.
        step: length of the first in L2, of the last a hundredth of it; both shrink as a cosine.
        shrink: the first share by which the radius changes.
        halvings: of the bisection.
    """

    threat: Threat
    steps: int = 200
    step: float = 1.0
    shrink: float = 0.05
    halvings: int = 8
    nearest: ClassVar[bool] = True

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        found = Nearest(images, self.threat)
        if len(images):
            for function in [*target.surrogates, ANSWER]:
                x = self._run(target, function, images, classes, streams.of(function))
                self._bisect(target, x, classes, found, streams.of("bisect", function))
        return found.x

    def _run(self, target: Target, function: str, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        nearest = Nearest(images, self.threat)
        x, radius = images.clone(), torch.full((len(images),), math.inf, device=images.device)
        for at in range(self.steps):
            share = (1 + math.cos(math.pi * at / self.steps)) / 2
            margin, gradient, logits = target.gradient(
                function, x, classes, streams.of("noise", at), objective=Margin()
            )
            margin, gradient = margin.nan_to_num(), gradient.nan_to_num()
            wrong = answered(logits) != classes
            nearest.offer(x[wrong], wrong.nonzero()[:, 0])
            dual = torch.linalg.vector_norm(gradient.flatten(1), _DUAL[self.threat.norm], dim=1)
            linear = self.threat.size(x, images) - _OVERSHOOT * margin / dual.clamp(min=1e-12)
            grown = torch.where(nearest.size.isinf(), linear, radius * (1 + self.shrink * share))
            radius = torch.where(wrong, torch.minimum(radius, nearest.size) * (1 - self.shrink * share), grown)
            length = self.step * (0.01 + 0.99 * share)
            x = self.threat.project(x + length * Threat("l2", 1.0).steepest(gradient), images, radius.clamp(min=0))
        return nearest.x

    def _bisect(self, target: Target, x: Tensor, classes: Tensor, found: "Nearest", streams: Streams) -> None:
        """Offer points on the lines from the images through ``x`` that the answer gets wrong, nearer and nearer: a
        little beyond ``x``, which may lie on a boundary that is not quite the answer's, and then from there inwards."""
        low = torch.zeros(len(x), 1, 1, 1, device=x.device)
        high = torch.full_like(low, math.inf)
        for at in range(len(_BEYOND) + self.halvings):
            inwards = (low + high) / 2
            share = torch.where(high.isinf(), _BEYOND[at], inwards) if at < len(_BEYOND) else inwards
            point = found.images + share.nan_to_num(posinf=0.0) * (x - found.images)
            point = point.clamp(self.threat.bounds.lower, self.threat.bounds.upper)
            wrong = answered(target.logits(ANSWER, point, streams.of(at)))[0] != classes
            found.offer(point[wrong], wrong.nonzero()[:, 0])
            wide = wrong.view(-1, 1, 1, 1)
            low = torch.where(wide | share.isinf(), low, share)
            high = torch.where(wide & ~share.isinf(), share, high)


class Nearest:
    """The adversarial example of each image that is nearest to it; as long as there is none, the image."""

    def __init__(self, images: Tensor, threat: Threat) -> None:
        self.images, self.threat, self.x = images, threat, images.clone()
        self.size = torch.full((len(images),), math.inf, device=images.device)

    def offer(self, x: Tensor, rows: Tensor) -> None:
        """Keep those of ``x``, adversarial examples for the images ``rows``, that are nearer than what is held."""
        size = self.threat.size(x, self.images[rows])
        nearer = size < self.size[rows]
        self.x[rows[nearer]], self.size[rows[nearer]] = x[nearer], size[nearer]


def _image(w: Tensor) -> Tensor:
    return (w.tanh() + 1) / 2
