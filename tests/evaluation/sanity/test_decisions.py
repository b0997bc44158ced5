"""The attack on the class alone, of a model whose robust images are known in closed form."""

from functools import partial

import pytest
import torch

from idc.attacks.threat import Threat
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.decisions import decisions_hurt_no_more
from idc.noise import Streams
from noise_models import Linear, easy_images

COUNT = 40


class Wavering(Linear):
    """Answers the other class in a share of its draws, each image by itself."""

    stochastic = True

    def __init__(self, share, *given):
        super().__init__(*given)
        self.share = share

    def forward(self, images):
        other = torch.rand(len(images), 1) < self.share
        return torch.where(other, -1, 1) * super().forward(images)


def bench(claimed, norm="linf", of=Linear):
    """Of a linear model at the median distance of its images from the other class; ``claimed``: the share of right
    draws that an image so far away is said to have kept in the evaluation."""
    model = of(2, (1, 6, 6))
    images, classes = easy_images(model, COUNT)
    logits = Linear.forward(model, images)
    distance = (logits[:, 0] - logits[:, 1]).abs() / (model.weights[0] - model.weights[1]).abs().sum()
    eps = distance.median().item()
    robust = {i: float(claimed(far, eps)) for i, far in enumerate(distance.tolist())}
    return Bench(
        model, images, classes, Streams(torch.arange(COUNT), 0), Threat(norm, eps), robust=robust, robust_draws=20
    )


def test_images_that_are_out_of_reach_stay_right():
    found = decisions_hurt_no_more(bench(lambda far, eps: far > eps))
    assert found.passed, found
    assert found.figure == "RayS breaks 0 of 8 images that survived the evaluation"


def test_images_within_reach_are_found():
    found = decisions_hurt_no_more(bench(lambda far, eps: far < 0.9 * eps))
    assert not found.passed
    assert found.figure == "RayS breaks 8 of 8 images that survived the evaluation"


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_images_that_waver_are_asked_about_too(share):
    """Noise that spoils a third of the draws of every image keeps none from being asked about, nor its fall from being
    seen; and noise alone is no fall."""
    within = decisions_hurt_no_more(
        bench(lambda far, eps: (1 - share) * (far < 0.9 * eps), of=partial(Wavering, share))
    )
    assert not within.passed, within
    beyond = decisions_hurt_no_more(bench(lambda far, eps: (1 - share) * (far > eps), of=partial(Wavering, share)))
    assert beyond.figure == "RayS breaks 0 of 8 images that survived the evaluation"


def test_the_weaker_do_not_hide_behind_the_surer():
    """Eight out of reach and right in every draw, among many within reach and nearly as sure."""
    found = decisions_hurt_no_more(bench(lambda far, eps: 1.0 if far > 1.02 * eps else 0.95, of=partial(Wavering, 0.0)))
    assert not found.passed, found


@pytest.mark.parametrize("share", [0.4, 0.5])
def test_what_noise_explains_is_no_fall(share):
    """An image that was as uncertain in the evaluation, and judged there to be right by a few draws."""
    found = decisions_hurt_no_more(bench(lambda far, eps: 0.6 * (far > eps), of=partial(Wavering, share)))
    assert found.passed, found


@pytest.mark.parametrize(("norm", "words"), [("linf", "0 images survived"), ("l2", "L-inf alone")])
def test_where_there_is_nothing_to_ask(norm, words):
    found = decisions_hurt_no_more(bench(lambda far, eps: False, norm))
    assert found.passed
    assert words in found.figure
