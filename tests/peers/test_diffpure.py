"""DiffPure's limits: without depth its classifier, with it the posterior's mean; its gradients and weak spots."""

import pytest
import torch
from torch import nn

from diffusion_models import SHAPE, cnn, gaussian_world, images, tiny
from idc.attacks.target import ANSWER, Target
from idc.errors import IDCError
from idc.noise import Streams
from idc.peers.diffpure import DiffPure
from idc.peers.diffusion import DiffusionConfig


def test_without_depth_it_is_its_classifier():
    model, x = DiffPure(tiny(), cnn(), depth=0.0), images()
    assert torch.equal(model(x), cnn()(x))
    assert not model.stochastic


@pytest.mark.parametrize(("steps", "eta"), [(100, 1.0), (10, 1.0), (10, 0.0)])
def test_purification_pulls_towards_the_data(steps, eta):
    """One class N(m, s^2): diffusing to level a and sampling back gives, for a fixed image, the posterior's mean
    m + (x - m) a s^2 / (a s^2 + 1 - a), up to the sampler's steps; a deterministic one shrinks less."""
    model, means = gaussian_world(s=0.3, classes=1)
    model.config = DiffusionConfig(SHAPE, 1, channels=(4,), groups=4)
    model.unet.means = means[[0, 0]]  # the label for no class is 1
    level = model.alphas[99]
    x = (means[:1] + 0.4).expand(400, *SHAPE)
    purifier = DiffPure(model, _Pass(), depth=0.1, steps=steps, eta=eta)
    with torch.no_grad():
        found = 2 * purifier.purify((x + 1) / 2) - 1
    away = (found - means[0]).mean().item()
    exact = (0.4 * level * 0.09 / (level * 0.09 + 1 - level)).item()
    if eta == 1.0:
        assert away == pytest.approx(exact, abs=0.03)
    else:
        assert exact < away < 0.4  # the flow keeps the quantile: sqrt of the factor
        assert away == pytest.approx(0.4 * (level * 0.09 / (level * 0.09 + 1 - level)).sqrt().item(), abs=0.03)


class _Pass(nn.Module):
    num_classes, input_shape, stochastic = 2, SHAPE, False

    def surrogates(self):
        return {}

    def forward(self, x):
        return x.flatten(1)[:, :2]


def test_gradients_are_exact_and_checkpointing_changes_nothing():
    """Against central differences, through the whole purifier with its noise held."""
    model = DiffPure(tiny(), cnn(), depth=0.01, steps=2).double()
    probe, direction = torch.randn(2, 1, *SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def value(x: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return (model.purify(x) * probe).sum()

    def gradient(checkpointing: bool) -> torch.Tensor:
        model.diffusion.checkpointing = checkpointing
        x = images(1).double().requires_grad_()
        return torch.autograd.grad(value(x), x)[0]

    exact = gradient(True)
    torch.testing.assert_close(gradient(False), exact)
    with torch.no_grad():
        ahead, behind = (value(images(1).double() + h * direction) for h in (1e-5, -1e-5))
    assert ((ahead - behind) / 2e-5).item() == pytest.approx((exact * direction).sum().item(), rel=1e-4)


def test_surrogates_see_the_same_noise_and_differ_where_they_should():
    model, x = DiffPure(tiny(), cnn(), depth=0.1, steps=10), images()
    target, streams = Target.of(model), Streams(torch.arange(3), 0)
    answer = target.logits(ANSWER, x, streams)
    for name in ("chain", "identity"):  # these only change the gradient
        torch.testing.assert_close(target.logits(name, x, streams), answer, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(target.logits("classifier", x, streams)[0], cnn()(x))
    for name in ("few-steps", "one-step"):
        assert not torch.allclose(target.logits(name, x, streams), answer, atol=1e-4)


@pytest.mark.parametrize("steps", [0, 3, 7, 101])
def test_steps_must_divide_the_schedule(steps):
    with pytest.raises(IDCError, match="steps"):
        DiffPure(tiny(), cnn(), depth=0.1, steps=steps)
