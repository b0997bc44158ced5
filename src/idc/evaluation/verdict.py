"""Accuracy from draws of an answer: mean, majority vote, worst of n, each with its 95% Wilson interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idc.storage.fields import recorded
from idc.text import share
from idc.types import NOT_FINITE


@dataclass(frozen=True, slots=True)
class Share:
    """A share of ``n`` images with its 95% Wilson interval [low, high]."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return share(recorded(self))


def wilson(mean: float, n: int, *, z: float = 1.959964) -> Share:
    """The Wilson score interval of a share ``mean`` of ``n`` images (Wilson, JASA 1927).

    Args:
        mean: in [0, 1]; a mean over draws is treated as that share of whole images, which is conservative.
        n: images; 0 gives the whole of [0, 1].
        z: normal quantile; 1.96 for 95%.
    """
    if n == 0:
        return Share(mean=0.0, low=0.0, high=1.0, n=0)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Share(mean=mean, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)


def plurality(answers: Tensor, num_classes: int) -> Tensor:
    """(n, B) answers -> (B,) the class with the most draws, -1 where two or more share the lead, ``NOT_FINITE`` where a
    draw has no answer."""
    none = (answers == NOT_FINITE).any(0)
    counts = torch.nn.functional.one_hot(answers.clamp(min=0), num_classes).sum(0)
    lead, vote = counts.max(1)
    return torch.where((counts == lead[:, None]).sum(1) == 1, vote, -1).masked_fill(none, NOT_FINITE)


@dataclass(frozen=True, slots=True)
class Judged:
    """One image's draws: how many of ``n`` were right, and the class that most of them answered (-1: a tie;
    ``NOT_FINITE``: a draw has NaN or infinite logits). Not ``finite``: the attack returned NaN or infinity, and the
    image itself was judged."""

    right: int
    vote: int
    finite: bool = True


def judge(answers: Tensor, classes: Tensor, num_classes: int) -> list[Judged]:
    """(n, B) answers and true classes (B,) -> what each image comes to."""
    right, votes = (answers == classes).sum(0).tolist(), plurality(answers, num_classes).tolist()
    return [Judged(r, v) for r, v in zip(right, votes, strict=True)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accuracy over images of a stochastic answer asked n times: of a draw on average, of the majority vote, and of
    all n draws together (an attacker who may resubmit needs one wrong draw)."""

    mean: Share
    majority: Share
    worst_of_n: Share
    n: int

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {name: recorded(getattr(self, name)) for name in ("mean", "majority", "worst_of_n")} | {"draws": self.n}


def verdict(judged: Sequence[Judged], classes: Sequence[int], draws: int) -> Verdict:
    """The verdict over images of the given true ``classes``, each asked ``draws`` times."""
    images = len(judged)

    def share(total: float) -> Share:
        return wilson(total / images if images else 0.0, images)

    return Verdict(
        mean=share(sum(j.right for j in judged) / draws),
        majority=share(sum(j.vote == c for j, c in zip(judged, classes, strict=True))),
        worst_of_n=share(sum(j.right == draws for j in judged)),
        n=draws,
    )
