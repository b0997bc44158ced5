"""One gradient engine: FGSM, MI-FGSM, PGD and APGD are its settings; EOT and BPDA wrap the function under attack."""

import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from idc.attacks.best import Best
from idc.attacks.climb import Climb
from idc.attacks.frequency import low_pass
from idc.attacks.objective import CrossEntropy, Objective, likely_targets
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.noise import Streams
from idc.types import answered


class Attack(typing.Protocol):
    """A setting that is called on a batch. It judges nothing for good: the caller does, on the real model, with fresh
    noise."""

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        """Images (B, C, H, W) in [0, 1], true classes (B,) -> images of the same shape within the threat."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientAttack:
    """Ascent of an objective of one function of the model, within a threat.

    With ``control="fixed"`` every step has the same size and the last iterate counts (PGD); with "auto" the step starts
    at 2 eps and halves where the objective stalls, and the best iterate counts (APGD, Croce and Hein, ICML 2020); an
    image that a deterministic answer already gets wrong leaves the batch. Of several runs (restarts, targets) an
    image keeps the one that the real model, asked with fresh noise, gets wrong most often.

    Args:
        threat: norm, radius, bounds.
        objective: what rises.
        surrogate: the function whose gradient is followed; "answer" is the model itself.
        steps: gradient steps.
        step: size of a fixed step; by default eps / 4, or 2.5 eps / steps if that is larger.
        control: see above.
        decay: of the gradients' running sum (MI-FGSM; Dong et al., CVPR 2018).
        random_start: start from a random point of the ball.
        restarts: independent starts.
        targets: 0 for untargeted; else runs towards each of so many likeliest wrong classes.
        finalists: with ``control="auto"``, an image's runs that go on after the first checkpoint, those with the
            highest objective (successive halving; Jamieson and Talwalkar, AISTATS 2016); None for all. Its runs end
            together where one of them makes a deterministic answer wrong.
        eot: draws of the noise averaged in each gradient.
        fixed_noise: the same draws in every step, instead of fresh ones (a flaw, kept for comparison).
        low_frequency: share of the frequencies of each side that the gradient keeps; None keeps all (pixels).
        mean_of: what is averaged over draws: the objective ("loss"), or the function's outputs before it ("outputs").
        judge_draws: draws by which runs are compared.
    """

    threat: Threat
    objective: Objective = field(default_factory=CrossEntropy)
    surrogate: str = ANSWER
    steps: int = 20
    step: float | None = None
    control: Literal["fixed", "auto"] = "fixed"
    decay: float = 0.0
    random_start: bool = True
    restarts: int = 1
    targets: int = 0
    finalists: int | None = None
    eot: int = 1
    fixed_noise: bool = False
    low_frequency: float | None = None
    mean_of: Literal["loss", "outputs"] = "loss"
    judge_draws: int = 8

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("restarts", 1), ("targets", 0), ("eot", 1), ("judge_draws", 1)):
            if getattr(self, name) < least:
                raise IDCError(f"{name} = {getattr(self, name)}", f"{least} or more", "correct the attack's settings")

    @property
    def step_size(self) -> float:
        """Of a fixed step."""
        return max(self.threat.eps / 4, 2.5 * self.threat.eps / max(1, self.steps)) if self.step is None else self.step

    def __call__(
        self, target: Target, images: Tensor, classes: Tensor, streams: Streams, *, start: Tensor | None = None
    ) -> Tensor:
        """``start``: where the one run of a setting without restarts and targets begins, instead of a random point."""
        if not len(images):
            return images.clone()
        if start is not None:
            return self._climb(target, _State(images, classes, None, streams, start), 1)
        wanted: Sequence[Tensor | None] = [None]
        if self.targets:
            logits = target.logits(self.surrogate, images, streams.of("targets"), draws=self.eot).mean(0)
            wanted = list(likely_targets(logits, classes, self.targets))
        runs = [(restart, index, goal) for restart in range(self.restarts) for index, goal in enumerate(wanted)]
        if len(runs) == 1:
            return self._run(target, images, classes, wanted[0], streams.of(0, 0), 1)
        best = Best(target, images, classes, streams, self.judge_draws)
        # As many runs at once as fill a call, or all that compete; between such groups, misclassified images leave.
        while runs and len(rows := best.remaining()):
            many = len(runs) if self.finalists else max(1, target.chunk // (4 * self.eot * len(rows)))
            now, runs = runs[:many], runs[many:]
            found = self._together(target, images, classes, now, rows, streams)
            for (restart, index, _), x in zip(now, found, strict=True):
                # One after the other all the same: an image that is done after one keeps it, however many ran at once.
                still = torch.isin(rows, best.remaining())
                best.offer(x[still], rows[still], restart, index)
        return best.x

    def _together(
        self,
        target: Target,
        images: Tensor,
        classes: Tensor,
        runs: Sequence[tuple[int, int, Tensor | None]],
        rows: Tensor,
        streams: Streams,
    ) -> list[Tensor]:
        """Several runs of the images ``rows`` as one batch; each run's random numbers are its own."""
        many = len(runs)
        ids = torch.cat([streams.of(restart, index).take(rows).salted() for restart, index, _ in runs])
        goals = [goal[rows] for _, _, goal in runs if goal is not None]
        x, true = images[rows].repeat(many, 1, 1, 1), classes[rows].repeat(many)
        found = self._run(target, x, true, torch.cat(goals) if goals else None, Streams(ids, 0), many)
        return list(found.chunk(many))

    def _run(
        self, target: Target, images: Tensor, classes: Tensor, goals: Tensor | None, streams: Streams, many: int
    ) -> Tensor:
        start = self.threat.random(images, streams.of("start")) if self.random_start else images.clone()
        return self._climb(target, _State(images, classes, goals, streams, start), many)

    def _climb(self, target: Target, state: "_State", many: int) -> Tensor:
        return self._fixed(target, state) if self.control == "fixed" else self._auto(target, state, many)

    def _ascend(self, target: Target, state: "_State", x: Tensor, at: int) -> tuple[Tensor, Tensor, Tensor]:
        """Objective, direction and mean logits at ``x``."""
        noise = state.streams.of("noise") if self.fixed_noise else state.streams.of("noise", at)
        loss, gradient, logits = target.gradient(
            self.surrogate, x, state.classes, noise, objective=self.objective, targets=state.goals, draws=self.eot,
            mean_of=self.mean_of,
        )  # fmt: skip
        return loss, gradient if self.low_frequency is None else low_pass(gradient, self.low_frequency), logits

    def _fixed(self, target: Target, state: "_State") -> Tensor:
        x, velocity = state.start, torch.zeros_like(state.start)
        for at in range(self.steps):
            _, gradient, _ = self._ascend(target, state, x, at)
            if self.decay:
                size = gradient.flatten(1).abs().mean(1).clamp(min=1e-30).view(-1, 1, 1, 1)
                gradient = velocity = self.decay * velocity + gradient / size
            ahead = self.step_size * self.threat.steepest(self.threat.free(gradient, x))
            x = self.threat.project(x + ahead, state.images)
        return x

    def _auto(self, target: Target, state: "_State", many: int) -> Tensor:
        """``many`` runs of each image, one after the other in the batch."""
        climb, result = Climb(self.threat, state.start, self.steps), state.start.clone()
        rows = torch.arange(len(result), device=result.device)
        image = rows % (len(result) // many)
        may_leave = self.surrogate == ANSWER and not target.stochastic
        for at in range(self.steps + 1):
            loss, gradient, logits = self._ascend(target, state, climb.x, at)
            climb.arrive(loss, gradient)
            keep = torch.ones_like(rows, dtype=torch.bool)
            if may_leave and (wrong := answered(logits) != state.classes).any():
                climb.best_x = torch.where(wrong.view(-1, 1, 1, 1), climb.x, climb.best_x)
                keep = ~torch.isin(image, image[wrong]) if self.finalists else ~wrong
            if self.finalists and at == climb.first:
                # No run of an image has left without its others: they still lie one after the other.
                ranks = climb.best.view(many, -1).argsort(dim=0, descending=True, stable=True).argsort(0)
                keep &= (ranks < self.finalists).flatten()
            if not keep.all():
                result[rows] = climb.best_x
                kept = keep.nonzero()[:, 0]
                rows, image, state, climb = rows[kept], image[kept], state.take(kept), climb.take(kept)
                if not len(rows):
                    return result
            if at < self.steps:
                climb.move(state.images, at)
        result[rows] = climb.best_x
        return result


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What stays the same during a run, one row an image."""

    images: Tensor
    classes: Tensor
    goals: Tensor | None
    streams: Streams
    start: Tensor

    def take(self, rows: Tensor) -> "_State":
        goals = None if self.goals is None else self.goals[rows]
        return _State(self.images[rows], self.classes[rows], goals, self.streams.take(rows), self.start[rows])


# -- names the field uses ----------------------------------------------------------------------------------------------


def fgsm(threat: Threat, **settings: object) -> GradientAttack:
    """One step of size eps from the image itself (Goodfellow et al., ICLR 2015)."""
    return _with(GradientAttack(threat=threat, steps=1, step=threat.eps, random_start=False), settings)


def mi_fgsm(threat: Threat, **settings: object) -> GradientAttack:
    """Steps along a decaying sum of gradients (Dong et al., CVPR 2018); 5 steps, decay 1, no random start."""
    return _with(GradientAttack(threat=threat, steps=5, decay=1.0, random_start=False), settings)


def pgd(threat: Threat, **settings: object) -> GradientAttack:
    """Fixed steps from a random start (Madry et al., ICLR 2018); 20 steps of eps / 4."""
    return _with(GradientAttack(threat=threat), settings)


def apgd(threat: Threat, **settings: object) -> GradientAttack:
    """Steps that halve where the objective stalls (Croce and Hein, ICML 2020); 100 steps."""
    return _with(GradientAttack(threat=threat, steps=100, control="auto"), settings)


def _with(attack: GradientAttack, settings: dict[str, object]) -> GradientAttack:
    return replace(attack, **settings)  # type: ignore[arg-type]
