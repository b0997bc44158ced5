"""Randomised smoothing against closed forms: binomial tails written out, linear classifiers whose radius is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import nn

from idc.errors import IDCError
from idc.evaluation.adapter import Wrapped
from idc.evaluation.smoothing import ABSTAINS, Smoothed, Smoothing, lower_bound, predict
from idc.noise import Streams
from idc.types import check_images
from noise_models import Linear, Noisy
from tiny import tiny_model

SIGMA = 0.05  # images around 0.5 then stay ten deviations away from the clamp, and closed forms hold


def at_distance(model: Linear, distances: torch.Tensor) -> torch.Tensor:
    """Images (B, 1, 4, 4) of class 0 at the given L2 distances from a two-class linear model's boundary."""
    direction = model.weights[0] - model.weights[1]
    step = (direction / direction.norm()).view(1, *model.input_shape)
    return 0.5 + distances.view(-1, 1, 1, 1) * step


def streams(count: int, seed: int = 0) -> Streams:
    return Streams(torch.arange(count), seed)


# -- bounds ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1e-6, 0.3))
def test_the_bound_is_the_probability_whose_tail_is_alpha(counts, alpha):
    k, n = counts
    low = lower_bound(k, n, alpha)
    if k == 0:
        assert low == 0
        return
    tail = math.fsum(math.comb(n, j) * low**j * (1 - low) ** (n - j) for j in range(k, n + 1))
    assert tail == pytest.approx(alpha, rel=1e-6)
    if k == n:
        assert low == pytest.approx(alpha ** (1 / n), rel=1e-12)


@pytest.mark.parametrize("p", [0.3, 0.5, 0.9, 0.999])
def test_the_bound_covers_as_often_as_it_says(p):
    counts, repeats = np.random.default_rng(0).binomial(200, p, 20_000).tolist(), 20_000
    bounds = {k: lower_bound(k, 200, 0.05) for k in set(counts)}
    wrong = sum(bounds[k] > p for k in counts)
    assert wrong / repeats <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / repeats)


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=5).filter(any), st.floats(1e-4, 0.3))
def test_abstention_is_the_binomial_test_written_out(counts, alpha):
    first, second = sorted(counts)[-1:-3:-1]
    n = first + second
    tail = sum(math.comb(n, j) for j in range(first, n + 1)) / 2**n
    if abs(2 * tail - alpha) < 1e-9:
        return
    expected = counts.index(first) if 2 * tail <= alpha else ABSTAINS
    assert predict(torch.tensor(counts), alpha) == expected


def test_the_largest_radius_is_the_closed_form_and_no_count_exceeds_it():
    smoothing = Smoothing(sigma=0.25, n=1000)
    assert smoothing.largest_radius == pytest.approx(0.25 * norm.ppf(0.001 ** (1 / 1000)))
    radii = [smoothing.radius(k) for k in range(0, 1001, 10)]
    assert radii == sorted(radii)
    assert radii[-1] == smoothing.largest_radius
    assert smoothing.radius(500) == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [({"sigma": 0.0}, "sigma"), ({"sigma": -1.0}, "sigma"), ({"sigma": math.nan}, "sigma"),
     ({"sigma": math.inf}, "sigma"), ({"alpha": 0.0}, "alpha"), ({"alpha": 1.0}, "alpha"), ({"n": 0}, "n = 0"),
     ({"n0": 0}, "n0 = 0"), ({"n": 9}, "10 or more")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(change, word):
    with pytest.raises(IDCError, match=word):
        Smoothing(**{"sigma": 0.25} | change)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5, 0.25])
def test_the_least_number_of_samples_is_the_least(alpha):
    with pytest.raises(IDCError) as refused:
        Smoothing(sigma=1, n=1, alpha=alpha)
    least = int(refused.value.expected.split()[0])
    assert Smoothing(sigma=1, n=least, alpha=alpha).largest_radius > 0
    with pytest.raises(IDCError):
        Smoothing(sigma=1, n=least - 1, alpha=alpha)


# -- classifiers whose radius is known ---------------------------------------------------------------------------------


def test_radii_approach_a_linear_models_distance_from_below():
    model = Linear(num_classes=2)
    distances = SIGMA * torch.tensor([0.25, 0.5, 1.0, 1.5, 2.0])
    images = at_distance(model, distances)
    gaps = []
    for n in (100, 1000, 30_000):
        smoothed = Smoothed(model, Smoothing(sigma=SIGMA, n=n), chunk=5000)
        found = [smoothed.certify(images[i : i + 1], streams(5).take(torch.tensor([i]))) for i in range(5)]
        radii = torch.tensor([c.radius for c in found])
        assert (radii < distances).all()
        gaps.append((distances - radii) / distances)
    assert [c.selected for c in found] == [c.prediction for c in found] == [0] * 5
    assert (gaps[2] < gaps[1]).all()
    assert gaps[0].mean() > gaps[1].mean()
    assert gaps[2].max() < 0.1


def test_a_radius_is_too_large_no_more_often_than_alpha():
    """A thousand images at one known distance: the share of radii beyond it is alpha, but for the bound's grain."""
    model, alpha, count = Linear(num_classes=2), 0.05, 1000
    smoothing = Smoothing(sigma=SIGMA, n=300, alpha=alpha)
    images = at_distance(model, torch.full((count,), SIGMA))
    counts = Smoothed(model, smoothing, chunk=50_000).count(images, streams(count), smoothing.n)
    assert (counts.sum(1) == smoothing.n).all()
    assert counts.dtype == torch.int64
    share = sum(smoothing.radius(k) > SIGMA for k in counts[:, 0].tolist()) / count
    assert 0.01 < share <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / count)


