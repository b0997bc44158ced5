"""The masks that the sanity checks were made for are caught by them; what hides nothing is not."""

import masks
import pytest
import torch
from mask_circumstances import Batched, Differentiated, Inferring, Misread, Moded, Remembering, StoodIn, Training
from mask_kinds import EPS, Buried, DecoyOutOfSight, Mask, OneHotAndLittle
from mask_networks import perceptron, pixels, trained
from torch import nn

from idc.attacks.threat import Threat
from idc.evaluation.sanity import behaviour
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.checks import images_used_as_given
from idc.evaluation.sanity.decisions import decisions_hurt_no_more
from idc.evaluation.sanity.discontinuity import margin_continuous
from idc.evaluation.sanity.gradients import gradients_useful
from idc.evaluation.sanity.substitutes import transfer_is_weaker
from idc.noise import Streams
from idc.types import completed

COUNT = 20


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Module, nn.Module]:
    return trained(perceptron, 60), trained(perceptron, 60, seed=1)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Batched, behaviour.same_in_any_batch),
        (Training, behaviour.same_in_any_batch),
        (Differentiated, behaviour.same_with_gradients),
        (Moded, behaviour.same_with_gradients),
        (Inferring, behaviour.same_with_gradients),
        (DecoyOutOfSight, margin_continuous),
        (Buried, gradients_useful),
        (Remembering, behaviour.same_as_before),
        (OneHotAndLittle, transfer_is_weaker),
        (StoodIn, decisions_hurt_no_more),
        (Misread, images_used_as_given),
    ],
    ids=lambda v: v.__name__,
)
def test_masks_are_caught(networks, kind, check):
    images, classes = pixels("test", COUNT)
    model, honest = completed(masks.around(kind, *networks)), completed(Mask(networks[0]))
    robust = dict.fromkeys(range(COUNT), 1.0)  # as the evaluation was led to believe
    bench = Bench(model, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", EPS), robust=robust)
    assert not check(bench).passed
    if check not in (transfer_is_weaker, decisions_hurt_no_more):  # without an evaluation, they outdo PGD-20
        assert check(Bench(honest, images, classes, bench.streams, bench.threat)).passed


def test_what_is_true_of_a_mask_is_found_behind_it(networks):
    """By attacks on the network inside; a memory starts anew for each image."""
    images, classes = pixels("test", COUNT)
    threat = Threat("linf", EPS)
    plain, hidden = (masks.true_accuracy(k(networks[0]), images, classes, threat) for k in (Mask, Remembering))
    assert plain == hidden < 0.6
