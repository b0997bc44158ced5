"""Two models on the same images: which of them survives more, and whether that can be told."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from idc.evaluation.verdict import Share, wilson


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models on ``images`` images.

    Args:
        images: that both were asked about.
        only_first, only_second: on how many of them one is right in more draws than the other; of two single answers,
            how many it alone survives.
        difference: of the mean shares of right draws, first minus second, in [-1, 1]; [low, high] is Newcombe's 95%
            interval of it (method 10; Statistics in Medicine 17, 1998), of shares from Wilson intervals of the images
            that single answers of the same variance would take (Korn and Graubard, Survey Methodology 24, 1998).
        p: of a difference at least as large where each image's could as well be the other way round: the exact
            paired permutation test, two-sided (Fisher, The Design of Experiments, 1935); of two single answers,
            McNemar's exact test.
    """

    images: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float


def right_shares(lines: Sequence[Mapping[str, Any]]) -> dict[int, Fraction]:
    """From an evaluation's lines: for each image's id, the share of the draws that are right under attack."""
    return {line["id"]: Fraction(line["robust"][0], line["draws"]) for line in lines}


def survived(lines: Sequence[Mapping[str, Any]]) -> dict[int, bool]:
    """From an evaluation's lines: for each image's id, whether the vote of the draws is right under attack."""
    return {line["id"]: line["robust"][1] == line["class"] for line in lines}


def paired(first: Mapping[int, Fraction | int], second: Mapping[int, Fraction | int]) -> Paired:
    """Compare what two models survive of the images that both have; the images are the sample, each model is one.

    Args:
        first, second: for each image's id, the share of its draws that are right under attack, in [0, 1]; of a single
            answer, whether it is.

    Raises:
        ValueError: if they have no image in common.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise ValueError("no image in common")
    unit = math.lcm(*(side[i].denominator for i in common for side in (first, second)))
    one, other = (np.array([int(side[i] * unit) for i in common]) for side in (first, second))
    low, high = _newcombe(one, other, unit)
    return Paired(
        images=len(common),
        only_first=int((one > other).sum()),
        only_second=int((other > one).sum()),
        difference=int((one - other).sum()) / (unit * len(common)),
        low=low,
        high=high,
        p=_permuted(one - other),
    )


def _permuted(differences: np.ndarray) -> float:
    """The chance that (n,) integers add up to at least as much, either way, when each has a sign by a fair coin."""
    sizes = np.abs(differences[differences != 0])
    whole = int(sizes.sum())
    negative = np.zeros(whole + 1)  # the distribution of the sum of those with a minus
    negative[0] = 1
    for size in sizes:
        negative /= 2
        negative[size:] += negative[:-size].copy()
    extreme = np.abs(whole - 2 * np.arange(whole + 1)) >= abs(int(differences.sum()))
    return min(1.0, float(negative[extreme].sum()))


def _newcombe(first: np.ndarray, second: np.ndarray, unit: int) -> tuple[float, float]:
    """The interval of the difference of the means of (n,) shares of the same images, in ``unit`` parts each."""
    n = len(first)
    spreads = [n * int((side * side).sum()) - int(side.sum()) ** 2 for side in (first, second)]
    product: float = n * int((first * second).sum()) - int(first.sum()) * int(second.sum())
    if product > 0:
        product = max(product - n * unit * unit / 2, 0)  # the continuity correction
    phi = product / (math.sqrt(spreads[0]) * math.sqrt(spreads[1])) if all(spreads) else 0.0
    one, other = (
        _as_single(int(side.sum()), spread, n, unit) for side, spread in zip((first, second), spreads, strict=True)
    )

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = one.mean - other.mean
    below = reach(one.mean - one.low, other.high - other.mean)
    above = reach(one.high - one.mean, other.mean - other.low)
    return max(-1.0, difference - below), min(1.0, difference + above)


def _as_single(total: int, spread: int, n: int, unit: int) -> Share:
    """The interval of a mean share of n images, as of the single answers that would vary as much: n of them to n times
    ``unit``, which is every draw by itself."""
    binomial = total * (n * unit - total)
    return wilson(total / (n * unit), round(n * min(unit, binomial / spread if spread else unit)) if binomial else n)
