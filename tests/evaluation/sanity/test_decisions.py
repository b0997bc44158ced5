"""The attack on the class alone, of a model whose robust images are known in closed form."""

import pytest
import torch

from idc.attacks.threat import Threat
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.decisions import decisions_hurt_no_more
from idc.noise import Streams
from noise_models import Linear, easy_images

COUNT = 40


def bench(claimed, norm="linf"):
    """Of a linear model at the median distance of its images from the other class; ``claimed``: whether an image so far
    away is said to have survived the evaluation."""
    model = Linear(2, (1, 6, 6))
    images, classes = easy_images(model, COUNT)
    logits = model(images)
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


@pytest.mark.parametrize(("norm", "words"), [("linf", "0 images survived"), ("l2", "L-inf alone")])
def test_where_there_is_nothing_to_ask(norm, words):
    found = decisions_hurt_no_more(bench(lambda far, eps: False, norm))
    assert found.passed
    assert words in found.figure
