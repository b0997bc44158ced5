"""What the sanity checks work on: a few images, the model, and attacks on it that several checks share."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idc.attacks.gradient import GradientAttack, pgd
from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.errors import IDCError, lacks_memory
from idc.evaluation.verdict import wilson
from idc.noise import Streams
from idc.storage import records
from idc.storage.fields import recorded
from idc.text import percent
from idc.types import Classifier


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check: ``figure`` says what was measured, ``remedy`` what a failure calls for. Of one that was
    not ``made`` the figure says why; it fails nothing."""

    name: str
    passed: bool
    figure: str
    remedy: str
    made: bool = True


def not_made(name: str, why: str) -> Finding:
    """Of a check that does not apply to the model, the threat or what survived."""
    return Finding(name, True, why, "", made=False)


class Bench:
    """What the checks work on: a few images, the model, and attacks on it that several checks share.

    Args:
        classifier: the model.
        images: (B, C, H, W) in [0, 1]; classes (B,), true.
        streams: of their random numbers.
        threat: of the evaluation.
        robust: by image id, the share of right draws on the worst adversarial example of the evaluation.
        robust_draws: of how many; by default ``draws``.
        draws: of the noise in each judgement.
        eot: draws in each gradient of a stochastic model.
        target: the model as the evaluation's attacks saw it; by default all that it offers.
        untouched: a copy of the model that the evaluation has asked nothing, see ``copied``; by default one of now.
        worst: (<= B, C, H, W), adversarial images that the evaluation found for the first of the images.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
        classes: Tensor,
        streams: Streams,
        threat: Threat,
        *,
        robust: Mapping[int, float] | None = None,
        robust_draws: int | None = None,
        draws: int = 10,
        eot: int = 4,
        target: Target | None = None,
        untouched: Classifier | Exception | None = None,
        worst: Tensor | None = None,
    ) -> None:
        self.classifier, self.images, self.classes, self.streams = classifier, images, classes, streams
        self.threat, self.draws = threat, draws
        self.target = target or Target.of(classifier)
        self.eot = eot if classifier.stochastic else 1
        self.robust, self.robust_draws, self.worst = robust, robust_draws or draws, worst
        self.untouched = copied(classifier) if untouched is None else untouched

    def right(self, x: Tensor, *key: object, rows: Tensor | None = None) -> Tensor:
        """(B,) share of right draws on ``x``, one point an image or one for each of ``rows``, with noise of its own."""
        rows = self.rows if rows is None else rows
        streams = self.streams.of("judge", *key).take(rows)
        return self.target.judge(x, self.classes[rows], streams, draws=self.draws)[0].float().mean(0)

    def accuracy(self, x: Tensor, *key: object) -> float:
        """Its mean."""
        return self.right(x, *key).mean().item()

    def right_after(self, attack: GradientAttack, *key: object, rows: Tensor | None = None) -> Tensor:
        """(B,) share of right draws under ``attack``, of all images or of ``rows``, judged with fresh noise."""
        rows = self.rows if rows is None else rows
        streams = self.streams.of("attack", *key).take(rows)
        return self.right(attack(self.target, self.images[rows], self.classes[rows], streams), *key, rows=rows)

    def after(self, attack: GradientAttack, *key: object) -> float:
        """Accuracy under ``attack``, judged with fresh noise."""
        return self.right_after(attack, *key).mean().item()

    @property
    def rows(self) -> Tensor:
        """(B,) of all images."""
        return torch.arange(len(self.images), device=self.images.device)

    @property
    def margin(self) -> float:
        """Half the width of the interval of a share of so many images, at its widest: what chance may do."""
        return wilson(0.5, len(self.images)).high - 0.5

    @cached_property
    def clean_right(self) -> Tensor:
        """(B,) share of right draws on the images as they are."""
        return self.right(self.images, "clean")

    @cached_property
    def clean(self) -> float:
        return self.clean_right.mean().item()

    @cached_property
    def weak_spot(self) -> str:
        """The function whose gradient hurts the real model most in a short attack."""
        names = [*self.target.surrogates, ANSWER]
        scores = [self.after(self.pgd(surrogate=name, steps=10), "weak", name) for name in names]
        return names[scores.index(min(scores))]

    def pgd(self, **settings: Any) -> GradientAttack:
        """Short PGD along the margin."""
        return pgd(self.threat, **{"objective": Margin(), "eot": self.eot, **settings})

    @property
    def answers(self) -> int:
        """Draws of a clean answer: one where the model draws no noise."""
        return self.draws if self.classifier.stochastic else 1

    @cached_property
    def repeats(self) -> bool:
        """Whether two answers are the same under the same noise: not if it has a generator of its own."""
        x, streams = self.images[:4], self.streams.of("repeats").take(torch.arange(len(self.images[:4])))
        one, other = (self.target.logits(ANSWER, x, streams)[0] for _ in range(2))
        near = 1e-3 * one.std().nan_to_num().item() + 1e-6
        return not self.classifier.stochastic or torch.allclose(one, other, rtol=1e-4, atol=near, equal_nan=True)

    @cached_property
    def plain_each(self) -> Tensor:
        """(B,) share of right draws of each image under PGD-20 at the weak spot."""
        return self.right_after(self.pgd(surrogate=self.weak_spot), "pgd-20")

    @property
    def plain(self) -> float:
        """Its mean."""
        return self.plain_each.mean().item()

    @cached_property
    def long(self) -> float:
        """The same with twice the steps."""
        return self.after(self.pgd(surrogate=self.weak_spot, steps=40), "40")

    @cached_property
    def averaged(self) -> float:
        """Accuracy under PGD-20 along the answer itself, each gradient the mean of ``eot`` fresh draws."""
        return self.after(self.pgd(surrogate=ANSWER), "averaged")

    @cached_property
    def white_each(self) -> Tensor:
        """(B,) share of right draws of each image after the evaluation where there is one, else after PGD-20."""
        if self.robust is None:
            return self.plain_each
        return torch.tensor([self.robust[i] for i in self.streams.ids.tolist()], device=self.images.device)

    def no_weaker_than(self, each: Sequence[Tensor]) -> tuple[bool, str]:
        """Whether the evaluation left no more right than other attacks, of which each one's (B,) shares of right draws
        are given, and in words. Of a deterministic model a single image more is let pass; of a stochastic one, what
        chance may do."""
        left, white = min(right.mean().item() for right in each), self.white_each
        passed = self.white <= left + self.margin / 2
        text = f"{percent(left)}, the evaluation {percent(self.white)}"
        if not self.classifier.stochastic:
            more = int(((torch.stack([*each]).amin(0) < 0.5) & (white > 0.5)).sum())
            passed, text = passed and more <= 1, f"{text}, of which they break {more} more"
        return passed, text

    @property
    def white(self) -> float:
        """Its mean."""
        return self.white_each.mean().item()


def copied(classifier: Classifier) -> Classifier | Exception:
    """A copy to be compared with later, or why there is none; taken before an evaluation's first call, it remembers
    nothing of it. Networks of a compiled classifier are not compiled in the copy, whose code would call the original.
    """
    try:
        copy = deepcopy(classifier)
        for network in copy.networks if copy.compiled else ():
            network.__dict__.pop("forward", None)
    except Exception as error:  # a user's module may refuse in any way
        return error
    return copy


Check = Callable[[Bench], Finding]


def run_checks(
    bench: Bench,
    checks: Sequence[Check],
    *,
    file: Path | None = None,
    advance: Callable[[int], object] = lambda checks: None,
) -> list[Finding]:
    """These checks, in order; one that an error stops has failed.

    Args:
        file: where each finding is kept; checks that it holds are not made again.
        advance: is told of each that is done.
    """
    held = {row.pop("check", ""): row for row in (records.read(file) if file else [])}
    found = []
    for check in checks:
        name = getattr(check, "__name__", str(check))
        finding = Finding(**held[name]) if name in held else _safely(check, bench)
        if file and name not in held:
            records.append(file, [{"check": name} | recorded(finding)])
        found.append(finding)
        advance(1)
    return found


def _safely(check: Check, bench: Bench) -> Finding:
    try:
        return check(bench)
    except (RuntimeError, ValueError, IDCError) as error:
        if lacks_memory(error):
            raise
        name = check.__name__.replace("_", " ")
        return Finding(name, False, f"stopped: {error}", "fix the model so that it takes and returns what it promises")
