"""What compiled code for a GPU computes in place of diffusers' layers, here computed on the CPU."""

import copy
import warnings

import pytest
import torch
from torch import nn

from idc.method import blocks
from idc.method.blocks import AlignedConv2d, Float32InputAlignedConv2d, GroupNorm, ResnetBlock
from idc.method.unet import BridgeUNet, UNetSpec

GROUPED = UNetSpec(8, (1, 2), groups=4, head_channels=8, position_channels=2)
BATCHED = UNetSpec(8, (1, 2), groups=1, norm="batch", middle_attention=False, decoder=False, time_embedding=False)


@pytest.fixture
def as_compiled(monkeypatch):
    def switch():
        monkeypatch.setattr(blocks, "compiled_for_gpu", lambda x: True)

    return switch


def inputs(batch=5):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 8, 8, generator=random).to(memory_format=torch.channels_last)
    return x, torch.arange(batch) % 4


def answer_and_gradients(network, x, t):
    network.zero_grad()
    out = network(x, t, x)
    out.square().mean().backward()
    return [out.detach(), *(p.grad for p in network.parameters())]


@pytest.mark.parametrize("spec", [GROUPED, BATCHED])
def test_the_network_is_the_same_function(spec, as_compiled):
    torch.manual_seed(0)
    network = BridgeUNet(spec, (3, 8, 8)).double().to(memory_format=torch.channels_last)
    x, t = inputs()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    expected = answer_and_gradients(copy.deepcopy(network), x.double(), t)
    as_compiled()
    found = answer_and_gradients(network, x.double(), t)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-4, atol=1e-6)  # the first layer and the norms are float32


@pytest.mark.parametrize("shape", [(3, 8, 5, 7), (3, 8, 6)])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_a_group_is_normed_by_its_channels(shape, shift):
    torch.manual_seed(0)
    layer = GroupNorm(2, 8)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(shape) + shift * torch.randn(1, 8, *(1 for _ in shape[2:]))
    torch.testing.assert_close(layer.by_channel(x), nn.GroupNorm.forward(layer, x), rtol=1e-4, atol=1e-5)
    assert layer.by_channel(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.by_channel(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("channels", "out"), [(3, 8), (19, 64), (64, 3), (8, 8), (3, 3)])
def test_channels_of_zeros_change_nothing(channels, out, as_compiled):
    torch.manual_seed(0)
    layer = AlignedConv2d(channels, out, 3, padding=1)
    x = torch.randn(2, channels, 6, 6).to(memory_format=torch.channels_last)
    expected = layer(x)
    as_compiled()
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_no_copy_into_another_format(as_compiled):
    """In training diffusers' block copies what goes around it, and before it doubles the image."""
    network = BridgeUNet(GROUPED, (3, 8, 8)).train().to(memory_format=torch.channels_last)
    as_compiled()
    found = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer is not network.net.conv_in:
            layer.register_forward_pre_hook(
                lambda _, given: found.append(given[0].is_contiguous(memory_format=torch.channels_last))
            )
    x, t = inputs(64)
    network(x, t, x)
    assert len(found) > 10
    assert all(found)


def test_elsewhere_the_layers_are_diffusers_own():
    network = BridgeUNet(GROUPED, (3, 8, 8))
    kinds = {type(layer) for layer in network.modules()}
    assert {GroupNorm, ResnetBlock, AlignedConv2d, Float32InputAlignedConv2d} <= kinds
    x, t = inputs()
    expected = network(x, t, x)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, t, x), expected, rtol=1e-5, atol=1e-6)
