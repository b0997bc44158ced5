"""TRADES and MART against their definitions, and the authors' own form of MART, written out image by image."""

import math

import pytest
import torch
from torch.nn import functional as F

from idc.training.robust_losses import classify, mart, trades
from idc.training.targets import targets

CLEAN, ATTACKED = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.tensor([0, 3, 1, 4, 2, 2])


def divergence_of(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def probabilities():
    return CLEAN.softmax(1).tolist(), ATTACKED.softmax(1).tolist(), CLASSES.tolist()


def test_trades_image_by_image():
    each = [
        -math.log(p[c]) + 6 * divergence_of(p, q) for p, q, c in zip(*probabilities(), strict=True)
    ]  # fmt: skip
    assert trades(CLEAN, ATTACKED, CLASSES, 6.0)["total"].item() == pytest.approx(sum(each) / 6)


def test_mart_image_by_image():
    each = []
    for p, q, c in zip(*probabilities(), strict=True):
        boosted = -math.log(q[c]) - math.log(1 - max(v for k, v in enumerate(q) if k != c))
        each.append(boosted + 5 * divergence_of(p, q) * (1 - p[c]))
    assert mart(CLEAN, ATTACKED, CLASSES, 5.0)["total"].item() == pytest.approx(sum(each) / 6)


def test_mart_is_the_authors_up_to_the_constants_in_their_logarithms():
    """As published with the paper (YisenWang/MART), in other words."""
    q = ATTACKED.softmax(1)
    order = q.argsort(1)
    wrong = torch.where(order[:, -1] == CLASSES, order[:, -2], order[:, -1])
    boosted = F.cross_entropy(ATTACKED, CLASSES) + F.nll_loss((1.0001 - q).log(), wrong)
    away = F.kl_div(q.log(), CLEAN.softmax(1), reduction="none").sum(1)
    weight = 1 - CLEAN.softmax(1).gather(1, CLASSES[:, None]).squeeze(1)
    expected = boosted + 6 * (away * weight).mean()
    torch.testing.assert_close(mart(CLEAN, ATTACKED, CLASSES, 6.0)["total"], expected, rtol=0, atol=5e-4)


def test_mart_has_a_gradient_where_a_wrong_class_is_all_but_certain():
    logits = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)
    terms = mart(torch.zeros(1, 3), logits, torch.tensor([0]), 6.0)
    terms["total"].backward()
    assert torch.isfinite(terms["total"])
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] > 0


def test_logits_of_one_copy_are_classified_by_the_cross_entropy():
    made = targets(CLASSES, 5, smoothing=0.1)
    for method in ("pgd-at", "trades", "mart"):
        found = classify(CLEAN, made, method, 6.0)
        torch.testing.assert_close(found["total"], F.cross_entropy(CLEAN, CLASSES, label_smoothing=0.1).double())
