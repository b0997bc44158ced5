"""The ball and its steepest directions, held to their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idc.attacks.frequency import low_pass
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.noise import Streams

IDS = torch.arange(16)


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(16, 3, 5, 5, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(st.sampled_from(["linf", "l2", "l1"]), st.floats(0, 1), st.integers(0, 99))
def test_projection_lies_in_the_ball_and_keeps_what_does(norm, eps, seed):
    threat, x = Threat(norm, eps), images(seed)
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    found = threat.project(far, x)
    assert threat.size(found, x).max() <= eps + 1e-5
    assert found.min() >= 0
    assert found.max() <= 1
    torch.testing.assert_close(threat.project(found, x), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_direction_beats_every_other_of_its_length(norm):
    threat = Threat(norm, 0.5)
    gradient = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    best = (threat.steepest(gradient) * gradient).flatten(1).sum(1)
    for seed in range(50):
        other = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(seed))
        other = other / (other.abs().amax((1, 2, 3), keepdim=True) if norm == "linf" else other.flatten(1).norm(dim=1)
                         .view(-1, 1, 1, 1))  # fmt: skip
        assert ((other * gradient).flatten(1).sum(1) <= best + 1e-4).all()
    assert torch.equal(threat.steepest(torch.full_like(gradient, float("nan"))), torch.zeros_like(gradient))


def test_tiny_gradients_keep_their_direction():
    gradient = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * 1e-25
    assert Threat("l2", 1.0).steepest(gradient).flatten(1).norm(dim=1).tolist() == pytest.approx([1] * 4, rel=1e-4)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.5), ("l1", 5.0)])
def test_random_points_fill_the_ball(norm, eps):
    middle = torch.full((512, 3, 8, 8), 0.5)
    threat = Threat(norm, eps)
    size = threat.size(threat.random(middle, Streams(torch.arange(512), 0)), middle)
    assert size.max() <= eps * (1 + 1e-5)
    assert size.mean() > (0.95 if norm == "linf" else 0.45) * eps  # the largest of 192 pixels; a uniform length


@pytest.mark.parametrize(
    "wrong", [("linf", -0.1), ("linf", float("nan")), ("linf", 8), ("l3", 0.1), ("l2", float("inf"))]
)
def test_refuses_threats_that_make_no_sense(wrong):
    with pytest.raises(IDCError):
        Threat(*wrong)


def test_low_pass_is_the_projection_that_scipy_gives():
    from scipy.fft import dctn, idctn

    x = images()
    spectrum = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    spectrum[:, :, 3:, :] = 0
    spectrum[:, :, :, 3:] = 0
    expected = torch.from_numpy(idctn(spectrum, axes=(2, 3), norm="ortho"))
    torch.testing.assert_close(low_pass(x, 0.5), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(low_pass(x, 1.0), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("eps", [0.0, 0.3, 1.5, 20.0])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_projection_in_l1_is_the_nearest_point(eps, spread):
    """As scipy's SLSQP finds it, over u, v >= 0 with x = image + u - v: a quadratic programme."""
    from scipy.optimize import minimize

    threat, generator = Threat("l1", eps), torch.Generator().manual_seed(7)
    image = torch.rand(6, 1, 2, 3, generator=generator)
    image[:, :, 0, 0], image[:, :, 1, 1] = 0, 1
    x = image + spread * torch.randn(image.shape, generator=generator)
    found = threat.project(x, image).flatten(1).double()
    for one, own, wanted in zip(found, image.flatten(1).double(), x.flatten(1).double(), strict=True):
        n, own, wanted = len(own), own.numpy(), wanted.numpy()
        solved = minimize(
            lambda uv, n=n, own=own, wanted=wanted: ((own + uv[:n] - uv[n:] - wanted) ** 2).sum(),
            [0.0] * (2 * n), method="SLSQP", bounds=[*((0, 1 - v) for v in own), *((0, v) for v in own)],
            constraints={"type": "ineq", "fun": lambda uv: eps - uv.sum()}, options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        assert solved.success
        assert one.tolist() == pytest.approx((own + solved.x[:n] - solved.x[n:]).tolist(), abs=1e-4)


def test_each_image_may_have_a_ball_of_its_own_in_l1():
    radius = torch.linspace(0, 30, 16)
    far = images() + torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    found = Threat("l1", 1.0).project(far, images(), radius)
    for row in range(16):
        own = Threat("l1", radius[row].item()).project(far[row, None], images()[row, None])
        torch.testing.assert_close(found[row, None], own)


@pytest.mark.parametrize("eps", [0.001, 0.05, 12.0])
@pytest.mark.parametrize("share", [0.01, 1.0])
def test_rounding_adds_nothing_to_an_l1_norm(eps, share):
    """In 150,528 coordinates; nor is the ball left unused: a dense change of a tiny norm is hardly more than what
    rounding does."""
    generator = torch.Generator().manual_seed(5)
    x, far = torch.rand(2, 2, 3, 224, 224, generator=generator)
    far = torch.where(torch.rand(x.shape, generator=generator) < share, far, x)
    found = Threat("l1", eps).project(far, x)
    size = (found.double() - x.double()).abs().flatten(1).sum(1)
    assert (size <= eps * (1 + 1e-7)).all()
    assert (size >= eps * (1 - 1e-4)).all()


def test_a_step_in_l1_moves_the_largest_coordinates_alike():
    gradient = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    for share, count in ((None, 3), (torch.full((16,), 0.2), 15), (torch.zeros(16), 1), (torch.ones(16), 75)):
        step = Threat("l1", 1.0).steepest(gradient, share).flatten(1)
        size = gradient.flatten(1).abs()
        assert (step != 0).sum(1).tolist() == [count] * 16
        assert step.abs().sum(1).tolist() == pytest.approx([1] * 16)
        assert step.abs().amax(1).tolist() == pytest.approx([1 / count] * 16)
        least = size.masked_fill(step == 0, float("inf")).amin(1)
        assert (size.masked_fill(step != 0, 0).amax(1) <= least).all()
        assert ((step * gradient.flatten(1)) >= 0).all()
    assert not Threat("l1", 1.0).steepest(torch.full_like(gradient, float("nan"))).any()
