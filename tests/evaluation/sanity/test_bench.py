"""What the checks share: attacks on some of the images only, and no attack made twice."""

import pytest
import torch

from idc.attacks.target import ANSWER
from idc.attacks.threat import Threat
from idc.evaluation.inside import WHOLE
from idc.evaluation.sanity.bench import Bench, run_checks
from idc.evaluation.sanity.checks import (
    converged,
    fixed_noise_then_free,
    plain_pgd_hurts_no_more,
    plain_pgd_of_equal_cost,
    unbounded_attack_succeeds,
)
from idc.evaluation.sanity.gradients import answer_follows_gradient
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images

COUNT = 12  # images


def bench(model, eps: float) -> Bench:
    images, classes = easy_images(model, COUNT)
    return Bench(model, images, classes, Streams(torch.arange(COUNT), 0), Threat("linf", eps))


def asked(own: Bench) -> int:
    return sum(own.target.tally.backward.values())


def test_some_images_are_attacked_and_judged_as_among_all():
    """An image's random numbers are its own, so that those that need no further attack may be left out."""
    own, rows = bench(Noisy(sigma=0.3), 0.05), torch.tensor([1, 2, 5, 11])
    attack = own.pgd(surrogate=ANSWER, steps=3, restarts=2)
    every = own.right_after(attack, "some")
    assert 0 < every.mean() < 1
    torch.testing.assert_close(own.right_after(attack, "some", rows=rows), every[rows])


def test_further_restarts_are_spent_on_what_ten_left():
    """Of a model that the first ten break, the second ten ask nothing."""
    broken, held = bench(Linear(), 0.5), bench(Linear(), 1e-4)
    assert "restarts 10 to 20: 0.0% to 0.0%" in converged(broken).figure
    assert "restarts 10 to 20: 100.0% to 100.0%" in converged(held).figure
    steps = (20 + 40) * COUNT + 10 * COUNT  # PGD-20 and 40, and the search for the weakest function
    assert asked(broken) <= steps + 10 * 10 * COUNT < asked(held) == steps + 20 * 10 * COUNT


def test_the_answer_is_attacked_once_for_two_checks():
    own = bench(Noisy(sigma=0.3), 0.05)
    own.robust = dict.fromkeys(range(COUNT), 0.0)  # an evaluation went before
    run_checks(own, [fixed_noise_then_free])
    before = asked(own)
    run_checks(own, [plain_pgd_of_equal_cost])
    assert asked(own) - before == 20 * own.eot * COUNT  # the plain steps alone


def test_one_function_that_reaches_nothing_right_is_enough():
    """A second one is asked where the first leaves more, and only there."""
    own = bench(Linear(), 0.05)
    own.target = own.target.with_surrogates({"same": own.classifier.forward, "other": own.classifier.forward})
    own.weak_spot = "same"
    assert unbounded_attack_succeeds(own).passed
    assert own.target.tally.backward.get(ANSWER, 0) == 0
    lost = bench(Linear(), 0.05)
    lost.target = lost.target.with_surrogates({"flat": lambda x: 0 * lost.classifier(x)})
    lost.weak_spot = "flat"
    assert unbounded_attack_succeeds(lost).passed
    assert lost.target.tally.backward[ANSWER] > 0


@pytest.mark.parametrize("model", [Linear(), Noisy(sigma=0.02)])
def test_an_evaluation_that_leaves_what_plain_pgd_breaks_is_found_out(model):
    """A linear model at a radius that breaks every image: an evaluation that left a quarter of them was none."""
    honest, other = bench(model, 0.5), bench(model, 0.5)
    honest.robust = dict.fromkeys(range(COUNT), 0.0)
    assert plain_pgd_hurts_no_more(honest).passed
    other.robust = honest.robust | dict.fromkeys(range(COUNT // 4), 1.0)
    found = plain_pgd_hurts_no_more(other)
    assert not found.passed
    assert "PGD-20 leaves 0.0%, the evaluation 25.0%" in found.figure


class TurnedAround(Linear):
    """The same answers, with a gradient of the wrong sign, and an honest surrogate."""

    def surrogates(self):
        return {"straight": super().forward}

    def forward(self, images):
        return super().forward(2 * images.detach() - images)


class Rounded(Linear):
    """An answer without a gradient, and a surrogate that leads."""

    def surrogates(self):
        return {"straight": super().forward}

    def forward(self, images):
        return super().forward((images * 256).round() / 256)


def test_an_answer_without_a_gradient_has_none_that_is_turned_around():
    rounded = bench(Rounded(), 0.1)
    rounded.weak_spot = "straight"
    assert answer_follows_gradient(rounded).passed


def test_an_answer_whose_gradient_is_turned_around_is_found_out_though_a_surrogate_leads():
    honest, turned = bench(Linear(), 0.1), bench(TurnedAround(), 0.1)
    honest.target = honest.target.with_surrogates({"straight": honest.classifier.forward})
    honest.weak_spot = turned.weak_spot = "straight"
    assert answer_follows_gradient(honest).passed
    found = answer_follows_gradient(turned)
    assert not found.passed
    assert "rises for 100.0% of images along the gradient" in found.figure
    assert "for 0.0% along the answer's own" in found.figure
    turned.target = turned.target.with_surrogates(
        {"straight": Linear().forward, WHOLE.name: WHOLE.of(turned.classifier)}
    )
    assert answer_follows_gradient(turned).passed
