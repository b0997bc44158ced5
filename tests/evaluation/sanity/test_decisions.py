"""The attack on the class alone, of a model whose robust images are known in closed form."""

import pytest
import torch

from idc.attacks.threat import Threat
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.decisions import decisions_hurt_no_more
from idc.noise import Streams
from noise_models import Linear, easy_images

COUNT = 40


class Wavering(Linear):
    """Answers the other class in a fifth of its draws, each image by itself."""

    stochastic = True

    def forward(self, images):
        other = torch.rand(len(images), 1) < 0.2
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
    return Bench(model, images, classes, Streams(torch.arange(COUNT), 0), Threat(norm, eps), robust=robust)


def test_images_that_are_out_of_reach_stay_right():
    found = decisions_hurt_no_more(bench(lambda far, eps: far > eps))
    assert found.passed, found
    assert found.figure == "RayS breaks 0 of 8 images that survived the evaluation"


def test_images_within_reach_are_found():
    found = decisions_hurt_no_more(bench(lambda far, eps: far < 0.9 * eps))
    assert not found.passed
    assert found.figure == "RayS breaks 8 of 8 images that survived the evaluation"


def test_images_that_waver_are_asked_about_too():
    """Noise that spoils a fifth of the draws of every image does not keep them from being asked about."""
    within = decisions_hurt_no_more(bench(lambda far, eps: 0.8 * (far < 0.9 * eps), of=Wavering))
    assert not within.passed, within
    beyond = decisions_hurt_no_more(bench(lambda far, eps: 0.8 * (far > eps), of=Wavering))
    assert beyond.figure == "RayS breaks 0 of 8 images that survived the evaluation"


def test_the_surest_are_asked_about():
    """Eight that nothing can break before many that waver within reach."""

    def claimed(far, eps):
        return 1.0 if far > 1.02 * eps else 0.6

    found = decisions_hurt_no_more(bench(claimed))
    assert found.figure == "RayS breaks 0 of 8 images that survived the evaluation"


@pytest.mark.parametrize(("norm", "words"), [("linf", "0 images survived"), ("l2", "L-inf alone")])
def test_where_there_is_nothing_to_ask(norm, words):
    found = decisions_hurt_no_more(bench(lambda far, eps: False, norm))
    assert found.passed
    assert words in found.figure
