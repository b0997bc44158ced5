"""What every attack must do: stay in its ball and its box, touch nothing else, take any batch."""

import pytest
import torch

from idc.attacks.adaptive import AdaptiveAttack
from idc.attacks.boundary import FAB
from idc.attacks.gradient import apgd, fgsm, mi_fgsm, pgd
from idc.attacks.minimum_norm import CarliniWagner
from idc.attacks.objective import DLR, Margin
from idc.attacks.square import Square
from idc.attacks.target import Target
from idc.attacks.third_party import AutoAttack
from idc.attacks.threat import Threat
from idc.commands.plugins import plugin
from idc.errors import IDCError
from idc.noise import Streams
from noise_models import Linear, Noisy
from tiny import tiny_model

MODELS = {"linear": Linear(shape=(1, 8, 8)), "noisy": Noisy(shape=(1, 8, 8)), "idc": tiny_model(visits=(3, 0))}
ATTACKS = {
    "fgsm": fgsm,
    "mi-fgsm": mi_fgsm,
    "pgd": lambda t: pgd(t, steps=2, restarts=2, eot=2),
    "apgd": lambda t: apgd(t, steps=4, objective=Margin()),
    "apgd-targeted": lambda t: apgd(t, steps=2, objective=DLR(), targets=2),
    "low-frequency": lambda t: pgd(t, steps=2, low_frequency=0.5),
    "adaptive": lambda t: AdaptiveAttack(threat=t, trial_steps=1, steps=2, targets=1, noisy_targets=1, judge_draws=2),
    "apgd-finalists": lambda t: apgd(t, steps=5, objective=DLR(), targets=3, finalists=1),
    "fab": lambda t: FAB(threat=t, steps=4, targets=2),
    "autoattack": lambda t: AutoAttack(threat=t, steps=2, queries=3),
    "square": lambda t: Square(threat=t, queries=3, draws=2),
    "square-halved": lambda t: Square(threat=t, queries=40, draws=2, progress=0.5),
    "cw": lambda t: CarliniWagner(threat=t, steps=2, searches=1),
    "plug-in": lambda t: plugin("plugin_examples:OneStep", object, lambda own: own(threat=t), "an attack"),
}
WITHOUT_L1 = {"fab", "autoattack", "square", "square-halved"}


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor, Streams]:
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))
    images[:, :, 0, 0], images[:, :, 1, 1] = 0.0, 1.0  # at the ends of the box too
    return images, torch.arange(count) % 4, Streams(torch.arange(count), 0)


def test_what_has_no_form_in_l1_says_so():
    for name in WITHOUT_L1:
        with pytest.raises(IDCError, match=r"norm l1 for .*: expected linf or l2"):
            ATTACKS[name](Threat("l1", 0.1))


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("kind", MODELS)
def test_stays_inside_and_leaves_the_rest_alone(name, norm, kind):
    if norm == "l1" and name in WITHOUT_L1:
        return
    threat, model = Threat(norm, 0.1), MODELS[kind]
    images, classes, streams = batch(3)
    before, state = images.clone(), torch.get_rng_state()
    weights = [v.clone() for v in model.state_dict().values()]
    found = ATTACKS[name](threat)(Target.of(model), images, classes, streams)
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert not found.requires_grad
    assert threat.size(found, images).max() <= 0.1 * (1 + 1e-5)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))
    assert not any(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("count", [0, 1])
def test_takes_one_image_and_none(name, count):
    images, classes, streams = batch(count)
    found = ATTACKS[name](Threat("linf", 0.1))(Target.of(MODELS["linear"]), images, classes, streams)
    assert found.shape == images.shape


@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "cw"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_changes_nothing(name, norm):
    images, classes, streams = batch(2)
    found = ATTACKS[name](Threat(norm, 0.0))(Target.of(MODELS["linear"]), images, classes, streams)
    torch.testing.assert_close(found, images, rtol=0, atol=0)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_streams_give_the_same_attack(name):
    images, classes, streams = batch(2)
    first, again = (
        ATTACKS[name](Threat("linf", 0.1))(Target.of(MODELS["noisy"]), images, classes, streams) for _ in range(2)
    )
    assert torch.equal(first, again)
