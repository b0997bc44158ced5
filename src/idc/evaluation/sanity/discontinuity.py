"""Checks where an attack along gradients does not look: at the boundary between two answers, and at images in whole
levels, as files hold them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Tally
from idc.evaluation.sanity.bench import Bench, Finding, not_made
from idc.noise import Streams
from idc.text import counted
from idc.types import straight_through

_PAIRS, _HALVINGS = 16, 22  # 2^-22 of the way between two images: the last bits of float32
_JUMP, _NEAR = 1.0, 0.25  # of a clean margin: what no rounding makes, and what is near a boundary
_DIGITS = 4  # last digits of a logit
_LEVELS = 255


def margin_continuous(bench: Bench) -> Finding:
    """On the way from an image to one of another answer, the margin goes through 0 and does not jump over it.

    Where the largest logit changes by a jump (a one-hot vector on top of smooth scores, say), the gradient is that of
    the scores, which know nothing of the boundary. Found by halving the way, under one draw of noise. A jump is let
    pass if a function that the attacks follow, a network inside the model say, has its boundary there too.
    """
    name = "the margin does not jump at the boundary"
    remedy = "give a surrogate whose largest value changes where the answer's does, and no decoy"
    if not bench.repeats:
        return not_made(name, "the model has noise of its own")
    start, end, classes, streams = _pairs(bench)
    if not len(start):
        return not_made(name, "no two images of different answers")
    points = (start, *_bisected(bench, start, end, classes, streams))

    def margins(function: str) -> list[Tensor]:
        return [_margins(bench, function, x, classes, streams) for x in points]

    clean, before, after = margins(ANSWER)
    jump = _median(before - after, clean)
    text = f"between {counted(str(len(start)), 'pair')} of images the margin falls by {jump:.2g} of a clean one at once"
    if jump < _JUMP or _median(before - after, _last_digit(bench, points[1], streams)) <= _DIGITS:
        return Finding(name, True, text, remedy)
    for other in bench.target.surrogates:
        clean, before, after = margins(other)
        if _median(torch.maximum(before.abs(), after.abs()), clean) < _NEAR:
            return Finding(name, True, f"{text}, where {other} is at its boundary", remedy)
    return Finding(name, False, text, remedy)


def _pairs(bench: Bench) -> tuple[Tensor, Tensor, Tensor, Streams]:
    """Images, for each another one of another answer, its own answer, and the streams of its noise."""
    streams = bench.streams.of("boundary")
    answers = bench.target.logits(ANSWER, bench.images, streams)[0].argmax(1)
    rows = torch.arange(len(answers), device=answers.device)
    pairs = [(i, j) for i in rows.tolist() for j in rows.roll(-1 - i).tolist()[:4] if answers[i] != answers[j]][:_PAIRS]
    one, other = torch.tensor(pairs, dtype=torch.int64, device=answers.device).view(-1, 2).unbind(1)
    return bench.images[one], bench.images[other], answers[one], streams.take(one)


def _bisected(bench: Bench, start: Tensor, end: Tensor, classes: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
    """Points of each way, as near as can be: the one still of its answer, the other not."""
    low, high = torch.zeros(len(start), device=start.device), torch.ones(len(start), device=start.device)

    def at(share: Tensor) -> Tensor:
        return torch.lerp(start, end, share.view(-1, 1, 1, 1))

    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        held = _margins(bench, ANSWER, at(middle), classes, streams) > 0
        low, high = torch.where(held, middle, low), torch.where(held, high, middle)
    return at(low), at(high)


def _median(values: Tensor, unit: Tensor) -> float:
    return (values / unit.abs().clamp(min=1e-30)).median().item()


def _last_digit(bench: Bench, x: Tensor, streams: Streams) -> Tensor:
    """(B,) what the last digit of the largest logit is worth; coarse where they are rounded to half precision."""
    logits = torch.nan_to_num(bench.target.logits(ANSWER, x, streams)[0])
    half = torch.equal(logits, logits.bfloat16().to(logits.dtype))
    return torch.finfo(torch.bfloat16 if half else torch.float32).eps * logits.abs().amax(1)


def _margins(bench: Bench, name: str, x: Tensor, classes: Tensor, streams: Streams) -> Tensor:
    return -Margin()(torch.nan_to_num(bench.target.logits(name, x, streams)[0]), classes)


def whole_levels_hurt_no_more(bench: Bench) -> Finding:
    """Adversarial images in whole levels (k / 255), as files hold them, hurt no more than the evaluation's.

    Rounding an adversarial image tells little of a model that knows such images from others: here PGD's every step is
    rounded, and the gradient passes straight through (Bengio et al., 2013).
    """
    name = "images of 8 bits hurt no more"
    remedy = "answer images in whole levels by the same rules as all others"
    if bench.threat.norm != "linf":
        return not_made(name, "made in L-inf alone")
    x, eps, near = bench.images, bench.threat.eps, 1e-3
    low, high = ((x - eps).clamp(min=0) * _LEVELS - near).ceil(), ((x + eps).clamp(max=1) * _LEVELS + near).floor()
    if bool((low > high).any()):
        return not_made(name, "no whole level within the radius of every pixel")
    weak = bench.target.function(bench.weak_spot)
    rounded = straight_through(lambda images: (images * _LEVELS).round() / _LEVELS, lambda images: images)

    def in_levels(images: Tensor, **draws: Any) -> Tensor:
        return weak(rounded(images), **draws)

    target = replace(bench.target.with_surrogates({"in levels": in_levels}), tally=Tally())
    found = bench.pgd(surrogate="in levels")(target, x, bench.classes, bench.streams.of("levels"))
    right = bench.right((found * _LEVELS).round().clamp(low, high) / _LEVELS, "levels")
    passed, text = bench.no_weaker_than([right])
    return Finding(name, passed, f"PGD-20 on images of 8 bits leaves {text}", remedy)
