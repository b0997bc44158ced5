"""The paired comparison, beside counts by hand, a sum over binomial coefficients, and what an interval promises."""

import math

import numpy as np
import pytest

from idc.evaluation.pairing import paired, survived


def models(both, only_first, only_second, neither):
    kinds = [(True, True)] * both + [(True, False)] * only_first + [(False, True)] * only_second
    kinds += [(False, False)] * neither
    return tuple(dict(enumerate(side)) for side in zip(*kinds, strict=True))


def test_it_counts_the_images_that_both_have():
    first, second = {1: True, 2: True, 3: False, 4: True}, {2: False, 3: True, 4: False, 9: True}
    found = paired(first, second)
    assert (found.images, found.only_first, found.only_second) == (3, 2, 1)
    assert found.difference == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="no image in common"):
        paired({1: True}, {2: True})


def test_the_vote_decides():
    lines = [{"id": 7, "class": 2, "robust": [3, 2]}, {"id": 8, "class": 2, "robust": [9, 1]}]
    assert survived(lines) == {7: True, 8: False}


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (3, 9), (37, 35), (10, 10)])
def test_p_is_the_chance_of_a_split_at_least_as_uneven(b, c):
    n = b + c
    tail = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(b - c)) / 2**n
    assert paired(*models(50, b, c, 20)).p == pytest.approx(tail)


def test_another_implementation_of_the_interval():
    """200 pairs, of which a public code of Newcombe's paired interval reports these limits."""
    found = paired(*models(89, 82, 21, 8))
    assert (found.low, found.high) == pytest.approx((0.2118, 0.3911), abs=5e-5)


def test_the_interval_turns_around_with_the_models():
    one, other = paired(*models(30, 9, 4, 17)), paired(*models(30, 4, 9, 17))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


@pytest.mark.parametrize("shares", [(0.35, 0.04, 0.04, 0.57), (0.8, 0.1, 0.02, 0.08), (0.1, 0.3, 0.3, 0.3)])
def test_nineteen_in_twenty_intervals_hold_the_truth(shares):
    tables = np.random.default_rng(0).multinomial(200, shares, size=2000)
    found = [paired(*models(*table)) for table in np.unique(tables, axis=0)]
    weights = np.unique(tables, axis=0, return_counts=True)[1]
    held = [f.low <= shares[1] - shares[2] <= f.high for f in found]
    assert 0.93 < np.average(held, weights=weights) < 0.985
