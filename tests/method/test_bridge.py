"""The bridge against closed forms of a Brownian bridge, not against its own output."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idc.errors import IDCError
from idc.method.bridge import Bridge, BridgeSpec, default_visits, mixing


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_schedule_of_the_paper():
    bridge = Bridge()
    assert bridge.m == pytest.approx((0.001, 0.3336667, 0.6663333, 0.999), abs=1e-6)
    assert bridge.var == pytest.approx((0.001998, 0.444666, 0.444666, 0.001998), abs=1e-6)


def test_sin_schedule_is_geometric():
    m = mixing(BridgeSpec(timesteps=1000, schedule="sin"))
    assert m[-1] == 0.999
    # m_0 = 1.0075^-T, and neighbours have one common ratio, 1.0075^(T/(T-1)).
    assert m[0] == pytest.approx(1.0075**-1000, rel=1e-9)
    assert np.allclose(m[1:-1] / m[:-2], 1.0075 ** (1000 / 999))


@pytest.mark.parametrize(("timesteps", "visits"), [(2, (1, 0)), (3, (2, 1, 0)), (4, (3, 1, 0))])
def test_default_visits(timesteps, visits):
    assert default_visits(timesteps) == visits


@given(timesteps=st.integers(2, 1200), steps=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_default_visits_fall_from_end_to_start(timesteps, steps):
    visits = default_visits(timesteps, steps=steps)
    assert visits[0] == timesteps - 1
    assert visits[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(visits))
    assert len(visits) <= max(3, steps)


def test_forward_process_has_the_stated_mean_and_variance():
    bridge = Bridge(BridgeSpec(max_variance=0.5))
    n = 200_000
    x0, y = torch.full((n, 1, 1, 1), -0.5), torch.full((n, 1, 1, 1), 0.8)
    for t in range(4):
        m = np.linspace(0.001, 0.999, 4)[t]
        sample = bridge.sample(x0, y, torch.full((n,), t), draw(t, n, 1, 1, 1))
        assert sample.x_t.mean().item() == pytest.approx((1 - m) * -0.5 + m * 0.8, abs=0.01)
        assert sample.x_t.var().item() == pytest.approx(2 * 0.5 * (m - m * m), rel=0.02, abs=1e-5)
        assert torch.allclose(sample.x_t - sample.target, x0, atol=1e-6)


def test_gap_is_the_difference_of_neighbouring_mixing_weights():
    sample = Bridge().sample(*(draw(i, 4, 1, 2, 2) for i in range(2)), torch.arange(4), draw(3, 4, 1, 2, 2))
    assert sample.gap.flatten().tolist() == pytest.approx([0.001, 0.3326667, 0.3326667, 0.3326667], abs=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("t", "n"), [(3, 1), (2, 1), (3, 0), (1, 0)])
def test_reverse_step_with_the_true_x0_keeps_the_bridge(t, n, eta):
    """From x_t ~ q(x_t | x0, y) a step with x0_hat = x0 must land on the mean of q(x_n | x0, y), for eta = 1 on its
    variance too: that is the definition of the posterior that the step samples."""
    bridge, count = Bridge(), 400_000
    x0, y = torch.full((count, 1, 1, 1), 0.3), torch.full((count, 1, 1, 1), -0.7)
    x_t = bridge.sample(x0, y, torch.full((count,), t), draw(1, count, 1, 1, 1)).x_t
    x_n = bridge.step(x_t, x0, y, t, n, eta=eta, eps=draw(2, count, 1, 1, 1))
    m_n = np.linspace(0.001, 0.999, 4)[n]
    variance = 2 * (m_n - m_n**2)
    assert x_n.mean().item() == pytest.approx((1 - m_n) * 0.3 + m_n * -0.7, abs=5e-3)
    if eta == 1:
        assert x_n.var().item() == pytest.approx(variance, rel=0.02)
    else:
        assert x_n.var().item() < variance * 1.02


def test_a_step_onto_itself_changes_nothing():
    bridge = Bridge()
    x, x0, y, eps = (draw(i, 2, 3, 4, 4) for i in range(4))
    assert bridge.posterior_variance(1, 1) == pytest.approx(0, abs=1e-12)
    assert torch.allclose(bridge.step(x, x0, y, 1, 1, eta=1.0, eps=eps), x, atol=1e-6)


def test_step_is_the_formula_of_the_reverse_process():
    """The three terms as BBDM writes them, in float64 numpy."""
    m = np.linspace(0.001, 0.999, 4)
    var = 2 * (m - m**2)
    x, x0, y, eps = (draw(i, 2, 3, 4, 4).double() for i in range(4))
    t, n = 3, 1
    s2 = (var[t] - var[n] * ((1 - m[t]) / (1 - m[n])) ** 2) * var[n] / var[t]
    expected = (1 - m[n]) * x0 + m[n] * y
    expected = expected + math.sqrt((var[n] - s2) / var[t]) * (x - (1 - m[t]) * x0 - m[t] * y) + math.sqrt(s2) * eps
    assert torch.allclose(Bridge().step(x, x0, y, t, n, eta=1.0, eps=eps), expected, atol=1e-9)


@pytest.mark.parametrize("visits", [(), (2, 1, 0), (3, 4), (3, 1, 2), (3, -1)])
def test_bad_visits(visits):
    with pytest.raises(IDCError, match="visits"):
        Bridge().check_visits(visits)


@pytest.mark.parametrize(
    "settings", [{"timesteps": 1}, {"schedule": "cosine"}, {"max_variance": 0}, {"eta": 1.5}, {"eta": float("nan")}]
)
def test_bad_settings(settings):
    with pytest.raises(IDCError):
        BridgeSpec(**settings)
