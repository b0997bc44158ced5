"""``idc profile`` against what was counted elsewhere."""

import torch

from idc.commands.profile import profile
from tiny import tiny_model


def test_profile_leaves_the_model_as_it_was():
    model = tiny_model().train()
    state = torch.get_rng_state()
    found = profile(model, repeats=1)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weights_bytes == 4 * found.parameters
    assert (found.network_evaluations, found.flops) == (3, 3 * found.flops_per_evaluation)
