"""Checks of the gradients that an attack follows: that there are any, the same each time, and those of the answer."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from idc.attacks.objective import Margin, Objective
from idc.attacks.target import ANSWER
from idc.evaluation.inside import WHOLE
from idc.evaluation.sanity.bench import Bench, Check, Finding
from idc.evaluation.verdict import wilson
from idc.text import percent

_TINY = 1e-6  # of the logits' spread: what a step of the attack's size has to move a margin by, in float32
_DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}  # norms that say how far a step of a threat's size goes
_SAME = 0.9  # cosine of two gradients of the same answer


def _gradient(bench: Bench, name: str, objective: Objective, key: str = "gradient") -> tuple[Tensor, Tensor]:
    """(B, N) gradients, and (B, K) logits."""
    _, gradient, logits = bench.target.gradient(
        name, bench.images, bench.classes, bench.streams.of(key), objective=objective, draws=bench.eot
    )
    return gradient.flatten(1), logits


def gradients_useful(bench: Bench, along: Iterable[tuple[str, Objective]] = ()) -> Finding:
    """An attack without a gradient has attacked nothing. Judged on the images that are right without an attack, if
    there are any: of an image whose class is the third, DLR has none, and none is needed. A gradient counts as 0 where
    it moves the margin by less than float32 tells, and one that is another each time, of a function without
    noise, is none either.

    Args:
        along: functions and what was raised of them, of which the best counts; by default the margin at the weak spot.
    """
    found: dict[str, float] = {}
    open_to_it = rows if (rows := bench.clean_right > 0).any() else torch.ones_like(rows)
    for name, objective in along or [(bench.weak_spot, Margin())]:
        gradient, logits = _gradient(bench, name, objective)
        least = _TINY * logits.std().nan_to_num().item() if isinstance(objective, Margin) else 0.0
        gain = bench.threat.eps * torch.linalg.vector_norm(gradient, _DUAL[bench.threat.norm], dim=1)
        good = _present(gradient) & ((gain > least) | (bench.threat.eps == 0))
        if not bench.target.noisy(name, bench.images[:1]):
            again, _ = _gradient(bench, name, objective, "gradient again")
            good &= F.cosine_similarity(_scaled(gradient), _scaled(again)) > _SAME
        found[name] = max(good[open_to_it].float().mean().item(), found.get(name, 0.0))
    best = max(found, key=lambda name: found[name])
    useful, text = found[best], f"finite, not 0 and the same each time for {percent(found[best])} of images ({best})"
    remedy = "give a surrogate without the step that has no gradient (quantiser, clamp, detach, dropout)"
    return Finding("gradients finite and not 0", useful >= 0.9, text, remedy)


def gradients_along(along: Iterable[tuple[str, Objective]]) -> Check:
    """``gradients_useful`` along these."""
    followed = list(along)

    def gradients_followed(bench: Bench) -> Finding:
        return gradients_useful(bench, followed)

    return gradients_followed


def _scaled(gradient: Tensor) -> Tensor:
    """Its direction, of however small a one."""
    found = gradient.double()
    return found / found.abs().amax(1, keepdim=True).clamp(min=1e-300)


def _present(gradient: Tensor) -> Tensor:
    """(B,) whether it is finite and not 0."""
    return torch.isfinite(gradient).all(1) & (gradient != 0).any(1)


def _share(rows: Tensor) -> float:
    return rows.float().mean().item()


def _turned(rises: Tensor, moved: Tensor, random: Tensor) -> bool:
    """Whether fewer images rise than under noise, of those that have a gradient (B,): by more than chance may do."""
    count = int(moved.sum())
    return count > 0 and _share(rises[moved]) < _share(random[moved]) - 2 * (wilson(0.5, count).high - 0.5)


def answer_follows_gradient(bench: Bench) -> Finding:
    """A small step along the gradient raises the real answer's objective for most images; along the answer's own, as
    it is or with nothing detached, it does not do so for fewer than a random one does: that has been turned around."""
    small = replace(bench.threat, eps=max(bench.threat.eps / 4, 1e-4))
    streams = bench.streams.of("rise")

    def objective(x: Tensor) -> Tensor:
        return -bench.target.judge(x, bench.classes, streams, draws=4 * bench.eot)[1]

    start = objective(bench.images)

    def rising(name: str) -> tuple[Tensor, Tensor]:
        """(B,) whether it rises, and whether there is a gradient."""
        gradient = _gradient(bench, name, Margin())[0]
        step = small.eps * small.steepest(gradient.view_as(bench.images))
        along = small.project(bench.images + step, bench.images)
        return objective(along) > start, _present(gradient)

    rises = _share(rising(bench.weak_spot)[0])
    random = objective(small.random(bench.images, streams)) > start
    text = f"rises for {percent(rises)} of images along the gradient, for {percent(_share(random))} along noise"
    known = [name for name in (ANSWER, WHOLE.name) if name in (ANSWER, *bench.target.surrogates)]
    own = [] if bench.weak_spot in known else [rising(name) for name in known]
    if turned := bool(own) and all(_turned(*found, random) for found in own):
        text = f"{text}, for {percent(max(_share(rose) for rose, _ in own))} along the answer's own"
    remedy = "the gradient is not that of the answer: give a surrogate that follows it"
    return Finding("loss along the gradient rises", rises >= 0.75 and not turned, text, remedy)
