import pytest
import torch
from torch import nn

from idc.compute.modes import evaluation_mode, frozen


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("context", [evaluation_mode, frozen])
def test_modes_come_back_as_they_were_also_after_an_error(context):
    model, inside = network(), []

    def fail():
        inside.extend(m.training for m in model.modules())
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"), context(model):
        fail()
    assert not any(inside)
    assert [m.training for m in model.modules()] == [True, True, False, True]


def test_a_frozen_model_has_the_gradient_of_its_input_alone():
    model, x = network(), torch.randn(2, 1, 5, 5, requires_grad=True)
    with evaluation_mode(model):
        (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    with frozen(model):
        model(x).square().sum().backward()
    assert torch.equal(x.grad, expected)
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
