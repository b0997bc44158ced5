"""The reverse process against BBDM's definitions, written out here with plain loops."""

import numpy as np
import pytest
import torch

M = np.linspace(0.001, 0.999, 4)
VAR = 2 * (M - M**2)


@torch.no_grad()
def plain_chain(model, images, visits, noise, eta=1.0):
    """Sampling as BBDM states it: every step evaluated, in float64 arithmetic around the float32 network."""
    y = 2 * images.double() - 1
    x = y
    for i, t in enumerate(visits):
        x0 = (x - model.unet(x.float(), torch.full((len(x),), t), y.float()).double()).clamp(-1, 1)
        if i + 1 == len(visits):
            return (x0 + 1) / 2
        n = visits[i + 1]
        s2 = max((VAR[t] - VAR[n] * ((1 - M[t]) / (1 - M[n])) ** 2) * VAR[n] / VAR[t], 0)
        mean = (1 - M[n]) * x0 + M[n] * y + np.sqrt((VAR[n] - s2) / VAR[t]) * (x - (1 - M[t]) * x0 - M[t] * y)
        x = mean + eta * np.sqrt(s2) * noise[i].double()
    raise AssertionError


@pytest.fixture
def noise():
    return torch.randn(3, 5, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("visits", [(3,), (3, 0), (3, 1, 0), (3, 1, 1, 0), (3, 2, 1, 0), (3, 1)])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_translate_follows_the_definition(model, images, noise, visits, eta):
    found = model.with_answer(visits=visits, eta=eta).translate(images, noise=noise)
    assert torch.allclose(found.double(), plain_chain(model, images, visits, noise, eta), atol=1e-5)


def test_the_authors_visits_give_the_same_answer_for_one_evaluation_more(model, images, noise):
    short = model.translate(images, noise=noise[[0, 2]])
    assert torch.allclose(short.double(), plain_chain(model, images, (3, 1, 1, 0), noise), atol=1e-5)
    assert torch.equal(short, model.with_answer(visits=(3, 1, 1, 0)).translate(images, noise=noise))
    assert not torch.allclose(short, model.translate(images, noise=noise[[1, 2]]), atol=1e-3)


def test_a_generator_decides_the_noise_and_none_means_fresh(model, images):
    def run(seed):
        return model(images, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    assert not torch.equal(model(images), model(images))
    quiet = model.with_answer(eta=0.0)
    assert torch.equal(quiet(images), quiet(images))


def test_trajectory_holds_every_evaluation(model, images, noise):
    steps = model.trajectory(images, noise=noise)
    assert [s.t for s in steps] == [3, 1, 0]
    assert torch.equal(steps[0].x_t, 2 * images - 1)
    assert torch.allclose((steps[-1].x0_hat + 1) / 2, model.translate(images, noise=noise))
