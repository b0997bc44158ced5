"""Soft targets against torch's own label smoothing, and one by one."""

import pytest
import torch
from torch.nn import functional as F

from idc.data.mixing import Mixed
from idc.errors import IDCError
from idc.training.recipe import CNNRecipe, Recipe
from idc.training.settings import override
from idc.training.targets import annealed, rectified, targets

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


def test_rectified_labels_one_by_one():
    """One image that the network knows, one where it errs a little, and one where it errs so much that it is not
    believed (the authors' interpolation, clipped to [0, 1])."""
    found = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.0, 0.01, 0.99]])
    classes = torch.tensor([0, 0, 1])
    made = rectified(classes, found, 0.8)
    for row, own in enumerate((0.8, 0.8 - 0.2, 0.0)):
        expected = own * found[row] + (1 - own) * F.one_hot(classes[row], 3)
        torch.testing.assert_close(made[row], expected)
    torch.testing.assert_close(rectified(F.one_hot(classes, 3).float(), found, 0.8), made)


def test_half_a_cosine():
    assert [annealed((0.7, 0.95), done) for done in (0.0, 0.5, 1.0)] == pytest.approx([0.7, 0.825, 0.95])
    assert annealed((2.0, 1.0), 0.25) == pytest.approx(1.5 + 0.5 * 2**-0.5)


def test_labels_are_smoothed_where_there_is_a_cross_entropy():
    with pytest.raises(IDCError, match=r"label_smoothing = 0.1 with ce_weight"):
        Recipe(label_smoothing=0.1)
    with pytest.raises(IDCError, match="rectify with ema_decay = 0"):
        CNNRecipe(rectify=(0.7, 0.95), ema_decay=0.0)
    assert override(CNNRecipe(), {"rectify": "0.7,0.95"}).rectify == (0.7, 0.95)
    assert Recipe(label_smoothing=0.1, ce_weight=1.0).label_smoothing == CNNRecipe(label_smoothing=0.1).label_smoothing
