"""Training a diffusion model: its loss against a closed form, and that it learns, with and without classes."""

import pytest
import torch

from idc.commands.opening import open_model
from idc.commands.train_peers import start_ddpm
from idc.peers.diffusion import Diffusion, DiffusionConfig
from idc.training.noise_objective import NoiseObjective
from idc.training.recipe import NoiseRecipe


class Zero(torch.nn.Module):
    def forward(self, x, t, class_labels=None):
        self.seen = class_labels
        return type("Out", (), {"sample": torch.zeros_like(x)})


def test_the_loss_is_the_squared_error_of_the_noise():
    """A network that answers 0 errs by the noise itself: E|eps|^2 = 1 a pixel, at every timestep."""
    model = Diffusion(DiffusionConfig((1, 8, 8), 10, channels=(4,), groups=4), Zero())
    objective = NoiseObjective(model, NoiseRecipe(conditional=True, drop=0.25))
    images, classes = torch.rand(4000, 1, 8, 8), torch.full((4000,), 3)
    terms = objective.loss(model.unet, images, classes, torch.Generator().manual_seed(0))
    assert terms["total"].item() == pytest.approx(1.0, abs=0.01)  # the standard error is 0.003
    withheld = (model.unet.seen == 10).float().mean().item()
    assert withheld == pytest.approx(0.25, abs=0.03)
    assert set(model.unet.seen.tolist()) == {3, 10}


@pytest.mark.parametrize("conditional", [False, True])
def test_it_learns(tmp_path, conditional):
    changes = {"epochs": 5, "batch_size": 16, "validate_every": 5, "checkpoint_every": 5, "precision": "fp32",
               "lr": 0.012, "ema_decay": 0.9, "conditional": conditional}  # fmt: skip
    result = start_ddpm("digits", tmp_path, limit=300, image_size=8, changes=changes, say=lambda text: None)
    assert result.accuracy is not None
    assert result.accuracy.to_dict()["mse"] < 0.5  # 1 is a network that has learnt nothing
    model = Diffusion.from_pretrained(tmp_path / "best")
    assert model.config.num_classes == (10 if conditional else 0)
    if conditional:
        classifier = open_model(f"zdc:ddpm={tmp_path / 'best'},timesteps=4")
        with torch.no_grad():
            assert torch.isfinite(classifier(torch.rand(2, 1, 8, 8))).all()
