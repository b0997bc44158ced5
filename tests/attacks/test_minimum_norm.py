"""C&W in L2: held to foolbox's results (see vectors/README.md) and to the closed form of a linear model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from idc.attacks.minimum_norm import CarliniWagner
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images

VECTORS = np.load(Path(__file__).parent / "vectors" / "carlini_wagner.npz")


def streams(count: int) -> Streams:
    return Streams(torch.arange(count), 0)


def sizes(found: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return (found - images).flatten(1).norm(dim=1)


def conv() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
    nn.utils.vector_to_parameters(torch.from_numpy(VECTORS["conv_weights"]), model.parameters())
    return model.requires_grad_(False)


LONGER = {"searches": 4, "steps": 80, "constant": 0.1}
FOOLBOX = {
    "linear": (Linear(4, (1, 6, 6)), LONGER),
    "conv": (conv(), LONGER),
    "paper": (nn.Sequential(conv(), nn.Softmax(1)), {"searches": 1, "constant": 1e-4}),
}


@pytest.mark.parametrize("name", FOOLBOX)
def test_finds_what_foolbox_found(name):
    model, settings = FOOLBOX[name]
    images, classes, expected = (torch.from_numpy(VECTORS[f"{name}_{k}"]) for k in ("images", "classes", "found"))
    none = (expected == 0).flatten(1).all(1)
    expected = torch.where(none.view(-1, 1, 1, 1), images, expected)
    found = CarliniWagner(**settings)(Target(model), images, classes, streams(8))
    assert torch.equal((found != images).flatten(1).any(1), ~none)
    torch.testing.assert_close(sizes(found, images), sizes(expected, images), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def least(model: Linear, images: torch.Tensor) -> torch.Tensor:
    """(B,) the smallest L2 change of a linear answer of two classes within [0, 1]: x - s w, clipped, for the s at which
    both logits are equal (the conditions of Karush, Kuhn and Tucker)."""
    normal = (model.weights[0] - model.weights[1]).double()
    x = images.flatten(1).double()
    side = ((x - 0.5) @ normal).sign()
    low, high = torch.zeros(len(x), 1).double(), torch.full((len(x), 1), 10.0).double()
    for _ in range(60):
        s = (low + high) / 2
        stays = (((x - s * side[:, None] * normal).clamp(0, 1) - 0.5) @ normal * side > 0)[:, None]
        low, high = torch.where(stays, s, low), torch.where(stays, high, s)
    return ((x - low * side[:, None] * normal).clamp(0, 1) - x).norm(dim=1)


@pytest.mark.parametrize("spread", [0.2, 0.49])
def test_finds_the_smallest_change_of_a_linear_model_within_the_box(spread):
    model = Linear(num_classes=2, shape=(1, 6, 6))
    images, classes = easy_images(model, 16, spread=spread)
    logits = model(images)
    free = (logits[:, 0] - logits[:, 1]).abs() / (model.weights[0] - model.weights[1]).norm()
    closed = least(model, images)
    assert ((closed > free * 1.001).any()).item() is (spread > 0.4)  # whether the box is in the way
    found = CarliniWagner(steps=150, searches=4, constant=0.1)(Target.of(model), images, classes, streams(16))
    assert (model(found).argmax(1) != classes).all()
    assert (sizes(found, images) >= closed - 1e-4).all()
    assert sizes(found, images).mean() < 1.1 * closed.mean()
    assert ((found >= 0) & (found <= 1)).all()


def test_within_a_ball_what_lies_outside_comes_back_as_it_was():
    model = Linear(num_classes=2, shape=(1, 6, 6))
    images, classes = easy_images(model, 16)
    anywhere, inside = (
        CarliniWagner(threat=threat, steps=50, searches=3, constant=0.1)(Target.of(model), images, classes, streams(16))
        for threat in (None, Threat("l2", 0.1))
    )
    outside = sizes(anywhere, images) > 0.1
    assert outside.any()
    assert torch.equal(inside, torch.where(outside.view(-1, 1, 1, 1), images, anywhere))
    changed = (inside != images).flatten(1).any(1)
    assert changed.any()
    assert (least(model, images)[changed] < 0.1).all()


def test_an_image_that_cannot_be_changed_comes_back_as_it_was():
    """With the published constant of 1e-4 the class hardly counts: most images keep their answer."""
    model = Linear(num_classes=2, shape=(1, 6, 6))
    images, classes = easy_images(model, 32)
    target = Target(lambda x: model(x).softmax(1))
    found = CarliniWagner(steps=20, searches=1, constant=1e-4)(target, images, classes, streams(32))
    changed = (found != images).flatten(1).any(1)
    assert 0.1 < changed.float().mean() < 0.9
    assert torch.equal(model(found).argmax(1) != classes, changed)


@pytest.mark.parametrize("reseed", [False, True])
def test_an_images_result_does_not_depend_on_its_batch(reseed):
    """Nor does its noise: the stop, the search and the draws are each image's own."""
    model = Noisy(sigma=0.02, num_classes=3, shape=(1, 6, 6))
    images, classes = easy_images(model, 6)
    attack = CarliniWagner(steps=20, searches=2, constant=1.0, reseed=reseed)
    together = attack(Target.of(model), images, classes, streams(6))
    few = attack(Target.of(model), images[3:5], classes[3:5], streams(6).take(torch.tensor([3, 4])))
    torch.testing.assert_close(few, together[3:5], rtol=0, atol=1e-5)
    assert (together != images).flatten(1).any(1).sum() >= 3


def test_noise_that_repeats_is_one_draw_throughout():
    seen = []

    class Watched(Noisy):
        def forward(self, images):
            noise = torch.randn_like(images)
            seen.append(noise.detach())
            return Linear.forward(self, images + self.sigma * noise)

    model = Watched(sigma=0.05, num_classes=2, shape=(1, 6, 6))
    images, classes = easy_images(model, 1)
    for reseed, differ in ((True, 1), (False, 5)):
        seen.clear()
        attack = CarliniWagner(steps=5, searches=1, abort_early=False, reseed=reseed)
        attack(Target.of(model), images, classes, streams(1))
        assert len({tuple(noise.flatten().tolist()) for noise in seen}) == differ
