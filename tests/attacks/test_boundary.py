"""FAB: its projection is that of linear and quadratic programming, and it reaches closed forms."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from idc.attacks.boundary import FAB, to_plane
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images

GAPS = (0.1, -0.3, 0.8, -1.5, 2.0)


def random_planes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(len(GAPS), 1, 3, 3, generator=random)
    return x, torch.randn(x.shape, generator=random), torch.tensor(GAPS)


def test_linf_projection_is_that_of_a_linear_programme():
    x, normal, gap = random_planes()
    found = to_plane(x, normal, gap, Threat("linf"))
    for own, weights, c, change in zip(x.flatten(1), normal.flatten(1), GAPS, found.flatten(1), strict=True):
        eye, one = np.eye(9), np.ones((9, 1))
        result = linprog(
            np.r_[np.zeros(9), 1], A_eq=np.r_[weights.numpy(), 0][None], b_eq=[c],
            A_ub=np.block([[eye, -one], [-eye, -one]]), b_ub=np.zeros(18),
            bounds=[(-float(v), 1 - float(v)) for v in own] + [(0, None)],
        )  # fmt: skip
        assert result.success
        assert change.abs().max().item() == pytest.approx(result.fun, abs=1e-5)
    torch.testing.assert_close((found * normal).flatten(1).sum(1), gap)
    assert (x + found).min() >= 0
    assert (x + found).max() <= 1


def test_l2_projection_is_that_of_a_quadratic_programme():
    x, normal, gap = random_planes()
    found = to_plane(x, normal, gap, Threat("l2", 1.0))
    for own, weights, c, change in zip(x.flatten(1), normal.flatten(1), GAPS, found.flatten(1), strict=True):
        w = weights.double().numpy()
        result = minimize(
            lambda v: (v**2).sum(), np.zeros(9), jac=lambda v: 2 * v, method="SLSQP",
            bounds=[(-float(v), 1 - float(v)) for v in own],
            constraints={"type": "eq", "fun": lambda v, w=w, c=c: w @ v - c, "jac": lambda v, w=w: w},
        )  # fmt: skip
        assert result.success
        torch.testing.assert_close(change, torch.tensor(result.x, dtype=torch.float32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_plane_out_of_reach_is_approached_as_far_as_the_box_allows(norm):
    x, normal, _ = random_planes()
    found = to_plane(x, normal, torch.full((len(x),), 100.0), Threat(norm, 0.5))
    torch.testing.assert_close(x + found, (normal > 0).float())
    assert to_plane(x, torch.zeros_like(x), torch.ones(len(x)), Threat(norm, 0.5)).abs().max() == 0


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.08)])
def test_reaches_the_closed_form_of_a_linear_classifier(norm, eps):
    model = Linear(num_classes=4, shape=(1, 6, 6))
    images, classes = easy_images(model, 64)
    images = images.clamp(0.1, 0.9)
    classes = model(images).argmax(1)
    logits = model(images)
    margin = logits.gather(1, classes[:, None]) - logits
    weights = model.weights.flatten(1)
    sizes = torch.linalg.vector_norm(weights[classes][:, None] - weights, ord={"linf": 1, "l2": 2}[norm], dim=2)
    nearest = (margin / sizes.clamp(min=1e-9)).scatter(1, classes[:, None], float("inf")).amin(1)
    streams = Streams(torch.arange(64), 0)
    found = FAB(threat=Threat(norm, eps), steps=10, targets=3)(Target.of(model), images, classes, streams)
    fell = model(found).argmax(1) != classes
    clear = (nearest / eps - 1).abs() > 0.06  # it goes a twentieth too far on purpose
    assert 0.1 < (nearest < eps).float().mean() < 0.9
    assert torch.equal(fell[clear], (nearest < eps)[clear])


def test_noise_moves_the_boundary():
    model = Noisy(shape=(1, 6, 6))
    images, classes = easy_images(model, 4)
    target = Target.of(model)
    found = FAB(threat=Threat("linf", 0.5))(target, images, classes, Streams(torch.arange(4), 0))
    assert torch.equal(found, images)
    assert not target.tally.backward
