"""The attack that looks for a model's weak spot first: short trials of everything, then the best of them at length."""

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from idc.attacks.best import Best
from idc.attacks.gradient import GradientAttack
from idc.attacks.objective import DLR, CrossEntropy, Margin, Objective
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.noise import Streams

_OBJECTIVES: tuple[Objective, ...] = (CrossEntropy(), Margin(), DLR())


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveAttack:
    """A budgeted search over surrogates, objectives and bases, then long runs of what won, image by image.

    Every function the model names as easier to differentiate (and its answer) is tried with every objective, and with
    low-frequency perturbations, for a few steps; the real model judges each trial with fresh noise. Each image is then
    attacked at length along its own best trial, untargeted with restarts and towards its likeliest wrong classes.

    Args:
        threat: norm, radius, bounds.
        objectives: tried with every function.
        trial_steps: of each trial.
        steps: of the long runs.
        restarts: long untargeted runs for each image.
        targets: long targeted runs for each image, along a function without noise.
        noisy_targets: the same, along a function with noise, whose every evaluation costs more.
        eot: draws of the noise in each gradient of the long untargeted runs along a function with noise; the targeted
            ones take half as many, trials one, fresh in every step.
        low_frequency: share of the frequencies of each side in the trials that keep only the lowest; None for no such.
        judge_draws: draws of the real model by which runs are compared.
    """

    threat: Threat
    objectives: tuple[Objective, ...] = _OBJECTIVES
    trial_steps: int = 10
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    noisy_targets: int = 3
    eot: int = 4
    low_frequency: float | None = 0.5
    judge_draws: int = 8

    def trials(self, target: Target) -> list[GradientAttack]:
        """The short runs, one for each combination."""
        functions = [*target.surrogates, ANSWER]
        both = [(f, o, None) for f, o in product(functions, self.objectives)]
        low = [(f, self.objectives[0], self.low_frequency) for f in functions if self.low_frequency is not None]
        return [
            GradientAttack(
                threat=self.threat, objective=o, surrogate=f, steps=self.trial_steps, control="auto",
                low_frequency=share, judge_draws=self.judge_draws,
            )
            for f, o, share in [*both, *low]
        ]  # fmt: skip

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        if not len(images) or self.threat.eps == 0:
            return images.clone()
        best = Best(target, images, classes, streams, self.judge_draws)
        trials = self.trials(target)
        scores = torch.full((len(trials), len(images)), float("inf"), device=images.device, dtype=torch.float64)
        for index, trial in enumerate(trials):
            rows = best.remaining()
            if not len(rows):
                return best.x
            found = trial(target, images[rows], classes[rows], streams.of("trial", index).take(rows))
            scores[index, rows] = best.offer(found, rows, "trial", index)
        chosen = scores.argmin(0)
        for index, trial in enumerate(trials):
            for long in self._long(trial, target.noisy(trial.surrogate, images)):
                rows = best.remaining()
                rows = rows[chosen[rows] == index]
                if len(rows):
                    own = streams.of("long", index, long.targets).take(rows)
                    best.offer(long(target, images[rows], classes[rows], own), rows, "long", index, long.targets)
        return best.x

    def _long(self, trial: GradientAttack, noisy: bool) -> list[GradientAttack]:
        long = [replace(trial, steps=self.steps, restarts=self.restarts, eot=self.eot)]
        if targets := self.noisy_targets if noisy else self.targets:
            eot = max(1, self.eot // 2)
            long.append(replace(trial, steps=self.steps, objective=DLR(), targets=targets, eot=eot))
        return long
