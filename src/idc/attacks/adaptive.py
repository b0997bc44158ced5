"""The attack that looks for a model's weak spot first: short trials of everything, then the best of them at length."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idc.attacks.best import Best
from idc.attacks.gradient import GradientAttack
from idc.attacks.objective import DLR, CrossEntropy, Margin, Objective
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.noise import Streams

_OBJECTIVES: tuple[Objective, ...] = (Margin(), CrossEntropy(), DLR())
_FUNCTIONS = 2  # of an image that are tried with every objective
_FINALISTS = 3
MOMENTUM = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveAttack:
    """A budgeted search over surrogates, objectives and bases, then long runs of what won, image by image.

    Every function the model names as easier to differentiate (and its answer) is tried for a few steps with the first
    objective; the two that do an image most harm also with the others, and with low-frequency perturbations. The real
    model judges each trial with fresh noise. Each image is then attacked at length along its own best trial, untargeted
    with restarts and towards its likeliest wrong classes, and towards these along the answer itself. Along the trial's
    function and the answer, where they have noise, there are first runs that need no comparison of noisy objectives:
    half as many steps of one size, along a running sum of the gradients of the margin of all frequencies; the last
    iterate counts. What a long run finds and what was found before it are judged by the same draws.

    Where a few steps may mislead (``Target.trials_mislead``), each image is first attacked at length along the model's
    first function, whatever its trial came to: with cross-entropy, and towards the likeliest wrong classes. Where that
    function has noise, how far a run comes depends on how many gradients it has seen: untargeted, there are three with
    momentum, on the margin, on cross-entropy and with twice the draws, each from where the last one ended.

    Args:
        threat: norm, radius, bounds.
        objectives: of the trials; the first is tried with every function.
        trial_steps: of each trial.
        steps: of the long runs.
        restarts: long untargeted runs for each image.
        targets: long targeted runs for each image, along a function without noise; three of them go on after the first
            checkpoint.
        noisy_targets: the same, along a function with noise, whose every evaluation costs more.
        eot: draws of the noise in each gradient of the long untargeted runs along a function with noise; the targeted
            ones take half as many, trials one, fresh in every step.
        low_frequency: share of the frequencies of each side in the trials that keep only the lowest; None for no such.
        judge_draws: draws of the real model by which trials are compared; long runs by eight times as many.
        momentum: decay of the running sums; None for ``MOMENTUM``.
        follow_first: whether long runs along the first function are made of every image; None: where trials mislead.
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
    momentum: float | None = None
    follow_first: bool | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise IDCError(f"steps = {self.steps}", "1 or more", "correct the attack's settings")

    def for_target(self, target: Target) -> "AdaptiveAttack":
        """With what is left open as this model has it, and None where that makes no difference: a record of before
        there were such runs lacks the fields, which read as None."""
        momentum = MOMENTUM if target.stochastic and self.momentum is None else self.momentum
        follow = True if target.trials_mislead and self.follow_first is None else self.follow_first
        return replace(self, momentum=momentum, follow_first=follow)

    def trials(self, target: Target) -> list[GradientAttack]:
        """The short runs, function by function: first those of each with the first objective."""
        functions = [*target.surrogates, ANSWER]
        kinds: list[tuple[Objective, float | None]] = [(o, None) for o in self.objectives]
        if self.low_frequency is not None:
            kinds.append((self.objectives[0], self.low_frequency))
        return [
            GradientAttack(
                threat=self.threat, objective=o, surrogate=f, steps=self.trial_steps, control="auto",
                low_frequency=share, judge_draws=self.judge_draws,
            )
            for o, share in kinds
            for f in functions
        ]  # fmt: skip

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        if not len(images) or self.threat.eps == 0:
            return images.clone()
        best = Best(target, images, classes, streams, self.judge_draws)
        trials = self.trials(target)
        functions = 1 + len(target.surrogates)
        scores = torch.full((len(trials), len(images)), float("inf"), device=images.device, dtype=torch.float64)
        chosen = torch.ones(functions, len(images), dtype=torch.bool, device=images.device)
        for index, trial in enumerate(trials):
            if index == functions:
                chosen = scores[:functions].argsort(dim=0, stable=True).argsort(0) < _FUNCTIONS
            rows = best.remaining()
            if not len(rows):
                return best.x
            rows = rows[chosen[index % functions, rows]]
            if len(rows):
                found = trial(target, images[rows], classes[rows], streams.of("trial", index).take(rows))
                scores[index, rows] = best.offer(found, rows, "trial", index)
        self._at_length(target, images, classes, streams, best, trials, scores.argmin(0))
        return best.x

    def _at_length(
        self,
        target: Target,
        images: Tensor,
        classes: Tensor,
        streams: Streams,
        best: Best,
        trials: list[GradientAttack],
        chosen: Tensor,
    ) -> None:
        """The long runs of each image: along the first function, and along the trial that is chosen for it."""
        always = self._always(target, images) if self.for_target(target).follow_first else []
        ends = images.clone()
        for number, long in enumerate(always):
            if len(rows := best.remaining()):
                start = ends[rows] if number and long.control == "fixed" else None
                found = long(target, images[rows], classes[rows], streams.of("first", number).take(rows), start=start)
                best.compare(found, rows, "first", number)
                ends[rows] = found
        for index, trial in enumerate(trials):
            for number, long in enumerate(self._long(target, trial, images)):
                rows = best.remaining()
                rows = rows[chosen[rows] == index]
                if len(rows) and long not in always:
                    found = long(target, images[rows], classes[rows], streams.of("long", index, number).take(rows))
                    best.compare(found, rows, "long", index, number)

    def _always(self, target: Target, images: Tensor) -> list[GradientAttack]:
        """Along the first function, whatever was tried; of runs with steps of one size each begins where
        the last one ended."""
        usual = replace(self._at_full(self.trials(target)[0]), surrogate=target.first, objective=CrossEntropy())
        untargeted = [usual]
        if target.noisy(target.first, images):
            first, second = (self._steady(replace(usual, objective=own)) for own in (Margin(), CrossEntropy()))
            second = replace(second, restarts=1)
            untargeted = [first, second, replace(second, eot=2 * self.eot)]
        return [*untargeted, *self._targeted(target, usual, images)]

    def _long(self, target: Target, trial: GradientAttack, images: Tensor) -> list[GradientAttack]:
        """With momentum along its function and the answer; untargeted along the trial; targeted along both."""
        untargeted = self._at_full(trial)
        along = [replace(untargeted, surrogate=name) for name in dict.fromkeys((trial.surrogate, ANSWER))]
        steady = [
            self._steady(replace(own, objective=Margin())) for own in along if target.noisy(own.surrogate, images)
        ]
        return [*steady, untargeted, *(targeted for own in along for targeted in self._targeted(target, own, images))]

    def _at_full(self, trial: GradientAttack) -> GradientAttack:
        """The same at full length."""
        return replace(trial, steps=self.steps, restarts=self.restarts, eot=self.eot)

    def _steady(self, attack: GradientAttack) -> GradientAttack:
        """The same along a function with noise: half as many steps, of one size, along a running sum."""
        steps, decay = math.ceil(self.steps / 2), MOMENTUM if self.momentum is None else self.momentum
        step = self.threat.eps * min(1 / 4, 5 / steps)
        return replace(attack, steps=steps, control="fixed", low_frequency=None, step=step, decay=decay)

    def _targeted(self, target: Target, attack: GradientAttack, images: Tensor) -> list[GradientAttack]:
        """The same towards the likeliest wrong classes, if any are asked for."""
        targets = self.noisy_targets if target.noisy(attack.surrogate, images) else self.targets
        eot = max(1, self.eot // 2)
        towards = replace(
            attack, objective=DLR(), targets=targets, finalists=_FINALISTS, eot=eot, restarts=1, low_frequency=None
        )
        return [towards] if targets else []
