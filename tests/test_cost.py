"""Counted costs against counts by hand."""

import pytest
import torch
from torch import nn

from idc.attacks.target import Target
from idc.cost import answer_cost, evaluation_cost, forward_flops, gradient_flops, peak_rate
from noise_models import Linear

IMAGE = torch.full((1, 1, 4, 4), 0.5)
COUNTS = {"forward": {}, "backward": {}, "spared": {}, "spared_backward": {}, "images": 10}


def test_flops_of_a_linear_model():
    model = Linear()
    assert forward_flops(model, IMAGE) == 2 * 16 * 4
    assert gradient_flops(model, IMAGE) == 2 * 2 * 16 * 4  # forward, and one product back to the image
    assert gradient_flops(lambda x: model(x.detach()), IMAGE) == 2 * 16 * 4
    cost = answer_cost(model, torch.device("cpu"))
    assert cost == {"parameters": 0, "flops": 128, "evaluations": 1, "stochastic": False, "training": None}


def test_weights_cost_nothing_in_a_gradient_by_the_image():
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Flatten(), nn.Linear(128, 4)).requires_grad_(False)
    forward = 2 * (8 * 9 * 16 + 128 * 4)
    assert forward_flops(network, IMAGE) == forward
    assert gradient_flops(network, IMAGE) == 2 * forward


def test_floor_is_flops_over_rate():
    target = Target.of(Linear())
    cost = evaluation_cost(target, IMAGE, COUNTS | {"forward": {"answer": 30}, "backward": {"answer": 20}}, 5.0)
    assert cost["flops"] == (10 * 128 + 20 * 256) / 10
    assert (cost["forward"], cost["backward"], cost["seconds"]) == ({"answer": 3.0}, {"answer": 2.0}, 0.5)
    assert cost["floor_seconds"] == pytest.approx(cost["flops"] / cost["peak_flops_per_second"])
    assert cost["ratio"] == pytest.approx(0.5 / cost["floor_seconds"])
    assert peak_rate(torch.device("cpu"), size=256, seconds=0.05) > 1e8
