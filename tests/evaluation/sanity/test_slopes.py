"""A gradient is held against the slopes of the answer; truth is the linear model's."""

import pytest
import torch

from idc.attacks.threat import Threat
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.slopes import gradient_is_the_answers
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images

COUNT = 8
SOME = (torch.arange(16) % 4 == 0).view(1, 4, 4).float()


def bench(model, eps=0.1, survived=1.0):
    images, classes = easy_images(model, COUNT)
    robust = dict.fromkeys(range(COUNT), survived)
    return Bench(model, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", eps), robust=robust)


class Partly(Linear):
    """A gradient at a quarter of the pixels alone."""

    def forward(self, images):
        return super().forward(images.detach() + SOME * (images - images.detach()))


class WrongAtSome(Linear):
    """At three quarters of the pixels the sign is wrong."""

    def forward(self, images):
        return super().forward(images.detach() + (2 * SOME - 1) * (images - images.detach()))


class PartlyNoisy(Partly):
    stochastic = True

    def forward(self, images):
        return super().forward(images + 0.05 * torch.randn_like(images))


@pytest.mark.parametrize("model", [Linear(), Noisy(0.05)], ids=lambda m: type(m).__name__)
def test_an_honest_gradient_is_that_of_the_answer(model):
    found = gradient_is_the_answers(bench(model))
    assert found.passed
    assert "are 1.00 alike on 8 images (answer)" in found.figure


@pytest.mark.parametrize("kind", [Partly, WrongAtSome, PartlyNoisy])
def test_a_gradient_that_is_right_at_some_pixels_alone_is_found_out(kind):
    checked = bench(kind())
    assert not gradient_is_the_answers(checked).passed
    checked.target = checked.target.with_surrogates({"whole": Linear().forward})
    found = gradient_is_the_answers(checked)
    assert found.passed
    assert "(whole)" in found.figure


class Levels(Linear):
    def forward(self, images):
        return super().forward((images * 8).round() / 8)


class Constant(Linear):
    def forward(self, images):
        return 0 * super().forward(images) + torch.eye(4)[0]


class Unseeded(Linear):
    stochastic = True

    def forward(self, images):
        self.source = getattr(self, "source", torch.Generator().manual_seed(0))
        return super().forward(images + 0.1 * torch.randn(images.shape, generator=self.source))


@pytest.mark.parametrize(
    ("checked", "why"),
    [(bench(Levels()), "slopes of steps of two sizes differ by"), (bench(Constant()), "slopes of steps of two sizes"),
     (bench(Unseeded()), "the answer has noise of its own"), (bench(Partly(), survived=0.0), "no image survived"),
     (bench(Partly(), eps=0.0), "no image survived")],
)  # fmt: skip
def test_where_nothing_can_be_compared_it_is_not_asked(checked, why):
    found = gradient_is_the_answers(checked)
    assert found.passed
    assert not found.made
    assert found.figure.startswith(why)
