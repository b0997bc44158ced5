"""The gradient engine on classifiers with a known answer."""

from dataclasses import replace

import pytest
import torch

from idc.attacks.gradient import GradientAttack, apgd, fgsm, mi_fgsm, pgd
from idc.attacks.objective import DLR, CrossEntropy, Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.noise import Streams, normal
from idc.types import straight_through
from noise_models import Linear, Noisy, easy_images
from tiny import tiny_model

EPS = {"linf": 0.05, "l2": 0.2}


def streams(count: int, seed: int = 0) -> Streams:
    return Streams(torch.arange(count), seed)


def margin_after(attack, model, images, classes):
    found = attack(Target.of(model), images, classes, streams(len(images)))
    return Margin()(model(found), classes)


def knapsack(slope: torch.Tensor, images: torch.Tensor, eps: float) -> torch.Tensor:
    """(B,) the most that an inner product with ``slope`` gains within L1 ``eps`` and [0, 1]: the budget goes to the
    largest coordinates, to each as much as its bound allows."""
    gains = []
    for image in images.flatten(1).tolist():
        left, gain = eps, 0.0
        for value, x in sorted(zip(slope.tolist(), image, strict=True), key=lambda pair: -abs(pair[0])):
            used = min(left, 1 - x if value > 0 else x)
            left, gain = left - used, gain + used * abs(value)
        gains.append(gain)
    return torch.tensor(gains)


@pytest.mark.parametrize("eps", [0.2, 2.0, 6.0])
@pytest.mark.parametrize("make", [pgd, apgd], ids=lambda f: f.__name__)
def test_reaches_the_closed_form_in_l1(make, eps):
    """Up to a share: a step moves several coordinates alike, and fixed steps end beside the best point."""
    model = Linear(num_classes=2, shape=(1, 8, 8))
    images, answers = easy_images(model, 32, spread=0.5)
    images, classes = images[answers == 1], torch.zeros_like(answers[answers == 1])  # all wrong
    gain = knapsack(model.weights[1] - model.weights[0], images, eps)
    target = replace(Target.of(model), stochastic=True)  # so that no image leaves when it is wrong
    attack = replace(make(Threat("l1", eps), steps=100), objective=Margin())
    found = attack(target, images, classes, streams(len(images)))
    reached = Margin()(model(found), classes) - Margin()(model(images), classes)
    assert (reached <= gain * (1 + 1e-5)).all()
    assert (reached >= (0.95 if make is apgd else 0.6) * gain).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("make", [pgd, apgd, fgsm, mi_fgsm], ids=lambda f: f.__name__)
def test_reaches_the_closed_form_on_a_linear_classifier(norm, make):
    model = Linear(num_classes=2)
    images, classes = easy_images(model, 64)
    rows = model.weights
    dual = {"linf": 1, "l2": 2}[norm]
    gain = EPS[norm] * torch.linalg.vector_norm(rows[0] - rows[1], ord=dual)
    best = Margin()(model(images), classes) + gain  # no pixel meets its bounds here
    attack = replace(make(Threat(norm, EPS[norm])), objective=Margin())
    reached = margin_after(attack, model, images, classes)
    if make is apgd:  # it stops at an image that is misclassified
        reached, best = reached[best < 0], best[best < 0]
        assert len(best) > 4
    assert (reached <= best + 1e-4).all()
    assert ((best - reached) <= 0.01 * gain).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_runs_reach_the_closed_form_accuracy(norm):
    model = Linear(num_classes=5)
    images, classes = easy_images(model, 128, spread=0.4)
    eps = EPS[norm] / 2
    logits, rows = model(images), model.weights
    dual = {"linf": 1, "l2": 2}[norm]
    gains = eps * torch.linalg.vector_norm(rows[None] - rows[classes][:, None], ord=dual, dim=2)
    falls = ((logits - logits.gather(1, classes[:, None]) + gains).scatter(1, classes[:, None], -1) > 0).any(1)
    attack = apgd(Threat(norm, eps), objective=DLR(), targets=4, steps=50)
    fell = margin_after(attack, model, images, classes) > 0
    assert 0.2 < falls.float().mean() < 0.9
    assert (fell != falls).sum() <= 1


