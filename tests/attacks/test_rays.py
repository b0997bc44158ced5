"""RayS against the closed form of a linear classifier: the nearest answer of another class in L-inf."""

import pytest
import torch

from idc.attacks.rays import RayS
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images

COUNT = 40


def problem(model):
    """Images well inside [0, 1], the model's answers, and how far away in L-inf the other class is."""
    images = 0.3 + 0.4 * torch.rand(COUNT, *model.input_shape, generator=torch.Generator().manual_seed(1))
    logits = Linear.forward(model, images)
    rows = model.weights[0] - model.weights[1]
    return images, logits.argmax(1), (logits[:, 0] - logits[:, 1]).abs() / rows.abs().sum()


def attacked(model, eps, **settings):
    images, classes, distance = problem(model)
    target = Target.of(model)
    attack = RayS(threat=Threat("linf", eps), **settings)
    found = attack(target, images, classes, Streams(torch.arange(COUNT), 3))
    assert (found - images).abs().max() <= eps + 1e-6
    return found, classes, distance, target


def test_it_finds_what_the_closed_form_says_there_is():
    model = Linear(2, (1, 6, 6))
    eps = problem(model)[2].median().item()
    found, classes, distance, target = attacked(model, eps)
    wrong = model(found).argmax(1) != classes
    assert not wrong[distance > eps].any()
    assert wrong[distance < 0.95 * eps].all()
    assert sum(target.tally.forward.values()) <= COUNT * 2000


def test_queries_are_counted_and_few_find_less():
    model = Linear(2, (3, 8, 8))
    eps = 1.2 * problem(model)[2].max().item()
    found = {}
    for queries in (5, 3000):
        adversarial, classes, _, target = attacked(model, eps, queries=queries)
        found[queries] = (model(adversarial).argmax(1) != classes).float().mean().item()
        assert max(target.tally.forward.values()) <= COUNT * queries
    assert found[5] < found[3000] == 1


def test_noise_is_averaged():
    model = Noisy(shape=(1, 6, 6))
    images, classes = easy_images(model, COUNT)
    attack = RayS(threat=Threat("linf", 0.1), queries=4000)
    found = attack(Target.of(model), images, classes, Streams(torch.arange(COUNT), 3))
    assert (Linear.forward(model, found).argmax(1) != classes).float().mean() > 0.9


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_another_norm_is_refused(norm):
    with pytest.raises(IDCError, match=f"norm {norm} for RayS: expected linf"):
        RayS(threat=Threat(norm, 0.5))


def test_fewer_queries_than_draws_ask_nothing():
    model = Noisy(shape=(1, 4, 4))
    images, classes = easy_images(model, 3)
    target = Target.of(model)
    found = RayS(threat=Threat("linf", 0.1), queries=3)(target, images, classes, Streams(torch.arange(3), 0))
    assert not target.tally.forward
    assert 0 < (found - images).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize(("queries", "draws"), [(0, 4), (10, 0)])
def test_nothing_to_ask_is_refused(queries, draws):
    with pytest.raises(IDCError, match="1 or more of each"):
        RayS(threat=Threat("linf", 0.1), queries=queries, draws=draws)


def test_a_radius_below_what_float32_can_tell_ends():
    model = Linear(2, (1, 6, 6))
    _, _, _, target = attacked(model, 3e-7, queries=200)
    assert max(target.tally.forward.values()) <= COUNT * 200


def test_nothing_is_changed_without_a_radius():
    model = Linear(2, (1, 4, 4))
    images, classes, _ = problem(model)
    attack = RayS(threat=Threat("linf", 0.0))
    assert torch.equal(attack(Target.of(model), images, classes, Streams(torch.arange(COUNT), 3)), images)
