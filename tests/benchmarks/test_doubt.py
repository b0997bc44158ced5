"""Risk over coverage and what is made of doubts, by the definition written out."""

import doubt
import pytest
import torch


def test_the_area_is_the_mean_risk_over_every_coverage():
    far, wrong = torch.tensor([0.3, 0.1, 0.4, 0.2]), torch.tensor([True, False, False, True])
    risks = [0 / 1, 1 / 2, 2 / 3, 2 / 4]  # of the k least doubted
    assert doubt.area_of_risk(far, wrong) == pytest.approx(sum(risks) / 4)
    assert doubt.area_of_risk(far, far > 1) == 0


def test_what_is_told_apart_and_what_slips_through():
    known, far = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.25, 0.4])
    found = doubt.measured(known, far, torch.zeros(3, dtype=torch.bool), torch.tensor([True, True]), 0.3)
    assert found["auroc"] == pytest.approx(5 / 6)  # pairs in the right order
    assert (found["refused"], found["wrong_accepted"]) == (0.5, 0.5)


def test_the_adaptive_attack_raises_a_wrong_class_alone():
    logits = torch.tensor([[5.0, 1.0, 2.0]], requires_grad=True)
    doubt.Near(probabilities=False)(logits, torch.tensor([0])).sum().backward()
    assert logits.grad.tolist() == [[0, 0, 1]]
