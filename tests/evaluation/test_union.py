"""The union of norms: an image survives only where it survives all."""

import pytest

from idc.evaluation.union import union
from idc.evaluation.verdict import wilson


def lines(*pairs: tuple[int, int], draws: int = 4) -> list[dict]:
    """Of images of class 1: right draws, and the vote."""
    return [{"id": i, "class": 1, "draws": draws, "robust": list(pair)} for i, pair in enumerate(pairs)]


def test_an_image_counts_by_its_worst_norm():
    found = union([lines((4, 1), (3, 1), (4, 1), (0, 0)), lines((4, 1), (1, 2), (3, 1), (4, 1))])
    assert found["mean"]["mean"] == (4 + 1 + 3 + 0) / 16
    assert found["majority"]["mean"] == 2 / 4
    assert found["worst_of_n"]["mean"] == 1 / 4
    assert (found["mean"]["low"], found["mean"]["high"]) == (wilson(0.5, 4).low, wilson(0.5, 4).high)


def test_of_one_norm_it_is_that():
    own = union([lines((4, 1), (1, 2))])
    assert (own["mean"]["mean"], own["majority"]["mean"], own["worst_of_n"]["mean"]) == (5 / 8, 1 / 2, 1 / 2)


@pytest.mark.parametrize("other", [lines((4, 1)), lines((4, 1), (4, 1), draws=5)])
def test_other_images_or_draws_are_no_union(other):
    with pytest.raises(ValueError, match="other images or draws"):
        union([lines((4, 1), (4, 1)), other])
