"""What a network takes over from another."""

from dataclasses import replace

import pytest
import torch

from idc.errors import IDCError
from idc.method.transfer import begin_with
from idc.method.unet import BridgeUNet
from tiny import TINY

SPEC = replace(TINY, position_channels=2, patch=2)


def network(spec=SPEC, shape=(1, 8, 8), seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BridgeUNet(spec, shape)


def test_the_weights_are_the_others():
    mine, other = network(), network(seed=1)
    told = begin_with(mine, other, name="m")
    assert told == f"all {len(mine.state_dict())} tensors"
    assert all(map(torch.equal, mine.state_dict().values(), other.state_dict().values()))


def test_position_maps_of_another_size_are_interpolated():
    """Values of a linear ramp, whose interpolation between the centres of the pixels is known."""
    mine, other = network(shape=(1, 16, 16)), network(seed=1)
    ramp = torch.arange(4.0).expand(1, 2, 4, 4)
    other.position.data = ramp.clone()
    told = begin_with(mine, other, name="m")
    assert told.endswith("tensors, position maps interpolated from 4x4 to 8x8")
    centres = ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(0, 3)
    torch.testing.assert_close(mine.position.data, centres.expand(1, 2, 8, 8))
    for key, value in other.state_dict().items():
        assert key == "position" or torch.equal(mine.state_dict()[key], value)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [(replace(SPEC, base_channels=16), (1, 8, 8)), (SPEC, (3, 8, 8)), (replace(SPEC, position_channels=0), (1, 8, 8))],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(spec, shape):
    mine = network(spec, shape)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    with pytest.raises(IDCError, match=r"weights of the-model: expected .* same network"):
        begin_with(mine, network(seed=1), name="the-model")
    assert all(torch.equal(mine.state_dict()[key], value) for key, value in before.items())
