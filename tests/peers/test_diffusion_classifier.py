"""A diffusion classifier whose posterior is known, its cost, and the maximisation of RDC."""

import pytest
import torch

from diffusion_models import SHAPE, cnn, gaussian_world, images, tiny
from idc.cost import answer_cost
from idc.errors import IDCError
from idc.peers.diffpure import DiffPure
from idc.peers.diffusion_classifier import DiffusionClassifier


@pytest.mark.parametrize("weights", ["uniform", "elbo"])
def test_classes_are_ranked_as_the_posterior_does(weights):
    """Classes N(m_k, s^2): log p(x | k) = -|x - m_k|^2 / (2 s^2) + c, known exactly."""
    model, means = gaussian_world()
    random = torch.Generator().manual_seed(5)
    x = means[[0, 1, 2, 3]] + 0.5 * torch.randn(4, *SHAPE, generator=random)
    x = x.clamp(-1, 1)
    log_p = -(x[:, None] - means).flatten(2).square().sum(2) / (2 * 0.25)
    classifier = DiffusionClassifier(model, timesteps=1000, weights=weights, rows=4000)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        logits = torch.stack([classifier((x + 1) / 2) for _ in range(8)]).mean(0)
    assert torch.equal(logits.argsort(1), log_p.argsort(1))
    if weights == "elbo":  # even the nats agree, up to the bound's gap and the noise
        found, expected = (v - v.mean(1, keepdim=True) for v in (logits, log_p))
        assert (found - expected).abs().max() < 0.08 * expected.abs().max()


def test_the_published_cost():
    cost = answer_cost(DiffusionClassifier(tiny(10), timesteps=125), torch.device("cpu"))
    assert cost["network_evaluations"] == 1250
    assert answer_cost(DiffPure(tiny(), cnn(), depth=0.1, steps=10), torch.device("cpu"))["network_evaluations"] == 11
    assert answer_cost(cnn(), torch.device("cpu"))["network_evaluations"] == 1


def test_chunks_change_neither_answer_nor_gradient():
    def run(rows: int):
        model = DiffusionClassifier(tiny(4), timesteps=6, rows=rows)
        x = images().requires_grad_()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            logits = model(x)
        return logits, torch.autograd.grad(logits[:, 0].sum(), x)[0]

    one, many = run(1000), run(1)
    torch.testing.assert_close(many[0], one[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(many[1], one[1], rtol=1e-3, atol=1e-4)


def test_batches_stay_within_rows():
    """5 images x 4 classes x 6 timesteps: at most as many rows as asked for in any call of the network."""
    model = DiffusionClassifier(tiny(4), timesteps=6, rows=9)
    seen = []
    hook = model.diffusion.unet.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    with torch.no_grad():
        model(images(5))
    hook.remove()
    assert sum(seen) == 5 * 4 * 6
    assert max(seen) <= 9


def test_rdcs_gradient_goes_through_its_maximisation():
    """Central differences of the whole answer, its noise held; the straight-through surrogate has another gradient."""
    model = DiffusionClassifier(tiny(4), timesteps=3, maximise=2, budget=0.05, rate=0.3).double()
    direction = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    inside = 0.3 + 0.4 * images(1).double()

    def value(x: torch.Tensor, function=None) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return (function or model)(x)[0, 1]

    def gradient(function=None) -> torch.Tensor:
        x = inside.clone().requires_grad_()
        return torch.autograd.grad(value(x, function), x)[0]

    exact, straight = gradient(), gradient(model.surrogates()["straight-through"])
    with torch.no_grad():
        ahead, behind = (value(inside + h * direction) for h in (1e-6, -1e-6))
        torch.testing.assert_close(value(inside, model.surrogates()["straight-through"]), value(inside))
    slope = ((ahead - behind) / 2e-6).item()
    assert (exact * direction).sum().item() == pytest.approx(slope, rel=1e-3)
    assert (straight * direction).sum().item() != pytest.approx(slope, rel=1e-3)


def test_the_noise_levels_of_the_maximisation():
    """Ratios of noise to image from 0.4 to 0.6, as published: (1 - a) / a between 0.16 and 0.36."""
    model = DiffusionClassifier(tiny(4), timesteps=3, maximise=5)
    a = model.diffusion.alphas[model.levels]
    assert ((1 - a) / a).sqrt().tolist() == pytest.approx([0.4, 0.45, 0.5, 0.55, 0.6], abs=0.005)


def test_maximisation_stays_within_its_budget_and_raises_the_likelihood():
    model, means = gaussian_world(s=0.2)
    model.unet.means = torch.cat([means, means.mean(0, keepdim=True)])  # no class: the mean of all
    classifier = DiffusionClassifier(model, timesteps=20, maximise=10, budget=0.05)
    x = ((means.mean(0, keepdim=True) + 0.3).clamp(-1, 1) + 1) / 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = classifier.likelier(x)
    assert (moved - x).abs().max() <= 0.05 + 1e-6
    centre = (means.mean(0) + 1) / 2
    assert (moved - centre).square().sum() < 0.8 * (x - centre).square().sum()


def test_a_model_that_knows_no_classes_is_refused():
    with pytest.raises(IDCError, match="knows classes"):
        DiffusionClassifier(tiny())
