"""Libraries' attacks behind our interface: as strong as they should be, contained, and with their flags shown."""

import sys

import pytest
import torch

from idc.attacks.target import Target
from idc.attacks.third_party import AutoAttack
from idc.attacks.threat import Threat
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images


def streams(count: int) -> Streams:
    return Streams(torch.arange(count), 0)


@pytest.fixture
def binary():
    """Two classes, 6x6: the smallest L-inf and L2 changes are known."""
    model = Linear(num_classes=2, shape=(1, 6, 6))
    images, classes = easy_images(model, 32)
    return model, images, classes, (model(images)[:, 0] - model(images)[:, 1]).abs()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.08)])
def test_autoattack_reaches_the_closed_form(binary, norm, eps):
    model, images, classes, margin = binary
    gain = eps * torch.linalg.vector_norm(model.weights[0] - model.weights[1], ord={"linf": 1, "l2": 2}[norm])
    found = AutoAttack(threat=Threat(norm, eps), steps=20, queries=50)(Target.of(model), images, classes, streams(32))
    fell = model(found).argmax(1) != classes
    assert 0.2 < (margin < gain).float().mean() < 0.9
    assert (fell != (margin < gain)).sum() <= 1


def test_square_is_left_out_where_its_l2_form_cannot_be():
    model = Linear(shape=(1, 4, 4))
    images, classes = easy_images(model, 2)
    target = Target.of(model)
    AutoAttack(threat=Threat("l2", 0.1), steps=2)(target, images, classes, streams(2))
    assert any("Square left out" in flag for flag in target.tally.flags)


def test_flags_are_shown():
    model = Linear(shape=(1, 6, 6))
    images, classes = easy_images(model, 8)
    target = Target(lambda x: model(x).softmax(1))
    AutoAttack(threat=Threat("linf", 0.01), steps=2, queries=2)(target, images, classes, streams(8))
    assert any("probability distribution" in flag for flag in target.tally.flags)
    random = Target.of(Noisy(shape=(1, 6, 6)))
    AutoAttack(threat=Threat("linf", 0.01), version="standard", steps=2, queries=2)(random, images, classes, streams(8))
    assert any("randomized" in flag for flag in random.tally.flags)


def test_a_dynamic_defense_flags_no_model_after_it():
    """One that takes a gradient inside its forward pass is told, and the next model is not taken for it."""
    model = Linear(shape=(1, 6, 6))
    images, classes = easy_images(model, 8)

    def dynamic(x):
        with torch.enable_grad():
            free = x.detach().requires_grad_(True)
            step = torch.autograd.grad(model(free).square().sum(), free)[0]
        return model(x - 1e-9 * step)

    flags = []
    for function in (dynamic, model):
        target = Target(function)
        AutoAttack(threat=Threat("linf", 0.01), steps=2, queries=2)(target, images, classes, streams(8))
        flags.append([flag for flag in target.tally.flags if "dynamic" in flag])
    assert flags[0]
    assert not flags[1]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_autoattack_runs_with_few_classes(classes):
    model = Linear(num_classes=classes, shape=(1, 6, 6))
    images, true = easy_images(model, 4)
    for version in ("standard", "rand"):
        attack = AutoAttack(threat=Threat("linf", 0.3), version=version, steps=3, queries=3)
        assert attack(Target.of(model), images, true, streams(4)).shape == images.shape


def test_global_state_is_left_as_found(binary):
    model, images, classes, _ = binary
    state, trace = torch.get_rng_state(), sys.gettrace()
    threat = Threat("linf", 0.02)
    attack = AutoAttack(threat=threat, steps=2, queries=2)
    first = attack(Target.of(model), images, classes, streams(32))
    assert torch.equal(attack(Target.of(model), images, classes, streams(32)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.gettrace() is trace
    assert all(p.grad is None for p in model.parameters())


def test_rand_attacks_images_that_a_single_draw_gets_wrong():
    """Many clean draws are wrong: the library alone would leave those images out; here all are attacked."""
    model = Noisy(sigma=0.2, num_classes=3, shape=(1, 6, 6))
    images, classes = easy_images(model, 32)
    target = Target.of(model)
    attack = AutoAttack(threat=Threat("linf", 0.1), version="rand", steps=10)
    found = attack(target, images, classes, streams(32))
    clean, after = (target.judge(x, classes, streams(32).of("j"), draws=100)[0].float().mean().item()
                    for x in (images, found))  # fmt: skip
    assert clean > 0.5
    assert after < clean - 0.2
    assert (found != images).flatten(1).any(1).float().mean() > 0.95


def test_noise_that_changes_no_answer_is_no_reason_for_the_rand_version(monkeypatch):
    asked, plain = [], AutoAttack._adversary
    monkeypatch.setattr(AutoAttack, "_adversary", lambda self, *rest: asked.append(rest[3]) or plain(self, *rest))
    images, classes = easy_images(Linear(), 8)
    attack = AutoAttack(threat=Threat("linf", 0.01), steps=1, queries=1)
    for model in (Linear(), Noisy(sigma=1e-6), Noisy(sigma=1.0)):
        attack(Target.of(model), images, classes, streams(8))
    assert asked == ["standard", "standard", "rand"]
