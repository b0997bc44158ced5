import math
import warnings

import pytest
import torch
from torch import nn

from idc.errors import IDCError
from idc.method.presets import PRESETS, resolve_spec
from idc.method.unet import BridgeUNet, Dropout, UNetSpec, check_image_shape, init_normal_
from idc.noise import Streams
from idc.peers.cnn import CNNConfig, build_network
from idc.storage.fields import recorded


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


def test_a_mirrored_network_predicts_the_mean_of_an_image_and_its_mirror_image():
    own = {"preset": "nano-encoder-patch2", "base_channels": 4}
    plain, mirrored = (BridgeUNet(resolve_spec(own | {"mirrored": m}), (3, 16, 16)).eval() for m in (False, True))
    mirrored.load_state_dict(plain.state_dict())
    x, t = torch.rand(2, 3, 16, 16) * 2 - 1, torch.tensor([3, 3])
    one, other = (image - plain(image, t, image) for image in (x, x.flip(-1)))  # x0, of which the label is the nearest
    assert (one - other).abs().max() > 1e-3
    for image in (x, x.flip(-1)):
        torch.testing.assert_close(image - mirrored(image, t, image), (one + other) / 2)
        torch.testing.assert_close(mirrored(image, torch.tensor(3), image), mirrored(image, t, image))


@pytest.mark.parametrize("preset", PRESETS)
def test_specs_survive_json(preset):
    assert resolve_spec(recorded(PRESETS[preset])) == PRESETS[preset]


def test_a_spec_may_start_from_a_preset():
    assert resolve_spec({"preset": "paper-cifar10", "dropout": 0.0}) == UNetSpec(
        64, (1, 4), attention_at=(32, 16, 8), head_channels=32
    )


def test_residual_adds_the_input():
    spec = UNetSpec(8, (1,), groups=4, head_channels=8)
    with torch.random.fork_rng():
        plain = BridgeUNet(spec, (1, 8, 8)).eval()
    skip = BridgeUNet(resolve_spec(recorded(spec) | {"residual": True}), (1, 8, 8)).eval()
    skip.load_state_dict(plain.state_dict())
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0, 3])
    assert torch.allclose(skip(x, t, x), x + plain(x, t, x))


