"""Costs against counts made by hand."""

import pytest
import torch

from idc.commands import profile as profiling
from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.presets import PRESETS
from idc.method.unet import UNetSpec
from tiny import tiny_model


def test_pruning_table_has_the_published_parameter_counts():
    rows = {r["preset"]: r for r in profiling.pruning_table()}
    assert rows["paper-cifar10"]["parameters"] == 9_393_475
    assert rows["paper-cifar100"]["parameters"] == 42_843_971
    assert rows["paper-cifar10"]["flops_per_pass"] / 1e9 == pytest.approx(6.84, abs=0.005)
    assert rows.keys() == PRESETS.keys()  # idc train --help sends its readers there


def test_flops_of_a_residual_block_more():
    """One block more on the way down (8 to 8 channels) and one on the way up (8 and a skip of 8 to 8), by hand."""

    def flops(blocks: int) -> int:
        spec = UNetSpec(8, (1,), res_blocks=blocks, groups=4, head_channels=8)
        return profiling.count_flops(IDC(IDCConfig(4, (1, 8, 8), spec)), (3,))

    def conv(channels: int, size: int) -> int:
        return 2 * 8 * 8 * channels * 8 * size**2

    scale_and_shift = 2 * 32 * 16
    down = 2 * conv(8, 3) + scale_and_shift
    up = conv(16, 3) + conv(8, 3) + conv(16, 1) + scale_and_shift
    assert flops(2) - flops(1) == down + up


def test_passes_are_counted_as_they_run():
    model = tiny_model()
    assert profiling.count_passes(model, (3, 1, 0)) == 3
    assert profiling.count_passes(model, (3, 1, 1, 0)) == 3  # the second visit to 1 would give the same again
    assert profiling.count_passes(model, (3,)) == 1


def test_peak_memory_of_known_allocations():
    def work():
        a = torch.zeros(1000, 1000)
        b = torch.zeros(500, 1000)
        del a
        c = torch.zeros(200, 1000)
        return b, c

    assert profiling.peak_cpu_bytes(work) == pytest.approx(4 * 1_500_000, rel=0.01)


def test_profile_leaves_the_model_as_it_was():
    model = tiny_model().train()
    state = torch.get_rng_state()
    found = profiling.profile(model, repeats=1)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weights_bytes == 4 * found.parameters
