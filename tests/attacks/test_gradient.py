"""PGD on a linear classifier, where the strongest L-inf attack is known in closed form."""

import pytest
import torch

from idc.attacks.gradient import PGD
from idc.errors import IDCError


@pytest.fixture
def linear():
    weights = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    return lambda images: images.flatten(1) @ weights.T, weights


@pytest.fixture
def middle():
    return 0.3 + 0.4 * torch.rand(64, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def test_reaches_the_closed_form(linear, middle):
    model, weights = linear
    classes = model(middle).argmax(1)
    eps = 0.1
    attacked = PGD(eps=eps, steps=20)(model, middle, classes, generator=torch.Generator().manual_seed(2))

    def margin(x):
        logits = model(x)
        return logits.gather(1, classes[:, None])[:, 0] - logits.gather(1, 1 - classes[:, None])[:, 0]

    optimum = margin(middle) - eps * (weights[0] - weights[1]).abs().sum()  # no pixel meets its bounds here
    torch.testing.assert_close(margin(attacked), optimum, rtol=0, atol=1e-4)


def test_stays_in_the_ball_and_in_the_box(linear):
    model, _ = linear
    images = torch.rand(32, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    attacked = PGD(eps=0.25, steps=10)(model, images, torch.zeros(32, dtype=torch.int64))
    assert (attacked - images).abs().max() <= 0.25 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (attacked != images).any()


def test_eps_zero_changes_nothing(linear, middle):
    attacked = PGD(eps=0.0)(linear[0], middle, torch.zeros(64, dtype=torch.int64))
    assert torch.equal(attacked, middle)


def test_leaves_global_state_and_weights_alone(middle):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(12, 2))
    state = torch.get_rng_state()
    network.eval()
    PGD(eps=0.1)(network, middle, torch.zeros(64, dtype=torch.int64), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in network.parameters())
    assert not middle.requires_grad


@pytest.mark.parametrize("wrong", [{"eps": -0.1}, {"eps": float("nan")}, {"eps": 0.1, "steps": -1}], ids=str)
def test_refuses_settings_that_make_no_sense(wrong):
    with pytest.raises(IDCError):
        PGD(**wrong)
