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
        ahead_first, ahead_second: on how many of them one is right in a larger share of its draws than the other; of
            two single answers, how many it alone survives.
        difference: of the mean shares of right draws, first minus second, in [-1, 1]; [low, high] is Newcombe's 95%
            interval of it (method 10; Statistics in Medicine 17, 1998). Shares of draws vary less than single answers:
            their Wilson intervals are of as many single answers as would vary as much (an effective sample size, after
            Korn and Graubard, Survey Methodology 24, 1998).
        p: of a difference at least as large where each image's could as well be the other way round: the exact
            paired permutation test, two-sided (Fisher, The Design of Experiments, 1935); of two single answers,
            McNemar's exact test.
    """

    images: int
    ahead_first: int
    ahead_second: int
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
    sides = [[side[i] for i in common] for side in (first, second)]
    draws = [math.lcm(*(share.denominator for share in side)) for side in sides]
    unit = math.lcm(*draws)
    one, other = (np.array([int(share * unit) for share in side]) for side in sides)
    low, high = _newcombe((one, other), unit, draws)
    return Paired(
        images=len(common),
        ahead_first=int((one > other).sum()),
        ahead_second=int((other > one).sum()),
        difference=int((one - other).sum()) / (unit * len(common)),
        low=low,
        high=high,
        p=_permuted(one - other),
    )


def _permuted(differences: np.ndarray) -> float:
    """The chance that (n,) integers add up to at least as much, either way, when each has a sign by a fair coin."""
    sizes = np.sort(np.abs(differences[differences != 0]))
    sum_ = abs(int(differences.sum()))
    if not sum_:
        return 1.0
    unit = int(np.gcd.reduce(sizes))
    sizes = sizes // unit
    # The sum is the whole less twice that of those with a minus: at least as large where that is at most ``reach``.
    reach = (int(sizes.sum()) - sum_ // unit) // 2
    negative, known = np.zeros(reach + 1), 0
    negative[0] = 1
    for size in sizes:
        known = min(known + int(size), reach)
        part = negative[: known + 1]
        part /= 2
        if size <= reach:
            part[size:] += part[: known + 1 - size].copy()
    return min(1.0, 2 * float(negative.sum()))


def _newcombe(sides: tuple[np.ndarray, np.ndarray], unit: int, draws: Sequence[int]) -> tuple[float, float]:
    """The interval of the difference of the means of two models' (n,) shares of the same images, each k / unit, and so
    many draws an image at most."""
    n = len(sides[0])
    sums, squares = ([int(kind.sum()) for kind in kinds] for kinds in (sides, [side * side for side in sides]))
    product: float = n * int((sides[0] * sides[1]).sum()) - sums[0] * sums[1]
    if product > 0:
        product = max(product - n * unit * unit / 2, 0)  # the continuity correction
    spreads = [n * square - total**2 for total, square in zip(sums, squares, strict=True)]
    phi = product / (math.sqrt(spreads[0]) * math.sqrt(spreads[1])) if all(spreads) else 0.0
    one, other = (_as_single(*about, unit=unit, n=n) for about in zip(sums, squares, draws, strict=True))

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = one.mean - other.mean
    below = reach(one.mean - one.low, other.high - other.mean)
    above = reach(one.high - one.mean, other.mean - other.low)
    return max(-1.0, difference - below), min(1.0, difference + above)


def _as_single(total: int, square: int, draws: int, *, unit: int, n: int) -> Share:
    """The interval of the mean of n shares that are k / unit with these sums of k and k squared, as of the single
    answers that vary as much: from n to n times ``draws``. An image more of each kind, all right and all wrong, keeps
    the variance from vanishing where few draws are right, or few wrong."""
    m, raised = n + 2, total + unit
    ratio = raised * (m * unit - raised) / (m * (square + unit**2) - raised**2)
    return wilson(total / (n * unit), round(n * min(draws, ratio)))
