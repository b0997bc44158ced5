"""Muon: held to torch's own on matrices, to AdamW elsewhere, and to singular values; a run goes on with its state."""

import signal
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from idc.commands.train import start_training
from idc.method.presets import resolve_spec
from idc.method.unet import BridgeUNet
from idc.peers.cnn import ResidualNetwork
from idc.peers.diffusion import Diffusion, DiffusionConfig
from idc.training.muon import Muon, inner_weights
from idc.training.optim import decay_groups
from processes import run
from tiny_training import FLAGS, SMALL, signalled, weights

LR, DECAY, BETA2 = 0.01, 0.3, 0.99  # 0.1 is torch's own decay


def small(*, channels_last: bool) -> nn.Sequential:
    torch.manual_seed(0)
    ends = nn.Conv2d(3, 8, 3), nn.Linear(16, 5)
    net = nn.Sequential(ends[0], nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), ends[1])
    return net.to(memory_format=torch.channels_last) if channels_last else net


def optimizer(net: nn.Module) -> Muon:
    inner, rest = inner_weights(list(net.named_parameters()))
    return Muon(inner, decay_groups(rest, DECAY), lr=LR, weight_decay=DECAY, beta2=BETA2, fused=False)


def gradients(net: nn.Module, seed: int) -> None:
    """The same numbers for every memory format; the gradients' own is the usual one."""
    drawn = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=drawn)


@pytest.mark.parametrize("channels_last", [False, True])
def test_inner_weights_move_as_torch_moves_their_matrix_and_all_others_as_adamw(channels_last):
    net = small(channels_last=channels_last)
    mine = optimizer(net)
    inner = nn.Parameter(net[1].weight.detach().clone().contiguous().flatten(1))
    others = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters() if n != "1.weight"}
    groups = [
        {"params": [others["0.weight"], others["4.weight"]], "weight_decay": DECAY},
        {"params": [p for n, p in others.items() if n.endswith("bias")], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon([inner], lr=LR, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(groups, betas=(0.9, BETA2))
    for step in range(5):
        for group in (*mine.param_groups, *muon.param_groups, *adamw.param_groups):
            group["lr"] = LR / (1 + step)  # as a schedule sets it
        gradients(net, step)
        inner.grad = net[1].weight.grad.flatten(1)
        for n, p in others.items():
            p.grad = net.get_parameter(n).grad.clone()
        for one in (mine, muon, adamw):
            one.step()
    assert torch.equal(net[1].weight.flatten(1), inner)
    for n, p in others.items():
        torch.testing.assert_close(net.get_parameter(n), p)
    mine.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_the_first_step_moves_every_direction_as_far():
    net = small(channels_last=True)
    gradients(net, 0)
    before = net[1].weight.detach().clone()
    optimizer(net).step()
    moved = (before * (1 - LR * DECAY) - net[1].weight.detach()).flatten(1)
    stretched = torch.linalg.svdvals(moved) / (LR * 0.2 * 72**0.5)  # 72 = 8 x 3 x 3, the longer side
    assert stretched.numel() == 16
    assert stretched.min() > 0.6
    assert stretched.max() < 1.3


def test_the_ends_and_the_position_are_not_inner():
    net = BridgeUNet(resolve_spec("base-encoder"), (3, 32, 32))
    named = list(net.named_parameters())
    inner = {id(p) for p in inner_weights(named)[0]}
    outside = {n for n, p in named if p.ndim > 1 and id(p) not in inner}
    assert outside == {"position", "net.conv_in.weight", "net.conv_out.weight"}
    cnn = ResidualNetwork(3, 10, 8, [(8, 1, 1), (16, 1, 2)], last_norm=True)
    named = list(cnn.named_parameters())
    inner = {id(p) for p in inner_weights(named)[0]}
    assert {n for n, p in named if p.ndim > 1 and id(p) not in inner} == {"conv.weight", "linear.weight"}


def test_embeddings_are_not_inner():
    model = Diffusion(DiffusionConfig((3, 8, 8), 10, channels=(16, 16)))
    named = list(model.named_parameters())
    inner = {id(p) for p in inner_weights(named)[0]}
    names = {n for n, p in named if id(p) in inner}
    assert names
    assert not [n for n in names if "embedding" in n]
    assert any(n.endswith("class_embedding.weight") for n, _ in named)


def test_nothing_to_orthogonalise_leaves_adamw():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    mine, before = optimizer(net), net[2].weight.detach().clone()
    gradients(net, 0)
    mine.step()
    assert list(mine.state_dict()) == ["AdamW"]
    assert not torch.equal(before, net[2].weight)


def test_a_state_goes_on_in_another_memory_format():
    """As from a CPU to a GPU, which takes channels last."""
    nets = [small(channels_last=last) for last in (False, True)]
    first, second = map(optimizer, nets)
    for step in range(4):
        gradients(nets[0], step)
        first.step()
    nets[1].load_state_dict(nets[0].state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))
    for net, mine in zip(nets, (first, second), strict=True):
        gradients(net, 9)
        mine.step()
    for p, q in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", [LambdaLR, ReduceLROnPlateau])
def test_a_schedule_reaches_both_after_a_load(kind):
    net = small(channels_last=False)
    mine = optimizer(net)
    schedule = kind(mine, lambda n: 1 / (1 + n)) if kind is LambdaLR else kind(mine, factor=0.5, patience=0)
    mine.load_state_dict(mine.state_dict())  # as accelerate does
    for seed in range(2):
        gradients(net, seed)
        mine.step()
        schedule.step(*() if kind is LambdaLR else (1.0,))
    halves = LR / 3 if kind is LambdaLR else LR / 2
    assert [group["lr"] for one in mine.both for group in one.param_groups] == pytest.approx([halves] * 3)


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(network, tmp_path):
    start_training("digits", tmp_path / "whole", preset=network, limit=128, changes=SMALL | {"optimizer": "muon"})
    out = tmp_path / "run"
    command = ("train", "--out", out, "--preset", network, "--optimizer", "muon", *FLAGS)
    assert run(*command, before=partial(signalled, signal.SIGTERM, 6)).returncode == 128 + signal.SIGTERM
    resumed = run(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    expected, found = weights(tmp_path / "whole"), weights(out)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
