"""AutoAttack's library beside an evaluation: it fails where it breaks survivors, and passes where it does not."""

import torch

from idc.attacks.threat import Threat
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.library import IMAGES, autoattack_finds_no_more
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images

COUNT = 16


def bench(model, eps: float, robust: dict[int, float]) -> Bench:
    images, classes = easy_images(Linear(shape=(1, 6, 6)), COUNT)
    return Bench(model, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", eps), robust=robust)


def test_images_that_the_library_breaks_are_told():
    """A linear model has no image that survives a radius of 0.5: whoever says so has not attacked."""
    told = dict.fromkeys(range(COUNT), 1.0)
    finding = autoattack_finds_no_more(bench(Linear(shape=(1, 6, 6)), 0.5, told))
    assert not finding.passed
    assert f"broke {IMAGES} of {IMAGES}" in finding.figure
    assert autoattack_finds_no_more(bench(Linear(shape=(1, 6, 6)), 1e-5, told)).passed


def test_only_survivors_are_attacked():
    finding = autoattack_finds_no_more(bench(Linear(shape=(1, 6, 6)), 0.5, dict.fromkeys(range(COUNT), 0.0)))
    assert finding.passed
    assert "no image survived" in finding.figure


def test_noise_that_changes_no_answer_is_no_alarm():
    """The library's standard version calls it a randomized defense; the model says itself that it draws noise."""
    images, classes = easy_images(Linear(shape=(1, 6, 6)), COUNT)
    streams, robust = Streams(torch.arange(COUNT), 0), dict.fromkeys(range(COUNT), 1.0)
    noisy = Noisy(sigma=0.002, shape=(1, 6, 6))
    found = autoattack_finds_no_more(Bench(noisy, images, classes, streams, Threat("linf", 1e-6), robust=robust))
    assert found.passed, found.figure
    few = autoattack_finds_no_more(Bench(noisy, images, classes, streams, Threat("linf", 1e-6), robust={3: 0.6}))
    assert "no image survived" in few.figure


def test_flags_are_failures():
    model = Linear(shape=(1, 6, 6))

    class Probabilities(Linear):
        def forward(self, x):
            return model(x).softmax(1)

    finding = autoattack_finds_no_more(bench(Probabilities(shape=(1, 6, 6)), 1e-5, {3: 1.0}))
    assert not finding.passed
    assert "probability" in finding.figure
