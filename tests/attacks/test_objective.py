"""Objectives against their formulas, and the invariances that they are chosen for."""

import pytest
import torch

from idc.attacks.objective import DLR, CrossEntropy, Margin, likely_targets

LOGITS = torch.tensor([[3.0, 1.0, 0.5, -2.0], [0.0, 2.0, 5.0, 1.0]])
CLASSES = torch.tensor([0, 1])
TARGETS = torch.tensor([1, 3])


def test_values_by_hand():
    assert Margin()(LOGITS, CLASSES).tolist() == [-2.0, 3.0]
    assert Margin()(LOGITS, CLASSES, TARGETS).tolist() == [-2.0, -1.0]
    assert DLR()(LOGITS, CLASSES).tolist() == pytest.approx([-2 / 2.5, 3 / 4])
    assert DLR()(LOGITS, CLASSES, TARGETS).tolist() == pytest.approx([-2 / (3 + 0.75), -1 / (5 - 0.5)])
    probability = LOGITS.softmax(1)
    assert CrossEntropy()(LOGITS, CLASSES).tolist() == pytest.approx([-probability[0, 0].log().item(),
                                                                      -probability[1, 1].log().item()])  # fmt: skip
    assert CrossEntropy()(LOGITS, CLASSES, TARGETS)[0].item() == pytest.approx(probability[0, 1].log().item())


def test_dlr_is_unchanged_by_scale_and_shift():
    for targets in (None, TARGETS):
        value = DLR()(LOGITS, CLASSES, targets)
        torch.testing.assert_close(DLR()(1e4 * LOGITS - 7, CLASSES, targets), value)


def test_two_classes_have_the_margin_for_dlr():
    logits = LOGITS[:, :2]
    assert torch.equal(DLR()(logits, CLASSES), Margin()(logits, CLASSES))


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_still_have_a_gradient(classes):
    logits = LOGITS[:, :classes].clone().requires_grad_()
    for targets in (None, torch.tensor([1, 0])):
        (gradient,) = torch.autograd.grad(DLR()(logits, CLASSES, targets).sum(), logits)
        assert torch.isfinite(gradient).all()
        assert (gradient.abs().sum(1) > 0).all()


def test_likely_targets_leave_the_true_class_out():
    assert likely_targets(LOGITS, CLASSES, 2).T.tolist() == [[1, 2], [2, 3]]
    assert likely_targets(LOGITS, CLASSES, 9).shape == (3, 2)