def test_eot_gradient_is_the_large_sample_average():
    model = Noisy(sigma=0.3)
    images, classes = easy_images(model, 3)
    target = Target.of(model)

    def gradient(draws, seed):
        return target.gradient(ANSWER, images, classes, streams(3, seed), objective=CrossEntropy(), draws=draws)[1]

    samples = torch.stack([gradient(1, seed) for seed in range(400)])
    error = samples.std(0) / 400**0.5
    large = gradient(400, 1000)
    assert (((samples.mean(0) - large) / (error * 2**0.5)).abs() < 4.5).all()
    assert samples.std(0).max() > 0


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_chunks_do_not_change_the_gradient(chunk):
    model = tiny_model()
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    classes = torch.arange(5) % 4

    def run(size):
        return Target.of(model, chunk=size).gradient(
            "chain-inner", images, classes, streams(5), objective=Margin(), draws=4
        )

    for found, expected in zip(run(chunk), run(20), strict=True):
        # The chain amplifies rounding, which differs with the size of the batch.
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 6, 100])
def test_mean_of_outputs_is_the_objective_of_the_mean(chunk):
    """The gradient of the cross-entropy of the mean of four softmax outputs, written out."""
    model = Noisy(sigma=0.3)
    images, classes = easy_images(model, 3)
    target = Target(model, {"p": lambda x: model(x).softmax(1)}, stochastic=True, chunk=chunk)
    loss, gradient, mean = target.gradient(
        "p", images, classes, streams(3), objective=CrossEntropy(), draws=4, mean_of="outputs"
    )
    x = images.clone().requires_grad_()
    noise = 0.3 * normal(torch.arange(3), (1, 4, 4), seed=0, draws=4)
    expected = torch.stack([Linear.forward(model, x + n).softmax(1) for n in noise]).mean(0)
    value = torch.nn.functional.cross_entropy(expected, classes, reduction="none")
    (by_hand,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(mean, expected.detach())
    torch.testing.assert_close(loss, value.detach())
    torch.testing.assert_close(gradient, by_hand)


def test_each_image_has_its_own_random_numbers():
    """The result for an image is the same alone, in a batch and in another order; its start and noise are its own."""
    model = Noisy()
    images, classes = easy_images(model, 6)
    attack = pgd(Threat("linf", 0.1), steps=3, eot=2, restarts=2)
    ids = torch.tensor([40, 2, 77, 5, 6, 9])
    together = attack(Target.of(model), images, classes, Streams(ids, 1))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = attack(Target.of(model, chunk=5), images[order], classes[order], Streams(ids[order], 1))
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-6)
    alone = attack(Target.of(model), images[2:3], classes[2:3], Streams(ids[2:3], 1))
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-6)
    assert not torch.allclose(attack(Target.of(model), images, classes, Streams(ids, 2)), together)


def test_restarts_are_chosen_for_each_image():
    """A loss with two slopes: only some random starts find the right side, and each image keeps its best."""

    class TwoSided(Linear):
        def forward(self, images):
            first = images[:, 0, 0, 0] - 0.5
            wrong = torch.where(first > 0, 1.5 * first - 0.05, -0.2 * first - 0.05)
            return torch.stack([torch.zeros_like(first), wrong], 1)

    model, images = TwoSided(num_classes=2), torch.full((200, 1, 4, 4), 0.5)
    classes = torch.zeros(200, dtype=torch.int64)
    one, ten = (
        (margin_after(pgd(Threat("linf", 0.1), restarts=r, judge_draws=1), model, images, classes) > 0).float().mean()
        for r in (1, 10)
    )
    assert 0.4 < one < 0.6  # half of the starts lie on the side that succeeds
    assert ten > 0.99


