"""Substitutes that learn a model's answers: what they find, an evaluation must have found."""

import pytest
import torch
from test_checks import Noised, Trained, corners

from idc.attacks.threat import Threat
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.substitutes import _asked, networks, train_substitute, transfer_is_weaker
from idc.noise import Streams

COUNT = 64


class Finely(Trained):
    """Rounds its input to so many steps that hardly an answer changes: no gradient."""

    def forward(self, images):
        return self.net((images * 32).round() / 32)


def bench(model, eps=0.06, **settings):
    images, classes = corners(COUNT)
    return Bench(model, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", eps), **settings)


@pytest.mark.parametrize(("kind", "passed"), [(Noised, True), (Finely, False)])
def test_a_masked_gradient_does_less_than_a_substitute(kind, passed):
    finding = transfer_is_weaker(bench(kind()))
    assert finding.passed is passed, finding


def test_two_images_more_are_an_alarm():
    """Of an honest model that an evaluation has found what it could: but for one image, which is let pass, or two."""
    own = bench(Trained())
    left = dict(enumerate((own.white_each).tolist()))
    fell = [image for image, right in left.items() if not right]
    for count, passed in ((0, True), (len(fell), False)):
        own = bench(Trained(), robust=left | dict.fromkeys(fell[:count], 1.0))
        assert transfer_is_weaker(own).passed is passed


def test_substitutes_learn_from_more_than_the_images():
    own = bench(Trained())
    images, answers = _asked(own)
    assert images.shape == (8 * COUNT, 1, 8, 8)
    assert len({image.numpy().tobytes() for image in images}) > 7 * COUNT
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(answers, Trained()(images).argmax(1))
    state = torch.get_rng_state()
    for network in networks((1, 8, 8), 4):
        substitute = train_substitute(network, images, answers)
        assert (substitute(images).argmax(1) == answers).float().mean() > 0.9
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 5), (3, 64, 64)])
def test_substitutes_take_images_of_any_size(shape):
    for network in networks(shape, 7):
        assert network(torch.rand(2, *shape)).shape == (2, 7)
