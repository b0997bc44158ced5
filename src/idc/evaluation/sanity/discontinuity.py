"""Checks where an attack along gradients does not look: at the boundary between two answers, and at images in whole
levels, as files hold them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Tally
from idc.evaluation.sanity.bench import Bench, Finding
from idc.noise import Streams
from idc.text import counted, percent

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
        return Finding(name, True, "not asked: the model has noise of its own", remedy)
    start, end, classes, streams = _pairs(bench)
    if not len(start):
        return Finding(name, True, "no two images of different answers", remedy)
    before, after = _bisected(bench, start, end, classes, streams)
    jump = _share(bench, ANSWER, (before, after), start, classes, streams)
    text = f"between {counted(str(len(start)), 'pair')} of images the margin falls by {jump:.2g} of a clean one at once"
    if jump < _JUMP or _is_rounding(bench, before, after, classes, streams):
        return Finding(name, True, text, remedy)
    for other in bench.target.surrogates:
        if _share(bench, other, (before, after), start, classes, streams, largest=True) < _NEAR:
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


def _share(
    bench: Bench, name: str, points: tuple[Tensor, Tensor], start: Tensor, classes: Tensor, streams: Streams, *,
    largest: bool = False,
) -> float:  # fmt: skip
    """The median, as a share of the margin at ``start``, of by how much a function's margin falls from the first of the
    points to the second; or of the ``largest`` of the two without sign."""
    clean, one, other = (_margins(bench, name, x, classes, streams) for x in (start, *points))
    found = torch.maximum(one.abs(), other.abs()) if largest else one - other
    return (found / clean.abs().clamp(min=1e-30)).median().item()


def _is_rounding(bench: Bench, before: Tensor, after: Tensor, classes: Tensor, streams: Streams) -> bool:
    """Whether the fall is that of a few last digits of the logits, which half precision rounds coarsely."""
    logits = torch.nan_to_num(bench.target.logits(ANSWER, before, streams)[0])
    half = torch.equal(logits, logits.bfloat16().to(logits.dtype))
    digit = torch.finfo(torch.bfloat16 if half else torch.float32).eps * logits.abs().amax(1)
    fall = _margins(bench, ANSWER, before, classes, streams) - _margins(bench, ANSWER, after, classes, streams)
    return bool((fall / digit.clamp(min=1e-30)).median() <= _DIGITS)


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
        return Finding(name, True, "not asked: of L-inf alone", remedy)
    x, eps, near = bench.images, bench.threat.eps, 1e-3
    low, high = ((x - eps).clamp(min=0) * _LEVELS - near).ceil(), ((x + eps).clamp(max=1) * _LEVELS + near).floor()
    if bool((low > high).any()):
        return Finding(name, True, "not asked: no whole level within the radius of every pixel", remedy)
    weak = bench.target.function(bench.weak_spot)

    def in_levels(images: Tensor, **draws: Any) -> Tensor:
        return weak(images + ((images * _LEVELS).round() / _LEVELS - images).detach(), **draws)

    target = replace(bench.target, surrogates={"in levels": in_levels}, tally=Tally(), _noisy={})
    found = bench.pgd(surrogate="in levels")(target, x, bench.classes, bench.streams.of("levels"))
    right = bench.right((found * _LEVELS).round().clamp(low, high) / _LEVELS, "levels")
    white, left = bench.white_each, right.mean().item()
    text = f"PGD-20 on images of 8 bits leaves {percent(left)}, the evaluation {percent(bench.white)}"
    more = int(((right < 0.5) & (white > 0.5)).sum())
    if bench.classifier.stochastic:
        return Finding(name, bench.white <= left + bench.margin / 2, text, remedy)
    return Finding(name, more <= 1, f"{text}, of which it breaks {more} more", remedy)