def test_without_a_decoder_it_is_the_way_down_and_the_middle():
    spec = UNetSpec(8, (1, 2), groups=4, head_channels=8, decoder=False)
    half = BridgeUNet(spec, (1, 8, 8)).eval()
    whole = BridgeUNet(resolve_spec(recorded(spec) | {"decoder": True}), (1, 8, 8)).eval()
    kept = {k: v for k, v in half.state_dict().items() if not k.startswith(("net.norm_out", "net.conv_out"))}
    assert whole.load_state_dict(kept, strict=False).unexpected_keys == []
    deepest: list[torch.Tensor] = []
    whole.net.mid_block.register_forward_hook(lambda module, given, out: deepest.append(out))
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0, 3])
    whole(x, t, x)
    norm, conv = half.net.norm_out, half.net.conv_out
    drawn = nn.functional.conv2d(nn.functional.silu(norm(deepest[0])), conv.weight, conv.bias, padding=1)
    expected = drawn.view(2, 2, 2, 4, 4).permute(0, 3, 1, 4, 2).reshape(2, 1, 8, 8)
    assert torch.allclose(half(x, t, x), expected, atol=1e-6)
    assert torch.allclose(half(x[1:], torch.tensor(3), x[1:]), expected[1:], atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "like", "channels"),
    [("nano-encoder", 16, 3), ("nano-encoder-bn", 16, 3), ("nano-encoder-patch2", 16, 3), ("digits-encoder", 8, 1)],
)
def test_an_encoder_costs_what_a_preact_resnet18_of_its_width_does(preset, like, channels):
    from torch.utils.flop_counter import FlopCounterMode

    images, t = torch.empty(1, channels, 32, 32, device="meta"), torch.zeros((), dtype=torch.int64, device="meta")
    cnn = build_network(CNNConfig("preact-resnet18", 10, (channels, 32, 32), like)).to("meta").eval()
    counts = []
    for call in (lambda: network(preset, (channels, 32, 32)).eval()(images, t, images), lambda: cnn(images)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        counts.append(counter.get_total_flops())
    assert counts[0] == pytest.approx(counts[1], rel=0.1)


def test_batch_norm_of_one_image_is_group_norm_with_a_group_a_channel():
    spec = UNetSpec(8, (1, 1), groups=8, head_channels=8, decoder=False, middle_attention=False)
    group = BridgeUNet(spec, (1, 8, 8))
    batch = BridgeUNet(resolve_spec(recorded(spec) | {"norm": "batch"}), (1, 8, 8))
    init_normal_(group, std=0.2)
    statistics = set(batch.state_dict()) - set(group.state_dict())
    assert {name.rsplit(".")[-1] for name in statistics} == {"running_mean", "running_var", "num_batches_tracked"}
    assert batch.load_state_dict(group.state_dict(), strict=False).unexpected_keys == []
    x, t = torch.rand(1, 1, 8, 8), torch.tensor([3])
    assert torch.allclose(batch.train()(x, t, x), group(x, t, x), atol=1e-4)
    assert not torch.allclose(batch.eval()(x, t, x), group(x, t, x), atol=1e-2)  # now by what it has seen


def test_without_attention_in_the_middle():
    kept = dict.fromkeys(("norm", "middle_attention", "decoder"))
    assert not kept.keys() & recorded(PRESETS["paper-cifar10"]).keys()  # what networks had before is not recorded
    for attends in (True, False):
        spec = resolve_spec({"preset": "nano-encoder-bn", "groups": 8, "middle_attention": attends})
        assert any("to_q" in name for name, _ in BridgeUNet(spec, (3, 32, 32)).named_modules()) == attends
    free = resolve_spec({"preset": "nano-encoder-bn", "base_channels": 15, "groups": 8})  # there is none to group
    assert BridgeUNet(free, (3, 32, 32)).net.conv_in.out_channels == 15
    with pytest.raises(IDCError, match="a multiple of groups"):
        resolve_spec({"preset": "nano-encoder-bn", "base_channels": 15, "groups": 8, "middle_attention": True})
    with pytest.raises(IDCError, match="norm = 'layer'"):
        resolve_spec({"preset": "nano", "norm": "layer"})


def test_time_matters():
    spec = UNetSpec(8, (1,), groups=4, head_channels=8)
    model = BridgeUNet(spec, (1, 8, 8)).eval()
    init_normal_(model, std=0.2)
    x = torch.rand(2, 1, 8, 8)
    assert (model(x, torch.tensor([0, 0]), x) - model(x, torch.tensor([3, 3]), x)).abs().max() > 1e-3


def test_a_network_that_is_not_told_the_time_is_one_whose_blocks_hear_nothing():
    spec = UNetSpec(8, (1, 2), groups=4, decoder=False, middle_attention=False)
    told = BridgeUNet(spec, (1, 8, 8)).eval()
    deaf = BridgeUNet(resolve_spec(recorded(spec) | {"time_embedding": False}), (1, 8, 8)).eval()
    init_normal_(told, std=0.2)
    gone = set(told.state_dict()) - set(deaf.state_dict())
    assert gone
    assert all("time_emb" in name for name in gone)
    assert deaf.load_state_dict(told.state_dict(), strict=False).missing_keys == []
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(deaf(x, torch.tensor([0, 0]), x), deaf(x, torch.tensor([3, 3]), x))
    assert not torch.allclose(told(x, torch.tensor([3, 3]), x), deaf(x, torch.tensor([3, 3]), x), atol=1e-3)
    for name, value in told.state_dict().items():
        if "time_emb_proj" in name:
            value.zero_()  # scale 0, shift 0
    assert torch.allclose(told(x, torch.tensor([3, 3]), x), deaf(x, torch.tensor([3, 3]), x), atol=1e-6)
    with pytest.raises(IDCError, match="time_embedding"):
        resolve_spec({"preset": "nano", "time_embedding": False})


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
        {"preset": "nano", "dropout": "x"},
        {"preset": "nano", "multipliers": 3},
        {"preset": "nano", "attention_at": [8.5]},
        {"preset": "nano", "base_channels": True},
        {"preset": "nano", "position_channels": -1},
        {"preset": "nano", "time_embedding": "no"},
        {"preset": "nano", "residual": "maybe"},
    ],
)
def test_bad_specs(fields):
    with pytest.raises(IDCError) as refused:
        resolve_spec(fields)
    assert refused.value.remedy


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 30, 32), (3, 4, 4)])
def test_bad_shapes(shape):
    with pytest.raises(IDCError):
        check_image_shape(PRESETS["nano"], shape)


