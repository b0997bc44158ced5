"""The paired comparison, beside counts by hand, a sum over binomial coefficients, SciPy's permutation test, and what an
interval promises."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from idc.evaluation.pairing import paired, right_shares, survived


def proportion(right, n):
    return binomtest(right, n).proportion_ci(method="wilson")


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


def test_what_is_shared_out_among_draws_is_counted_by_the_draw():
    lines = [{"id": 7, "robust": [3, 2], "draws": 4}, {"id": 8, "robust": [0, 1], "draws": 4}]
    noisy = right_shares(lines)
    assert noisy == {7: Fraction(3, 4), 8: 0}
    found = paired(noisy, {7: True, 8: False})
    assert (found.only_first, found.only_second, found.difference) == (0, 1, -1 / 8)


@pytest.mark.parametrize("seed", range(4))
def test_p_of_shares_is_that_of_every_exchange_of_signs(seed):
    shares = np.random.default_rng(seed).integers(0, 6, (2, 11))
    one, other = ({i: Fraction(int(k), 5) for i, k in enumerate(side)} for side in shares)
    whole = (shares[0] - shares[1]).astype(float)
    expected = permutation_test((whole,), np.sum, permutation_type="samples", n_resamples=2**11)
    assert paired(one, other).p == pytest.approx(expected.pvalue)


def test_draws_that_vary_like_single_answers_have_their_interval():
    """Each image all right or all wrong in five draws, beside single answers of the same images."""
    sides = [{i: Fraction(bool(i < k)) for i in range(60)} for k in (40, 25)]
    single = paired({i: i < 40 for i in sides[0]}, {i: i < 25 for i in sides[1]})
    assert paired(*sides) == single
    fifth = sides[0] | {60: Fraction(1, 5)}, sides[1] | {60: Fraction(1, 5)}
    assert paired(*fifth).high - paired(*fifth).low == pytest.approx(single.high - single.low, rel=0.05)


def test_draws_of_which_each_image_has_as_many_right_count_by_themselves():
    """Eleven images right in about half of twenty draws beside as many that never are: upwards only the first matters,
    which is as certain as 220 single answers."""
    half = dict.fromkeys(range(10), Fraction(10, 20)) | {10: Fraction(9, 20)}
    found = paired(half, dict.fromkeys(range(11), False))
    assert found.only_first == 11
    assert found.p == pytest.approx(2 / 2**11)
    assert found.high == pytest.approx(proportion(109, 220).high)


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


@pytest.mark.parametrize("images", [32, 100])
@pytest.mark.parametrize(("few", "many"), [(0.4, 0.6), (4, 6), (0.3, 6)])
def test_intervals_of_shares_hold_the_truth(images, few, many):
    """Both models right in a draw with a chance that varies from image to image, alike for both but for a tenth."""
    random = np.random.default_rng(0)
    truth, held = 0.1 * few / (few + many), 0
    for _ in range(400):
        chance = random.beta(few, many, images)
        draws = (random.binomial(20, p) for p in (chance, 0.9 * chance))
        found = paired(*({i: Fraction(int(k), 20) for i, k in enumerate(side)} for side in draws))
        held += found.low <= truth <= found.high
    assert held / 400 > 0.93
