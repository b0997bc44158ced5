import pytest
import torch

from idc.errors import IDCError
from idc.unet import PRESETS, BridgeUNet, UNetSpec, check_image_shape, init_normal_, resolve_spec, spec_to_dict


def network(preset, shape=(3, 32, 32)):
    with torch.device("meta"):
        return BridgeUNet(PRESETS[preset], shape)


@pytest.mark.parametrize(("preset", "parameters"), [("paper-cifar10", 9_393_475), ("paper-cifar100", 42_843_971)])
def test_parameters_of_the_published_networks(preset, parameters):
    assert sum(p.numel() for p in network(preset).parameters()) == parameters


@pytest.mark.parametrize(("preset", "gflops"), [("paper-cifar10", 6.84), ("paper-cifar100", 11.94)])
def test_flops_of_the_published_networks(preset, gflops):
    from torch.utils.flop_counter import FlopCounterMode

    model, counter = network(preset).eval(), FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), counter:
        model(torch.empty(1, 3, 32, 32), torch.zeros((), dtype=torch.int64), torch.empty(1, 3, 32, 32))
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflops, abs=0.005)


def test_nano_is_small():
    assert sum(p.numel() for p in network("nano").parameters()) < 1_000_000


@pytest.mark.parametrize("preset", PRESETS)
def test_specs_survive_json(preset):
    assert resolve_spec(spec_to_dict(PRESETS[preset])) == PRESETS[preset]


def test_a_spec_may_start_from_a_preset():
    assert resolve_spec({"preset": "paper-cifar10", "dropout": 0.0}) == UNetSpec(
        64, (1, 4), attention_at=(32, 16, 8), head_channels=32
    )


def test_residual_adds_the_input():
    spec = UNetSpec(8, (1,), groups=4, head_channels=8)
    with torch.random.fork_rng():
        plain = BridgeUNet(spec, (1, 8, 8)).eval()
    skip = BridgeUNet(resolve_spec(spec_to_dict(spec) | {"residual": True}), (1, 8, 8)).eval()
    skip.load_state_dict(plain.state_dict())
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0, 3])
    assert torch.allclose(skip(x, t, x), x + plain(x, t, x))


def test_time_matters():
    spec = UNetSpec(8, (1,), groups=4, head_channels=8)
    model = BridgeUNet(spec, (1, 8, 8)).eval()
    init_normal_(model, std=0.2)
    x = torch.rand(2, 1, 8, 8)
    assert (model(x, torch.tensor([0, 0]), x) - model(x, torch.tensor([3, 3]), x)).abs().max() > 1e-3


def test_normal_start():
    model = BridgeUNet(PRESETS["nano"], (3, 32, 32))
    init_normal_(model)
    weight = model.net.mid_block.resnets[0].conv1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    norm = model.net.mid_block.resnets[0].norm1
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert norm.bias.abs().max() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"base_channels": 10, "multipliers": (1,), "groups": 4},
        {"base_channels": 0, "multipliers": (1,)},
        {"base_channels": 32, "multipliers": ()},
        {"base_channels": 32, "multipliers": (1,), "head_channels": 24},
        {"base_channels": 32, "multipliers": (1,), "dropout": 1.0},
        {"base_channels": 32, "multipliers": (1,), "condition": "add"},
        {"base_channels": 32, "multipliers": (1,), "depth": 3},
        {"multipliers": (1,)},
        {"preset": "huge"},
    ],
)
def test_bad_specs(fields):
    with pytest.raises(IDCError):
        resolve_spec(fields)


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 30, 32), (3, 4, 4)])
def test_bad_shapes(shape):
    with pytest.raises(IDCError):
        check_image_shape(PRESETS["nano"], shape)
