"""Intervals against scipy's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from idc.evaluation.verdict import Judged, judge, plurality, verdict, wilson
from idc.types import NOT_FINITE, answered


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


def test_verdict_by_hand():
    judged = [Judged(4, 1), Judged(3, 0), Judged(1, 2), Judged(0, 1)]
    found = verdict(judged, [1, 0, 0, 0], draws=4)
    assert found.mean.mean == (4 + 3 + 1) / 16
    assert found.majority.mean == 2 / 4
    assert found.worst_of_n.mean == 1 / 4
    assert found.mean.n == 4


def test_a_draw_that_is_no_answer_is_wrong_and_leaves_no_vote():
    """Logits by hand: NaN, or an infinite one among others that are right."""
    good, nan, infinite = [1.0, 0.0, 0.0], [float("nan")] * 3, [float("inf"), 0.0, 0.0]
    logits = torch.tensor([[good, good, nan, infinite], [good, good, nan, good], [good, nan, nan, good]])
    answers = answered(logits)
    assert answers.tolist() == [[0, 0, NOT_FINITE, NOT_FINITE], [0, 0, NOT_FINITE, 0], [0, NOT_FINITE, NOT_FINITE, 0]]
    judged = judge(answers, torch.zeros(4, dtype=torch.int64), 3)
    assert [(one.right, one.vote) for one in judged] == [(3, 0), (2, NOT_FINITE), (0, NOT_FINITE), (2, NOT_FINITE)]
    assert verdict(judged, [0] * 4, draws=3).majority.mean == 1 / 4


def test_plurality_is_the_mode_and_a_tie_is_nobodys():
    answers = torch.tensor([[0, 1, 2], [0, 1, 1], [1, 2, 0], [0, 2, 1]])
    assert plurality(answers, 3).tolist() == [0, -1, 1]
