"""What the answers to a batch should be: one notion for images of one class, mixed ones and smoothed labels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from idc.data.mixing import Mixed


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a batch.

    Attributes:
        classes: (B,) int64, of the images themselves.
        answer: what ``cross_entropy`` takes, and the attack that raises it: ``classes``, or (B, K) shares of all the
            classes that sum to 1.
        mixed: the batch as it was mixed, or None.
    """

    classes: Tensor
    answer: Tensor
    mixed: Mixed | None = None

    def each(self) -> list[tuple[Tensor, Tensor | None]]:
        """Classes (B,) that the images are of, each with its shares (B,) of them; None: each image is of one alone."""
        if self.mixed is None:
            return [(self.classes, None)]
        return [(self.classes, self.mixed.share), (self.mixed.others, 1 - self.mixed.share)]


def targets(classes: Tensor, num_classes: int, *, mixed: Mixed | None = None, smoothing: float = 0.0) -> Targets:
    """The targets of images of these classes::

        share 1(own) + (1 - share) 1(other),    of which the share ``smoothing`` goes to all classes alike

    A cross-entropy is linear in its target: towards both classes it is the sum of those towards each, by their shares
    (CutMix: Yun et al., ICCV 2019, section 3.1). Label smoothing: Szegedy et al., CVPR 2016, section 7.

    Args:
        classes: (B,) int64.
        num_classes: K.
        mixed: the batch as it was mixed.
        smoothing: in [0, 1).
    """
    if mixed is None and smoothing == 0:
        return Targets(classes, classes)
    shares = one_hot(classes, num_classes)
    if mixed is not None:
        shares = torch.lerp(one_hot(mixed.others, num_classes), shares, mixed.share[:, None].to(shares))
    return Targets(classes, (1 - smoothing) * shares + smoothing / num_classes, mixed)


def rectified(answer: Tensor, found: Tensor, share: float) -> Tensor:
    """Targets with a part of what a network ``found``, less where that errs::

        own    = min(max(share - (max over k of found_k - sum over k of answer_k found_k), 0), 1)
        target = own found + (1 - own) answer

    Annealing self-distillation rectification (ADR; Wu, Wang and Chen, ICLR 2024, section 4), whose answer is one class.

    Args:
        answer: (B,) classes, or (B, K) shares of them.
        found: (B, K), probabilities.
        share: in [0, 1].
    """
    shares = answer if answer.ndim == 2 else one_hot(answer, found.shape[1])
    missed = found.amax(1, keepdim=True) - (shares * found).sum(1, keepdim=True)
    return torch.lerp(shares, found, (share - missed).clamp(0, 1))


def annealed(ends: tuple[float, float], done: float) -> float:
    """Half a cosine from the first value to the last, after the share ``done`` in [0, 1] of a run."""
    first, last = ends
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def one_hot(classes: Tensor, num_classes: int) -> Tensor:
    """(B,) classes as (B, K) float32 shares."""
    return F.one_hot(classes, num_classes).float()
