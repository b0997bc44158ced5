"""Two models on the same images: which of them survives more, and whether that can be told."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest

from idc.evaluation.verdict import wilson


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models on ``images`` images.

    Args:
        images: that both were asked about.
        only_first, only_second: how many of them one survives and the other does not.
        difference: of the shares that they survive, first minus second, in [-1, 1]; [low, high] is Newcombe's 95%
            interval of it (method 10; Statistics in Medicine 17, 1998).
        p: of a difference at least as large where there is none: McNemar's exact test, two-sided.
    """

    images: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float


def survived(lines: Sequence[Mapping[str, Any]]) -> dict[int, bool]:
    """From an evaluation's lines: for each image's id, whether the vote of the draws is right under attack."""
    return {line["id"]: line["robust"][1] == line["class"] for line in lines}


def paired(first: Mapping[int, bool], second: Mapping[int, bool]) -> Paired:
    """Compare what two models survive of the images that both have; the images are the sample, each model is one.

    Args:
        first, second: for each image's id, whether the model survived its attack.

    Raises:
        ValueError: if they have no image in common.
    """
    common = first.keys() & second.keys()
    n = len(common)
    if not n:
        raise ValueError("no image in common")
    both = sum(first[i] and second[i] for i in common)
    only_first, only_second = (sum(a[i] and not b[i] for i in common) for a, b in ((first, second), (second, first)))
    low, high = _newcombe(both, only_first, only_second, n - both - only_first - only_second)
    unequal = only_first + only_second
    return Paired(
        images=n,
        only_first=only_first,
        only_second=only_second,
        difference=(only_first - only_second) / n,
        low=low,
        high=high,
        p=float(binomtest(only_first, unequal).pvalue) if unequal else 1.0,
    )


def _newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """The interval of the difference of two shares of the same images."""
    n = both + only_first + only_second + neither
    one, other = wilson((both + only_first) / n, n), wilson((both + only_second) / n, n)
    product: float = both * neither - only_first * only_second
    if product > 0:
        product = max(product - n / 2, 0)  # the continuity correction
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = product / math.sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = one.mean - other.mean
    below = reach(one.mean - one.low, other.high - other.mean)
    above = reach(one.high - one.mean, other.mean - other.low)
    return max(-1.0, difference - below), min(1.0, difference + above)
