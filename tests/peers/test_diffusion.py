"""DDPM's closed forms, the samplers, DiffPure's limits, and a diffusion classifier whose posterior is known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from idc.attacks.target import ANSWER, Target
from idc.commands.opening import open_model
from idc.cost import answer_cost
from idc.errors import IDCError
from idc.noise import Streams
from idc.peers.cnn import CNN, CNNConfig
from idc.peers.diffpure import DiffPure
from idc.peers.diffusion import Diffusion, DiffusionConfig
from idc.peers.diffusion_classifier import DiffusionClassifier

SHAPE = (1, 8, 8)


def tiny(num_classes: int = 0, **settings) -> Diffusion:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Diffusion(DiffusionConfig(SHAPE, num_classes, channels=(8, 8), groups=4, **settings)).eval()


def cnn() -> CNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CNN(CNNConfig("preact-resnet18", 4, SHAPE, width=2)).eval()


class Exact(nn.Module):
    """E[eps | x_t, class] where the images of class k are N(means[k], s^2): the best network there can be."""

    def __init__(self, means: torch.Tensor, s: float, alphas: torch.Tensor) -> None:
        super().__init__()
        self.means, self.s, self.alphas, self.error = means, s, alphas, 0.0

    def forward(self, x_t, t, class_labels):
        a = self.alphas[t].view(-1, 1, 1, 1)
        away = x_t - a.sqrt() * self.means[class_labels]
        return SimpleNamespace(sample=(1 - a).sqrt() * away / (a * self.s**2 + 1 - a) + self.error)


def gaussian_world(s: float = 0.5, classes: int = 4):
    """(Diffusion with the exact network, class means on [-1, 1])."""
    means = 0.6 * torch.randn(classes, *SHAPE, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    model = Diffusion(DiffusionConfig(SHAPE, classes, channels=(4,), groups=4), nn.Identity())
    model.unet = Exact(means, s, model.alphas)
    return model.eval(), means


# -- the schedule ------------------------------------------------------------------------------------------------------


def test_the_schedule_is_ddpms():
    """beta from 1e-4 to 0.02 in 1000 even steps (Ho et al., section 4), and q(x_t | x_0) step by step."""
    model = tiny()
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(model.alphas.double(), torch.cumprod(1 - beta, 0), rtol=1e-4, atol=1e-7)
    mean, variance = 1.0, 0.0
    for b in beta[:300].tolist():
        mean, variance = mean * (1 - b) ** 0.5, variance * (1 - b) + b
    x0, eps = torch.tensor([[[[0.5]]]]), torch.tensor([[[[2.0]]]])
    expected = torch.tensor([[[[0.5 * mean + 2.0 * variance**0.5]]]])
    torch.testing.assert_close(model.noised(x0, torch.tensor(299), eps), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.denoised(expected, torch.tensor(299), eps), x0, rtol=1e-3, atol=1e-5)


def test_samples_of_the_exact_network_have_the_data_s_moments():
    model, means = gaussian_world(0.1)  # four deviations from the mean are still images
    found = 2 * model.samples(2000, torch.Generator().manual_seed(0), steps=500) - 1
    for k in range(4):
        own = found[k::4]
        assert (own.mean(0) - means[k]).abs().mean() < 0.01  # the standard error is 0.0045
        assert own.std(0).mean().item() == pytest.approx(0.1, abs=0.01)  # few steps narrow it a little


def test_samples_forgive_a_network_that_errs():
    """x_0 from x_T is the noise's error times 157: unless it is kept in range, no step after it makes up for it."""
    model, means = gaussian_world(0.1)
    model.unet.error = 0.05
    found = 2 * model.samples(400, torch.Generator().manual_seed(0), steps=50) - 1
    for k in range(4):
        assert (found[k::4].mean(0) - means[k]).abs().mean() < 0.05


