"""What an attack along gradients cannot see: a margin that jumps, a model that knows images of whole levels."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from idc.attacks.objective import CrossEntropy, Margin
from idc.attacks.target import ANSWER
from idc.attacks.threat import Threat
from idc.evaluation.sanity.behaviour import same_in_any_batch, same_with_gradients
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.discontinuity import margin_continuous, whole_levels_hurt_no_more
from idc.evaluation.sanity.gradients import gradients_useful
from idc.noise import Streams
from idc.types import ClassifierDefaults

COUNT, EPS = 24, 0.1
WEIGHT = torch.randn(4, 64, generator=torch.Generator().manual_seed(3))


class Linear(nn.Module, ClassifierDefaults):
    num_classes, input_shape = 4, (1, 8, 8)
    stochastic = False

    def surrogates(self):
        return {}

    def forward(self, x):
        return (x.flatten(1) - 0.5) @ WEIGHT.T


class Decoyed(Linear):
    """The true answer on top of scores of other pixels, whose largest is never asked."""

    def forward(self, x):
        scores = super().forward(x)
        return 20 * F.one_hot(scores.argmax(1), 4).float() + 0.1 * scores.roll(1, 1)


class Opened(Decoyed):
    """The same, and says what it answers by."""

    def surrogates(self):
        return {"scores": Linear().forward}


class Levels(Linear):
    """Scores of images in whole levels; of all others those of the clean image's class, far from any boundary."""

    def forward(self, x):
        whole = ((x * 255) - (x * 255).round()).abs().flatten(1).amax(1) < 1e-3
        scores = super().forward(x)
        coarse = super().forward(x.new_tensor(MEANS)[self.nearest(x)])
        return torch.where(whole[:, None], scores, coarse)

    def nearest(self, x):
        return torch.cdist(x.flatten(1), x.new_tensor(MEANS).flatten(1)).argmin(1)


class Jittery(Linear):
    """Exact values, and a gradient that noise buries."""

    def forward(self, x):
        return super().forward(x + (x - x.detach()) * 20 * torch.randn_like(x).detach())


class Faint(Linear):
    """Votes, and a slope that float32 does not hold."""

    def forward(self, x):
        return F.one_hot(super().forward(x).argmax(1), 4) + 1e-9 * super().forward(x)


class Inferring(Linear):
    def forward(self, x):
        return super().forward(x) * (-1 if torch.is_inference_mode_enabled() else 1)


class Sure(Linear):
    """Logits so far apart that cross-entropy hardly has a slope."""

    def forward(self, x):
        return 8 * super().forward(x)


class Purifying(Linear):
    """Asks for a gradient of its own, which inference mode does not have."""

    def forward(self, x):
        with torch.enable_grad():
            moved = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(super().forward(moved).logsumexp(1).sum(), moved)
        return super().forward(x + 1e-3 * gradient)


class Half(Linear):
    """Small scores on a large offset, in half precision."""

    def forward(self, x):
        return (0.02 * super().forward(x) + 5).bfloat16().float()


class Crowding(Linear):
    """Adversarial images, and they alone, are answered by the size of their batch."""

    def forward(self, x):
        scores = super().forward(x)
        return torch.where((x.flatten(1).amax(1) > 0.99)[:, None] & (len(x) == 1), -scores, scores)


IMAGES = (0.3 + 0.4 * torch.rand(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))).mul(255).round() / 255
MEANS = IMAGES.tolist()


def bench(model, **more):
    classes = model(IMAGES).argmax(1)
    streams = Streams(torch.arange(COUNT), 0)
    return Bench(model.eval(), IMAGES, classes, streams, Threat("linf", EPS), **more)


@pytest.mark.parametrize(("model", "passed"), [(Linear, True), (Decoyed, False), (Opened, True), (Half, True)])
def test_a_margin_that_jumps_where_no_function_changes(model, passed):
    found = margin_continuous(bench(model()))
    assert found.passed is passed, found.figure


def test_a_jump_is_measured_as_a_share_of_the_clean_margin():
    """Of one-hot vectors it is from 1 to -1."""

    class OneHot(Linear):
        def forward(self, x):
            return F.one_hot(super().forward(x).argmax(1), 4).float()

    assert "the margin falls by 2 of a clean one" in margin_continuous(bench(OneHot())).figure


@pytest.mark.parametrize(("model", "passed"), [(Linear, True), (Levels, False)])
def test_images_in_whole_levels_are_attacked_as_such(model, passed):
    whole = bench(model())
    survived = bench(model(), robust=dict(enumerate(whole.plain_each.tolist())))
    found = whole_levels_hurt_no_more(survived)
    assert found.passed is passed, found.figure


def test_what_is_judged_are_whole_levels_within_the_radius(monkeypatch):
    judged = {}
    own = bench(Linear())
    monkeypatch.setattr(Bench, "right", lambda self, x, *key, **_: judged.update({key: x}) or torch.ones(len(x)))
    whole_levels_hurt_no_more(own)
    found = judged["levels",]
    torch.testing.assert_close(found * 255, (found * 255).round(), rtol=0, atol=1e-3)
    assert 0.09 < (found - IMAGES).abs().max() <= EPS + 1e-5


@pytest.mark.parametrize(("model", "passed"), [(Linear, True), (Jittery, False), (Faint, False)])
def test_a_gradient_has_to_be_one(model, passed):
    found = gradients_useful(bench(model()))
    assert found.passed is passed, found.figure


def test_a_gradient_may_be_small_and_the_radius_nothing():
    assert gradients_useful(bench(Sure()), [(ANSWER, CrossEntropy())]).passed
    nothing = bench(Linear())
    nothing.threat = Threat("linf", 0.0)
    assert gradients_useful(nothing, [(ANSWER, Margin())]).passed


@pytest.mark.parametrize(("model", "passed"), [(Linear, True), (Inferring, False), (Purifying, True)])
def test_inference_mode_changes_no_answer(model, passed):
    found = same_with_gradients(bench(model()))
    assert found.passed is passed, found.figure


@pytest.mark.parametrize(("model", "passed"), [(Linear, True), (Crowding, False)])
def test_adversarial_images_are_answered_alike_in_any_batch(model, passed):
    worst = IMAGES[:8].clone()
    worst[:, :, 0, 0] = 1.0
    found = same_in_any_batch(bench(model(), worst=worst))
    assert found.passed is passed, found.figure
    assert same_in_any_batch(bench(model())).passed


def test_fewer_images_than_adversarial_ones_and_small_batches():
    model = Linear()
    images, worst = IMAGES[:4], IMAGES[:8]
    own = Bench(model, images, model(images).argmax(1), Streams(torch.arange(4), 0), Threat("linf", EPS), worst=worst)
    assert same_in_any_batch(own).passed
    asked = []
    model.register_forward_pre_hook(lambda module, args: asked.append(len(args[0])))
    own.target = replace(own.target, chunk=5)
    assert same_in_any_batch(own).passed
    assert max(asked) == 5
