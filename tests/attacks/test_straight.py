"""Steps pass a gradient as if they were not there, and keep their values."""

import pytest
import torch
from torch.nn import functional as F

from idc.attacks.straight import StraightThrough, Undetached, let_go

LEVELS = torch.tensor([-0.5, 0.0, 0.5])


def in_place(x):
    y = x.clone()
    y.mul_(8).round_()
    return y.div_(8)


def without_gradient(x):
    with torch.no_grad():
        return 3 * x


# What is computed of x, and its slope.
STEPS = {
    "round": (lambda x: (8 * x).round() / 8, 1),
    "round, decimals": (lambda x: torch.round(x, decimals=1), 1),
    "floor, ceil, trunc": (lambda x: x.floor() + torch.ceil(x) + x.trunc(), 3),
    "in place": (in_place, 1),
    "sign": (lambda x: 2 * x.sign(), 2),
    "heaviside": (lambda x: torch.heaviside(x, torch.ones(1)), 1),
    "clamp": (lambda x: x.clamp(-0.1, 0.1), 1),
    "whole-number division": (lambda x: (8 * x) // 2 + torch.div(x, 2, rounding_mode="floor"), 4.5),
    "whole numbers": (lambda x: (10 * x).int().float(), 10),
    "whole numbers, divided": (
        lambda x: (torch.div((80 * x).long(), 4, rounding_mode="floor") * 4).to(x.dtype) / 80,
        1,
    ),
    "greater": (lambda x: (x > 0.1).float(), 1),
    "less": (lambda x: (x <= 0.1).to(x.dtype) * 3, -3),
    "thermometer": (lambda x: (x[None] > LEVELS[:, None, None]).to(x.dtype).mean(0), 1),
    "whole numbers and truth values": (lambda x: 2 * ((x > 0) + (x > 0.2).long()), 4),
    "bucketize": (lambda x: torch.bucketize(x, LEVELS).float(), 1),
    "detach": (lambda x: x.detach(), 1),
    "detach in place": (lambda x: (2 * x).detach_(), 2),
    "data": (lambda x: 2 * x.data, 2),
    "no_grad": (without_gradient, 3),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_has_its_values_and_the_slope_of_the_identity(name):
    step, slope = STEPS[name]
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    asked = x.clone().requires_grad_(True)
    with StraightThrough():
        found = step(asked)
        found = found.to(x.dtype)
    assert torch.allclose(found, step(x.clone()).to(x.dtype))
    (gradient,) = torch.autograd.grad(found.sum(), asked)
    assert torch.allclose(gradient, torch.full_like(x, slope))


@pytest.mark.parametrize("name", ["detach", "detach in place", "data", "no_grad", "round", "clamp"])
def test_with_nothing_detached_a_step_keeps_its_own_slope(name):
    step, slope = STEPS[name]
    x = torch.linspace(-1, 1, 9)
    asked = x.clone().requires_grad_(True)
    with Undetached():
        found = step(asked)
    assert torch.equal(found, step(x.clone()))
    (gradient,) = torch.autograd.grad(found.sum(), asked)
    own = {"round": torch.zeros(9), "clamp": (x.abs() < 0.1).float()}
    assert torch.equal(gradient, own.get(name, torch.full_like(x, slope)))
    assert torch.is_grad_enabled()


def test_a_one_hot_vector_has_the_gradient_of_softmax():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    weights = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    with StraightThrough():
        found = 3 * F.one_hot(logits.argmax(1), 4).to(logits.dtype)
    assert torch.equal(found, 3.0 * F.one_hot(logits.argmax(1), 4))
    (gradient,) = torch.autograd.grad((weights * found).sum(), logits)
    (expected,) = torch.autograd.grad((weights * 3 * logits.softmax(1)).sum(), logits)
    assert torch.allclose(gradient, expected)


def test_what_is_no_step_stays_as_it_is_and_so_does_grad_mode():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    x = x.requires_grad_(True)
    with torch.no_grad(), StraightThrough():
        with torch.enable_grad():
            found = torch.where(x > 0, x, 2 * x)[x > -1].relu().sort().values
        (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(gradient, (x > 0).float())
    with StraightThrough():
        (x > 0).float()
    assert torch.is_grad_enabled()
    with torch.no_grad():
        with StraightThrough(), torch.enable_grad():
            x.round()
        assert not torch.is_grad_enabled()


class Keeping(torch.nn.Module):
    """Writes what it sees into whatever a module may keep."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.weight = torch.nn.Parameter(torch.ones(4), requires_grad=False)
        self.seen, self.last, self.named = [], None, {}

    def forward(self, x):
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
            self.weight.copy_(x[0])
        self.last = x.detach() * 2
        self.seen.append(x.detach())
        self.named["x"] = x.data
        return (x * self.mean).sum()


def test_what_a_module_keeps_of_a_call_is_let_go_and_the_gradient_stays():
    module, x = Keeping(), torch.rand(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    with Undetached():
        found = module(x)
    kept = [module.mean, module.weight, module.last, module.seen[0], module.named["x"]]
    assert all(one.requires_grad for one in kept)
    let_go(module)
    kept = [module.mean, module.weight, module.last, module.seen[0], module.named["x"]]
    assert not any(one.requires_grad for one in kept)
    assert torch.equal(module.last, 2 * x)
    (gradient,) = torch.autograd.grad(found, x)
    exact = 0.1 * (x.mean(0) + x.sum(0) / 5)  # of x times its own mean over the batch
    assert torch.allclose(gradient, exact.expand(5, 4))