def test_the_sampler_with_eta_1_is_ddpms():
    from diffusers import DDPMScheduler

    model = tiny()
    ours = model.scheduler()
    ours.set_timesteps(1000)
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=False)
    theirs.set_timesteps(1000)
    x, eps, noise = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for t in (900, 100, 1):
        a = ours.step(eps, t, x, eta=1.0, variance_noise=noise).prev_sample
        mean = theirs.step(eps, t, x, generator=torch.Generator().manual_seed(1)).prev_sample
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        sigma = theirs._get_variance(t) ** 0.5
        torch.testing.assert_close(a - sigma * noise, mean - sigma * drawn, rtol=1e-4, atol=1e-5)


# -- DiffPure ----------------------------------------------------------------------------------------------------------


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(2))


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


# -- diffusion classifiers ---------------------------------------------------------------------------------------------


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


# -- names and files ---------------------------------------------------------------------------------------------------


def test_by_name(tmp_path):
    tiny(4).save_pretrained(tmp_path / "ddpm")
    cnn().save_pretrained(tmp_path / "cnn")
    pure = open_model(f"diffpure:ddpm={tmp_path}/ddpm,classifier={tmp_path}/cnn,depth=0.02,steps=4,eta=0")
    assert isinstance(pure, DiffPure)
    assert (pure.level, pure.steps, pure.eta) == (20, 4, 0.0)
    zdc = open_model(f"zdc:ddpm={tmp_path}/ddpm,timesteps=7")
    rdc = open_model(f"rdc:ddpm={tmp_path}/ddpm,timesteps=7,budget=4/255")
    assert isinstance(zdc, DiffusionClassifier)
    assert isinstance(rdc, DiffusionClassifier)
    assert (zdc.timesteps, zdc.maximise, rdc.maximise, rdc.budget) == (7, 0, 5, 4 / 255)
    again = Diffusion.from_pretrained(tmp_path / "ddpm")
    x, t = torch.randn(2, *SHAPE), torch.tensor([3, 500])
    assert torch.equal(again(x, t), tiny(4)(x, t))


@pytest.mark.parametrize(
    "name",
    [
        "zdc:",
        "zdc:ddpm",
        "diffpure:ddpm=x",
        "zdc:ddpm={ddpm},steps=3",
        "zdc:ddpm={ddpm},,",
        "zdc:ddpm={ddpm},timesteps=5,timesteps=6",
        "difpure:ddpm={ddpm}",
        "zdc",
        "{ddpm}",
        "rdc:ddpm={ddpm},rate=x",
    ],
)
def test_bad_names(name, tmp_path):
    tiny(4).save_pretrained(tmp_path / "ddpm")
    with pytest.raises(IDCError):
        open_model(name.format(ddpm=tmp_path / "ddpm"))


def test_a_pipeline_of_diffusers(tmp_path):
    """Any unconditional UNet2DModel with its scheduler, as the hub has them."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=500)).save_pretrained(tmp_path)
    model = Diffusion.from_pretrained(tmp_path)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 400])
    torch.testing.assert_close(model(x, t), unet.eval()(x, t).sample)
    assert (model.config.timesteps, model.config.image_shape) == (500, (3, 8, 8))
    torch.testing.assert_close(model.alphas, DDPMScheduler(num_train_timesteps=500).alphas_cumprod)
    with pytest.raises(IDCError, match=r"cannot be reached|check"):
        Diffusion.from_pretrained("nobody/nothing-at-all")


@pytest.mark.parametrize(
    "schedule",
    [{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, {"trained_betas": [0.01] * 50},
     {"beta_schedule": "sigmoid"}],
)  # fmt: skip
def test_a_pipelines_own_betas(schedule, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    theirs = DDPMScheduler(num_train_timesteps=50, **schedule)
    DDPMPipeline(unet, theirs).save_pretrained(tmp_path)
    torch.testing.assert_close(Diffusion.from_pretrained(tmp_path).alphas, theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("change", [{"num_class_embeds": 3}, {"out_channels": 2}])
def test_pipelines_that_are_no_denoisers(change, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    settings = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (4,),
                "layers_per_block": 1, "norm_num_groups": 4, "down_block_types": ("DownBlock2D",),
                "up_block_types": ("UpBlock2D",)}  # fmt: skip
    DDPMPipeline(UNet2DModel(**settings | change), DDPMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(IDCError, match=r"unconditional|predicts the noise"):
        Diffusion.from_pretrained(tmp_path)
