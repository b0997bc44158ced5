"""The tables of ``idc profile`` against published counts, and against what was counted elsewhere."""

import pytest
import torch

from idc.commands.profile import profile, pruning_table
from idc.method.presets import PRESETS
from tiny import tiny_model


def test_pruning_table_has_the_published_parameter_counts():
    rows = {r["preset"]: r for r in pruning_table()}
    assert rows["paper-cifar10"]["parameters"] == 9_393_475
    assert rows["paper-cifar100"]["parameters"] == 42_843_971
    assert rows["paper-cifar10"]["flops_per_evaluation"] / 1e9 == pytest.approx(6.84, abs=0.005)
    assert rows.keys() == PRESETS.keys()  # idc train --help sends its readers there


def test_profile_leaves_the_model_as_it_was():
    model = tiny_model().train()
    state = torch.get_rng_state()
    found = profile(model, repeats=1)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weights_bytes == 4 * found.parameters
    assert (found.network_evaluations, found.flops) == (3, 3 * found.flops_per_evaluation)
