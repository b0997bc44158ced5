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


def models(both, ahead_first, ahead_second, neither):
    kinds = [(True, True)] * both + [(True, False)] * ahead_first + [(False, True)] * ahead_second
    kinds += [(False, False)] * neither
    return tuple(dict(enumerate(side)) for side in zip(*kinds, strict=True))


def test_it_counts_the_images_that_both_have():
    first, second = {1: True, 2: True, 3: False, 4: True}, {2: False, 3: True, 4: False, 9: True}
    found = paired(first, second)
    assert (found.images, found.ahead_first, found.ahead_second) == (3, 2, 1)
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
    assert (found.ahead_first, found.ahead_second, found.difference) == (0, 1, -1 / 8)


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


def test_a_right_draw_does_not_make_it_surer():
    """Nothing right in any draw, and then one, two, three draws of 640: what may be true does not shrink."""
    none, before = dict.fromkeys(range(32), False), None
    for right in range(4):
        found = paired({i: Fraction(right if i == 0 else 0, 20) for i in range(32)}, none)
        assert before is None or found.high > 0.97 * before
        before = found.high


def test_the_draws_of_one_model_do_not_make_the_other_surer():
    """Two draws with one right of each image, beside a model that is always wrong, asked once or twenty times."""
    half = dict.fromkeys(range(32), Fraction(1, 2))
    once, often = ({i: Fraction(i == 0, draws) for i in range(32)} for draws in (1, 20))
    found = paired(half, often)
    assert found.high <= proportion(32, 64).high + 1e-9
    assert found.high == pytest.approx(paired(half, once | {0: 0}).high, abs=0.02)


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


@pytest.mark.parametrize(
    ("chances", "share", "other"),
    [((1, 0.003), 0.03, False), ((1, 0.01), 0.03, False), ((1, 0.01), 0.01, False), ((0, 0.995), 0.03, True)],
)
def test_intervals_hold_the_truth_where_few_draws_are_right_or_few_wrong(chances, share, other):
    """A share of the images always right and the others in few draws, beside a model that is never right; and the
    opposite."""
    random, held, weights = np.random.default_rng(0), 0, (share, 1 - share)
    truth = float(np.dot(chances, weights)) - other
    for _ in range(400):
        draws = random.binomial(20, random.choice(chances, size=32, p=weights))
        found = paired({i: Fraction(int(k), 20) for i, k in enumerate(draws)}, dict.fromkeys(range(32), other))
        held += found.low <= truth <= found.high
    assert held / 400 > 0.93


def test_p_takes_no_account_of_how_finely_a_share_is_counted():
    coarse = paired({i: i % 3 > 0 for i in range(30)}, {i: i % 5 == 0 for i in range(30)})
    fine = paired({i: Fraction(20 * (i % 3 > 0), 20) for i in range(30)}, {i: i % 5 == 0 for i in range(30)})
    assert coarse == fine
    assert coarse.p == pytest.approx(binomtest(coarse.ahead_first, coarse.ahead_first + coarse.ahead_second).pvalue)
