"""Intervals against scipy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from idc.evaluation.verdict import wilson


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_scipys(counts):
    right, n = counts
    share = wilson(right / n, n)
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert 0 <= share.low <= share.mean <= share.high <= 1 or share.mean in (0, 1)


def test_no_images_say_nothing():
    assert (wilson(0.0, 0).low, wilson(0.0, 0).high) == (0, 1)


def test_text_gives_the_interval():
    assert str(wilson(0.5, 100)) == "50.0% [40.4%, 59.6%]"
