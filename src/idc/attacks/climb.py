"""The step control of APGD (Croce and Hein, ICML 2020; in L1: ICML 2021), one row a run."""

import math
from copy import copy

import torch
from torch import Tensor

from idc.attacks.threat import Threat


class Climb:
    """The moving part of APGD: per-image steps, halved at checkpoints where the objective stalls.

    In L1 there is no momentum, and every 25th part of the steps it looks at how many coordinates the best point has
    changed: the next steps move two thirds as many. Where these have become fewer by a twentieth it goes on from the
    best point with the first length, eps; elsewhere the length falls by a third, down to eps / 10.

    Args:
        threat: the set that is not left.
        start: (R, C, H, W) points of it, a row a run.
        steps: of all.
    """

    _TENSORS = ("x", "before", "gradient", "best_x", "best_gradient", "best", "last", "step", "rises", "halved",
                "best_then", "share", "changed")  # fmt: skip

    def __init__(self, threat: Threat, start: Tensor, steps: int) -> None:
        n, device = len(start), start.device
        self.threat, self.steps = threat, steps
        self.x = self.before = self.best_x = start
        self.gradient = self.best_gradient = torch.zeros_like(start)
        self.best = self.last = self.best_then = torch.full((n,), float("-inf"), device=device)
        self.step = torch.full((n,), 2 * threat.eps, device=device)
        self.rises = torch.zeros(n, device=device)
        self.halved = torch.zeros(n, dtype=torch.bool, device=device)
        self.share = torch.full((n,), 0.2, device=device)  # of the coordinates, that a step in L1 moves
        self.changed = torch.full((n,), math.prod(start.shape[1:]), device=device)
        self.checkpoints = checkpoints(steps)
        self.first = min(self.checkpoints, default=steps)
        if threat.norm == "l1":
            self.step = self.step / 2
            self.checkpoints = frozenset(range(0, steps, max(1, steps // 25))) - {0}
        self.since = 0

    def take(self, rows: Tensor) -> "Climb":
        """The same climb of some of the images."""
        other = copy(self)
        for name in self._TENSORS:
            setattr(other, name, getattr(self, name)[rows])
        return other

    def arrive(self, loss: Tensor, gradient: Tensor) -> None:
        """Note the objective and gradient at ``x``."""
        better = loss > self.best
        wide = better.view(-1, 1, 1, 1)
        self.rises = self.rises + ((loss > self.last) & torch.isfinite(self.last))
        self.gradient, self.last = gradient, loss
        self.best_x = torch.where(wide, self.x, self.best_x)
        self.best_gradient = torch.where(wide, gradient, self.best_gradient)
        self.best = torch.where(better, loss, self.best)

    def move(self, images: Tensor, at: int) -> None:
        """Step ``at`` from ``x``: a step of the present size, with momentum from the second on."""
        sparse = self.threat.norm == "l1"
        if at in self.checkpoints:
            self._adapt_sparse(images) if sparse else self._adapt(at)
        ahead = self.step.view(-1, 1, 1, 1) * self.threat.steepest(self.gradient, self.share)
        full = self.threat.project(self.x + ahead, images)
        if sparse:
            self.before, self.x = self.x, full
            return
        share = 0.75 if at else 1.0
        moved = self.threat.project(self.x + share * (full - self.x) + (1 - share) * (self.x - self.before), images)
        self.before, self.x = self.x, moved

    def _adapt(self, at: int) -> None:
        interval = at - self.since
        stalled = (self.rises <= 0.75 * interval) | (~self.halved & (self.best <= self.best_then))
        self.since, self.best_then = at, self.best
        self.halved, self.rises = stalled, torch.zeros_like(self.rises)
        self.step = torch.where(stalled, self.step / 2, self.step)
        self._back_to_best(stalled)

    def _adapt_sparse(self, images: Tensor) -> None:
        changed = (self.best_x != images).flatten(1).sum(1)
        fewer = changed < 0.95 * self.changed
        self.share, self.changed = changed / (1.5 * images[0].numel()), changed
        self.step = torch.where(fewer, self.threat.eps, (self.step / 1.5).clamp(min=self.threat.eps / 10))
        self._back_to_best(fewer)

    def _back_to_best(self, rows: Tensor) -> None:
        wide = rows.view(-1, 1, 1, 1)
        self.x = torch.where(wide, self.best_x, self.x)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)


def checkpoints(steps: int) -> frozenset[int]:
    """The steps at which APGD looks back: after 22%, then at intervals that shrink by 3% of the steps to 6%."""
    first, before, found = 0.22, 0.0, []
    while first < 1:
        found.append(round(first * steps))
        first, before = first + max(first - before - 0.03, 0.06), first
    return frozenset(found) - {0}
