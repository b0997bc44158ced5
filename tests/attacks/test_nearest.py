"""Minimum-norm attacks come near to the smallest change, where that is known."""

import pytest
import torch

from idc.attacks.boundary import FAB
from idc.attacks.minimum_norm import FMN
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.noise import Streams
from noise_models import Linear, easy_images

COUNT = 32
ATTACKS = {"fmn": lambda t: FMN(threat=t, steps=100), "fab": lambda t: FAB(threat=t, steps=15, targets=3, nearest=True)}


def problem(norm: str) -> tuple[Linear, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear model, images far from the ends of the box, and the closed form of the smallest change."""
    model = Linear(num_classes=4, shape=(1, 6, 6))
    images, classes = easy_images(model, COUNT)
    logits, weights = model(images), model.weights
    margin = logits.gather(1, classes[:, None]) - logits
    dual = {"linf": 1, "l2": 2}[norm]
    sizes = torch.linalg.vector_norm(weights[classes][:, None] - weights, ord=dual, dim=2)
    nearest = (margin / sizes.clamp(min=1e-9)).scatter(1, classes[:, None], float("inf")).amin(1)
    return model, images, classes, nearest


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_comes_within_a_tenth_of_the_closed_form(name, norm):
    model, images, classes, nearest = problem(norm)
    threat = Threat(norm, 1e-3)
    found = ATTACKS[name](threat)(Target.of(model), images, classes, Streams(torch.arange(COUNT), 0))
    assert (model(found).argmax(1) != classes).all()
    sizes = threat.size(found, images)
    assert (sizes >= nearest * (1 - 1e-4)).all()
    assert (sizes / nearest).median() < 1.05
    assert (sizes / nearest).max() < 1.2
    assert found.min() >= 0
    assert found.max() <= 1


def test_what_only_a_surrogate_shows_is_judged_by_the_answer():
    """The answer is quantised and has no gradient: only along the surrogate is there anything to find."""
    model, images, _, _ = problem("linf")

    def quantised(x):
        return model((x * 20).round() / 20)

    classes = quantised(images).argmax(1)
    streams = Streams(torch.arange(COUNT), 0)
    blind = FMN(threat=Threat(), steps=40)(Target(quantised), images, classes, streams)
    found = FMN(threat=Threat(), steps=40)(Target(quantised, {"through": model}), images, classes, streams)
    assert torch.equal(blind, images)
    changed = (found != images).flatten(1).any(1)
    assert changed.float().mean() > 0.7
    assert torch.equal(quantised(found).argmax(1) != classes, changed)