def test_a_tie_is_abstained_from_and_has_no_radius():
    model, alpha, count = Linear(num_classes=2), 0.05, 400
    smoothing = Smoothing(sigma=SIGMA, n=300, alpha=alpha)
    counts = Smoothed(model, smoothing, chunk=50_000).count(at_distance(model, torch.zeros(count)), streams(count), 300)
    allowed = alpha + 3 * math.sqrt(alpha * (1 - alpha) / count)
    assert sum(predict(c, alpha) != ABSTAINS for c in counts) / count <= allowed
    assert sum(smoothing.radius(int(c[0])) > 0 for c in counts) / count <= allowed


def test_a_stochastic_base_classifier_has_the_radius_of_its_probability():
    """Noise s of its own beside the smoothing's sigma: P(class) = Phi(d / sqrt(sigma^2 + s^2)), below Phi(d / sigma),
    so what can be proved is sigma d / sqrt(sigma^2 + s^2); the true radius is d."""
    own, distance = 0.04, 1.5 * SIGMA
    model = Noisy(sigma=own, num_classes=2)
    smoothing = Smoothing(sigma=SIGMA, n=30_000)
    found = Smoothed(model, smoothing, chunk=5000).certify(at_distance(model, torch.tensor([distance])), streams(1))
    provable = SIGMA * distance / math.hypot(SIGMA, own)
    assert 0.93 * provable < found.radius < provable < distance


# -- samples -----------------------------------------------------------------------------------------------------------


class Strict(Linear):
    """Refuses what leaves [0, 1], as IDC does, and keeps what it saw."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.seen: list[torch.Tensor] = []

    def forward(self, images):
        check_images(images, self.input_shape)
        self.seen.append(images)
        return super().forward(images)


def test_the_base_classifier_sees_gaussian_noise_that_is_clamped_last():
    model = Strict()
    Smoothed(model, Smoothing(sigma=0.5)).count(torch.full((1, 1, 4, 4), 0.25), streams(1), 2000)
    seen = torch.cat(model.seen)
    assert len(seen) == 2000
    for threshold in (0.0, 0.25, 0.6, 1.0):
        share = (seen <= threshold).float().mean().item()
        expected = norm.cdf((threshold - 0.25) / 0.5) if threshold < 1 else 1
        assert share == pytest.approx(expected, abs=0.01)
    assert torch.unique(seen[:, 0, 0, 0][(seen[:, 0, 0, 0] > 0) & (seen[:, 0, 0, 0] < 1)]).numel() > 600


@pytest.mark.parametrize("base", [Linear(), Noisy(), tiny_model(4, (1, 4, 4))], ids=["linear", "noisy", "idc"])
def test_counts_do_not_depend_on_batch_or_order(base):
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    smoothing, own = Smoothing(sigma=0.3), Streams(torch.tensor([3, 1, 4, 15, 9, 2]), 7)
    expected = Smoothed(base, smoothing).count(images, own, 50)
    assert expected.sum(1).tolist() == [50] * 6
    assert len(expected.unique(dim=0)) > 1
    for chunk in (1, 7, 64):
        assert torch.equal(Smoothed(base, smoothing, chunk).count(images, own, 50), expected)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    assert torch.equal(Smoothed(base, smoothing).count(images[order], own.take(order), 50), expected[order])


def test_picking_and_proving_use_different_samples():
    model = Strict(num_classes=2)
    smoothing = Smoothing(sigma=0.1, n0=40, n=40)
    Smoothed(model, smoothing).certify(torch.full((1, 1, 4, 4), 0.5), streams(1))
    first, second = model.seen
    assert not (first[:, None] == second[None]).flatten(2).all(2).any()


class SharesNoise(nn.Module):
    """Draws one picture of noise for a whole batch: rows that say the same are not independent."""

    def __init__(self, model: Linear) -> None:
        super().__init__()
        self.model, self.input_shape = model, model.input_shape

    def forward(self, images):
        return self.model(images + 0.3 * torch.randn(1, *self.input_shape))


def test_nothing_is_proved_of_logits_that_are_not_finite():
    class Gaps(Linear):
        def forward(self, images):
            return super().forward(images).masked_fill(images.mean((1, 2, 3))[:, None] > 0.5, float("nan"))

    base = Smoothed(Gaps(), Smoothing(0.5, n=100))
    with pytest.raises(IDCError, match="NaN or infinite logits"):
        base.count(torch.full((1, 1, 4, 4), 0.5), Streams(torch.arange(1), 0), 100)


def test_samples_that_are_not_independent_are_refused():
    image = torch.full((1, 1, 4, 4), 0.5)
    for honest in (Linear(), Noisy(), tiny_model(4, (1, 4, 4))):
        Smoothed(honest, Smoothing(sigma=0.1)).check(image)
    cheat = Wrapped(SharesNoise(Linear()), input_shape=(1, 4, 4))
    assert cheat.stochastic
    with pytest.raises(IDCError, match="once for a batch"):
        Smoothed(cheat, Smoothing(sigma=0.1)).check(image)
