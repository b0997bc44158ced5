"""What an attack maximises, on logits (B, K). Each takes the true classes and, if targeted, the wanted ones."""

import typing
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


class Objective(typing.Protocol):
    """Logits (B, K), true classes (B,), wanted classes (B,) or None -> (B,), larger is better for the attacker."""

    def __call__(self, logits: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor: ...


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]


def best_other(logits: Tensor, classes: Tensor) -> Tensor:
    """(B,) the largest logit of a class other than ``classes``."""
    return logits.scatter(1, classes[:, None], float("-inf")).amax(1)


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Cross-entropy of the true class; targeted, minus that of the wanted one (Madry et al., ICLR 2018)."""

    def __call__(self, logits: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
        if targets is None:
            return F.cross_entropy(logits, classes, reduction="none")
        return -F.cross_entropy(logits, targets, reduction="none")


@dataclass(frozen=True, slots=True)
class Margin:
    """Best other (or wanted) logit minus the true one: above 0 once the answer is wrong (Carlini and Wagner, 2017)."""

    def __call__(self, logits: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
        other = best_other(logits, classes) if targets is None else _pick(logits, targets)
        return other - _pick(logits, classes)


@dataclass(frozen=True, slots=True)
class DLR:
    """The margin over the spread of the largest logits, unchanged by shift and scale (Croce and Hein, ICML 2020).

    The spread is z1 - z3, or z1 - (z3 + z4)/2 if targeted. With fewer classes than that takes, the least of what there
    is; with two classes, which have no spread but the margin itself, the margin.
    """

    def __call__(self, logits: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
        top = logits.topk(min(4, logits.shape[1]), dim=1).values
        if top.shape[1] == 2:
            return Margin()(logits, classes, targets)
        if targets is None or top.shape[1] == 3:
            spread = top[:, 0] - top[:, 2]
        else:
            spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
        return Margin()(logits, classes, targets) / (spread + 1e-12)


OBJECTIVES: dict[str, Objective] = {"margin": Margin(), "cross-entropy": CrossEntropy(), "dlr": DLR()}


def likely_targets(logits: Tensor, classes: Tensor, count: int) -> Tensor:
    """(B, K) logits -> (count, B): the ``count`` likeliest classes other than the true one, likeliest first."""
    masked = logits.scatter(1, classes[:, None], float("-inf"))
    return torch.topk(masked, min(count, logits.shape[1] - 1), dim=1).indices.T
