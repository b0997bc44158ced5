"""Soft targets against torch's own label smoothing, and one by one."""

import pytest
import torch
from torch.nn import functional as F

from idc.data.mixing import Mixed
from idc.errors import IDCError
from idc.training.recipe import CNNRecipe, Recipe
from idc.training.targets import targets

CLASSES = torch.tensor([2, 0, 4, 1])
LOGITS = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


def test_plain_classes_stay_as_they_are():
    assert targets(CLASSES, 5).answer is CLASSES


@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_smoothed_labels_are_torchs(smoothing):
    found = F.cross_entropy(LOGITS, targets(CLASSES, 5, smoothing=smoothing).answer)
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, CLASSES, label_smoothing=smoothing))


def test_mixed_and_smoothed_shares_one_by_one():
    share = torch.tensor([1.0, 0.25, 0.5, 0.0])
    made = targets(CLASSES, 5, mixed=Mixed(LOGITS, CLASSES, CLASSES.roll(1), share), smoothing=0.1)
    for row, (own, other, part) in enumerate(zip(CLASSES.tolist(), CLASSES.roll(1).tolist(), share, strict=True)):
        expected = torch.full((5,), 0.02)
        expected[own] += 0.9 * part
        expected[other] += 0.9 * (1 - part)
        torch.testing.assert_close(made.answer[row], expected)
    assert [weights.tolist() for _, weights in made.each()] == [share.tolist(), (1 - share).tolist()]


def test_labels_are_smoothed_where_there_is_a_cross_entropy():
    with pytest.raises(IDCError, match=r"label_smoothing = 0.1 with ce_weight"):
        Recipe(label_smoothing=0.1)
    assert Recipe(label_smoothing=0.1, ce_weight=1.0).label_smoothing == CNNRecipe(label_smoothing=0.1).label_smoothing
