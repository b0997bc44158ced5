"""DDPM's closed forms and samplers, and models of diffusers and by name."""

import pytest
import torch

from diffusion_models import SHAPE, cnn, gaussian_world, tiny
from idc.commands.opening import open_model
from idc.errors import IDCError
from idc.peers.diffpure import DiffPure
from idc.peers.diffusion import Diffusion
from idc.peers.diffusion_classifier import DiffusionClassifier


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


@pytest.mark.parametrize("change", [{"num_class_embeds": 3}, {"out_channels": 2}, {}])
def test_pipelines_that_are_no_denoisers(change, tmp_path):
    """Other networks; and one of whose weights is NaN."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    settings = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (4,),
                "layers_per_block": 1, "norm_num_groups": 4, "down_block_types": ("DownBlock2D",),
                "up_block_types": ("UpBlock2D",)}  # fmt: skip
    made = UNet2DModel(**settings | change)
    if not change:
        made.conv_out.bias.data.fill_(float("nan"))
    DDPMPipeline(made, DDPMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(IDCError, match="unconditional|predicts the noise" if change else "conv_out.bias: NaN"):
        Diffusion.from_pretrained(tmp_path)