# -- dropout on the CPU ------------------------------------------------------------------------------------------------


def test_the_network_drops_with_it():
    # The head of attention has one more, of p = 0.
    found = [m for m in network("paper-cifar10").modules() if isinstance(m, nn.Dropout) and m.p > 0]
    assert len(found) == 10
    assert all(type(m) is Dropout for m in found)


@pytest.mark.parametrize("p", [0.001, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_and_scales_as_it_says(p, dtype):
    n, rounding = 10**6 + 3, torch.finfo(dtype).eps  # not a multiple of what one word of the generator serves
    torch.manual_seed(0)
    out = Dropout(p).train()(torch.ones(n, dtype=dtype))
    kept = out != 0
    assert abs(kept.sum().item() - n * (1 - p)) < 5 * math.sqrt(n * p * (1 - p)) + n * 2**-17
    assert out.dtype == dtype
    assert out[kept].unique().numel() == 1
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=rounding + 2**-17 / (1 - p))


def test_dropout_treats_neighbours_and_calls_alike():
    layer, x = Dropout(0.3).train(), torch.ones(400, 1000)
    torch.manual_seed(0)
    first, second = ((layer(x) != 0).double() for _ in range(2))
    spread = 5 * math.sqrt(0.21 / 400)
    assert ((first.mean(0) - 0.7).abs() < spread).all()  # every place of a row, whichever bits of a word it takes
    centred, other = first - 0.7, second - 0.7
    for one, two in [(centred, other), *((centred[:, k:], centred[:, :-k]) for k in (1, 2, 3, 4, 8))]:
        assert abs((one * two).mean().item()) < 5 * 0.21 / math.sqrt(one.numel())


def test_dropout_follows_the_seed_and_masks_its_gradient():
    layer, x = Dropout(0.3).train(), torch.randn(3, 4, 5, 7).requires_grad_()
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        out = layer(x)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close(out, x * gradient)
        masks.append(gradient)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_dropout_keeps_the_memory_format():
    x = torch.ones(2, 8, 4, 4).to(memory_format=torch.channels_last)
    assert Dropout(0.3).train()(x).is_contiguous(memory_format=torch.channels_last)


def test_dropout_rests_where_torch_has_its_own():
    layer, x = Dropout(0.5), torch.ones(4, 100)
    assert torch.equal(layer.eval()(x), x)
    layer.train()
    torch.manual_seed(0)
    expected = nn.functional.dropout(x, 0.5)
    torch._dynamo.reset()
    torch.manual_seed(0)
    assert torch.equal(torch.compile(layer, backend="eager", fullgraph=True)(x), expected)
    streams = Streams(torch.arange(4), 0)
    drawn = []
    for _ in range(2):  # an evaluation draws an image's mask from the image's own stream
        with streams.feeding(range(1)):
            drawn.append(layer(x))
    assert torch.equal(drawn[0], drawn[1])


def test_checkpointed_dropout_draws_the_same_mask_again():
    layer, x = Dropout(0.3).train(), torch.randn(4, 100).requires_grad_()
    out = torch.utils.checkpoint.checkpoint(lambda v: layer(v).square(), x, use_reentrant=False)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    scale = 1 / (1 - round(0.3 * 2**16) / 2**16)
    torch.testing.assert_close(gradient, torch.where(out == 0, 0.0, 2 * scale**2 * x))


def test_the_dropping_network_is_one_graph():
    model = BridgeUNet(UNetSpec(8, (1,), groups=4, head_channels=8, dropout=0.3), (1, 8, 8)).train()
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0, 3])
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert torch.compile(model, backend="eager", fullgraph=True)(x, t, x).shape == x.shape