def test_bpda_passes_a_quantiser():
    linear = Linear(num_classes=2)
    images, classes = easy_images(linear, 32)

    def hard(x):
        return linear((x * 8).round() / 8)

    classes = hard(images).argmax(1)
    target = Target(hard, {"smooth": straight_through(hard, linear)})
    threat = Threat("linf", 0.2)
    left = []
    for name in (ANSWER, "smooth"):
        found = pgd(threat, surrogate=name, random_start=False)(target, images, classes, streams(32))
        left.append((hard(found).argmax(1) == classes).float().mean())
    stuck, through = left
    assert stuck == 1
    assert through < 0.2


def test_low_frequency_perturbations_lose_less_than_their_share_on_smooth_weights():
    model = Linear(num_classes=2, shape=(1, 8, 8))
    ramp = torch.linspace(-1, 1, 8).repeat(8, 1)
    model.weights = torch.stack([ramp.flatten(), -ramp.flatten()])
    images, classes = easy_images(model, 16)
    full, low = (
        margin_after(pgd(Threat("l2", 0.2), objective=Margin(), low_frequency=s), model, images, classes)
        for s in (None, 0.25)
    )
    start = Margin()(model(images), classes)
    assert ((low - start) > 0.95 * (full - start)).all()


def test_fixed_noise_repeats_and_free_noise_does_not():
    seen = []

    class Spy(Noisy):
        def forward(self, images):
            noise = torch.randn_like(images)
            seen.append(noise)
            return Linear.forward(self, images + 0.1 * noise)

    model = Spy()
    images, classes = easy_images(model, 2)
    for fixed in (True, False):
        seen.clear()
        pgd(Threat("linf", 0.1), steps=3, fixed_noise=fixed)(Target.of(model), images, classes, streams(2))
        assert torch.equal(seen[0], seen[1]) is fixed


def test_eps_zero_and_no_images():
    model = Linear()
    images, classes = easy_images(model, 4)
    assert torch.equal(pgd(Threat("linf", 0.0))(Target.of(model), images, classes, streams(4)), images)
    empty = apgd(Threat("linf", 0.1))(Target.of(model), images[:0], classes[:0], streams(0))
    assert empty.shape == (0, 1, 4, 4)


def test_leaves_global_state_weights_and_modes_alone():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(16, 4))
    images, classes = easy_images(Linear(), 8)
    network.train()
    state = torch.get_rng_state()
    pgd(Threat("linf", 0.1))(Target(network, stochastic=True), images, classes, streams(8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in network.parameters())
    assert network.training
    assert not images.requires_grad


def test_dropout_is_drawn_from_the_images_streams():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(16, 4)).train()
    images, _ = easy_images(Linear(), 4)
    target = Target(network, stochastic=True)
    first, again = (target.logits(ANSWER, images, streams(4), draws=3) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    torch.testing.assert_close(target.logits(ANSWER, images[1:2], streams(4).take(torch.tensor([1])), draws=3),
                               first[:, 1:2])  # fmt: skip


def test_calls_are_counted():
    model = Noisy()
    images, classes = easy_images(model, 4)
    target = Target.of(model)
    pgd(Threat("linf", 0.1), steps=5, eot=3)(target, images, classes, streams(4))
    assert (target.tally.forward, target.tally.backward) == ({ANSWER: 60}, {ANSWER: 60})
    quiet = Target.of(Linear())
    pgd(Threat("linf", 0.1), steps=5, eot=3)(quiet, images, classes, streams(4))
    assert quiet.tally.backward == {ANSWER: 20}  # no noise: one draw says it all


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"restarts": 0}, {"eot": 0}, {"targets": -1}], ids=str)
def test_refuses_settings_that_make_no_sense(wrong):
    with pytest.raises(IDCError):
        GradientAttack(threat=Threat("linf", 0.1), **wrong)
    with pytest.raises(IDCError):
        pgd(Threat("linf", 0.1), surrogate="none")(Target.of(Linear()), *easy_images(Linear(), 2), streams(2))
