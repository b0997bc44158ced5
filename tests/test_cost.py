"""Counted costs against counts by hand."""

import pytest
import torch
from torch import nn

from idc.attacks.target import Target
from idc.cost import (
    answer_cost,
    evaluation_cost,
    forward_flops,
    gradient_flops,
    grey_image,
    latency,
    network_evaluations,
    peak_bytes,
    peak_rates,
)
from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.unet import UNetSpec
from noise_models import Linear
from tiny import tiny_model

CPU = torch.device("cpu")

IMAGE = torch.full((1, 1, 4, 4), 0.5)
COUNTS = {"forward": {}, "backward": {}, "spared": {}, "spared_backward": {}, "images": 10}


def test_flops_of_a_linear_model():
    model = Linear()
    assert forward_flops(model, IMAGE) == 2 * 16 * 4
    assert gradient_flops(model, IMAGE) == 2 * 2 * 16 * 4  # forward, and one product back to the image
    assert gradient_flops(lambda x: model(x.detach()), IMAGE) == 2 * 16 * 4
    cost = answer_cost(model, CPU)
    assert cost == {"parameters": 0, "flops": 128, "network_evaluations": 1, "stochastic": False, "training": None}


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
    rates = peak_rates(CPU, size=256, seconds=0.05)
    assert rates.keys() == {"matmul", "conv"}
    assert min(rates.values()) > 1e7


def test_flops_of_a_residual_block_more():
    """One block more in the encoder (8 to 8 channels) and one in the decoder (8 and a skip of 8 to 8), by hand."""

    def flops(blocks: int) -> int:
        spec = UNetSpec(8, (1,), res_blocks=blocks, groups=4, head_channels=8)
        return answer_cost(IDC(IDCConfig(4, (1, 8, 8), spec, visits=(3,))), CPU)["flops"]

    def conv(channels: int, size: int) -> int:
        return 2 * 8 * 8 * channels * 8 * size**2

    scale_and_shift = 2 * 32 * 16
    down = 2 * conv(8, 3) + scale_and_shift
    up = conv(16, 3) + conv(8, 3) + conv(16, 1) + scale_and_shift
    assert flops(2) - flops(1) == down + up


# The second visit to 1 would give the same again.
@pytest.mark.parametrize(("visits", "count"), [((3, 1, 0), 3), ((3, 1, 1, 0), 3), ((3,), 1)])
def test_network_evaluations_are_counted_as_they_run(visits, count):
    model = tiny_model().with_answer(visits=visits)
    assert network_evaluations(model, grey_image(model, CPU)) == count


def test_peak_memory_of_known_allocations():
    def work():
        a = torch.zeros(1000, 1000)
        b = torch.zeros(500, 1000)
        del a
        c = torch.zeros(200, 1000)
        return b, c

    assert peak_bytes(work, CPU) == pytest.approx(4 * 1_500_000, rel=0.01)


def test_latency_is_the_median_once_warm(monkeypatch):
    took = [9.0, 1.0, 5.0, 3.0]  # the first warms up
    clock = iter([moment for seconds in took for moment in (0.0, seconds)])
    monkeypatch.setattr("idc.cost.time.perf_counter", lambda: next(clock))
    assert latency(lambda: None, CPU, repeats=3) == 3.0
