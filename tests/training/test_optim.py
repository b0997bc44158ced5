"""Averaged weights, and when a run is compiled."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from idc.commands.train import start_training
from idc.compute import hardware
from idc.training.optim import build_optimizer, compiles
from idc.training.recipe import Recipe
from tiny_training import SMALL


def test_averaged_weights_are_the_exponential_mean(tmp_path, network):
    """One step a checkpoint: the average begins as the weights; the second update has decay (1 + 1) / (10 + 1)."""
    out = tmp_path / "run"
    changes = SMALL | {
        "ema_decay": 0.5,
        "accumulation": 1,
        "epochs": 0.25,
        "checkpoint_every": 0.125,
        "validate_every": 1,
    }
    start_training("digits", out, preset=network, limit=128, changes=changes)
    first, second = (
        torch.load(p / "state.pt", weights_only=True) for p in sorted((out / "checkpoints").glob("step-*"))
    )
    name = "net.conv_in.weight"
    assert torch.equal(first["average"][f"module.{name}"], first["network"][name])
    expected = 2 / 11 * first["network"][name] + 9 / 11 * second["network"][name]
    assert torch.allclose(second["average"][f"module.{name}"], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("wanted", "device", "steps", "compiled"),
    [(None, "cpu", 9999, False), (None, "cuda", 9999, True), (None, "cuda", 10, False), (True, "cpu", 1, True),
     (False, "cuda", 9999, False)],
)  # fmt: skip
def test_long_runs_on_a_gpu_are_compiled(wanted, device, steps, compiled, monkeypatch):
    monkeypatch.setattr(hardware, "find_spec", lambda name: name)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: name)
    assert compiles(Recipe(compile=wanted), torch.device(device), steps) == compiled


@pytest.mark.parametrize(("triton", "tool"), [(None, "gcc"), ("triton", None), ("triton", "clang")])
def test_a_run_is_not_compiled_where_it_cannot_be(monkeypatch, triton, tool):
    """Unless it is asked for: then torch says what is missing."""
    monkeypatch.setattr(hardware, "find_spec", lambda name: triton)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: name if name == tool else None)
    assert compiles(Recipe(), torch.device("cuda"), 9999) == bool(triton and tool)
    assert compiles(Recipe(compile=True), torch.device("cuda"), 9999)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "muon"])
def test_a_state_goes_on_where_weights_lie_otherwise_in_memory(kind):
    """As from a CPU where they are contiguous to one with bf16 units, or a GPU, where they are in channels last."""
    recipe = Recipe(optimizer=kind, lr=0.1)
    nets = [nn.Sequential(*(nn.Conv2d(n, n + 1, 3) for n in (3, 4, 5))) for _ in range(2)]
    nets[1].to(memory_format=torch.channels_last)
    first, second = (build_optimizer(net, recipe, torch.device("cpu")) for net in nets)

    def step(net, optimizer, seed):
        drawn = torch.Generator().manual_seed(seed)
        for p in net.parameters():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=drawn))
        optimizer.step()

    for seed in range(4):
        step(nets[0], first, seed)
    nets[1].load_state_dict(nets[0].state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))
    for net, optimizer in zip(nets, (first, second), strict=True):
        step(net, optimizer, 9)
    for p, q in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
