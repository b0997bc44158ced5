"""A peer's training that begins with another one's weights."""

import pytest
import torch
import yaml

from idc.commands.train_peers import start_cnn, start_ddpm
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig
from idc.peers.diffusion import Diffusion, DiffusionConfig

HARDLY = {"epochs": 1.0, "batch_size": 32, "lr": 1e-12, "weight_decay": 0.0, "precision": "fp32", "ema_decay": 0.0,
          "final_limit": 20, "validation_limit": 20}  # fmt: skip
STILL = HARDLY | {"method": "standard"}


def begun(folder, names, **more):
    """A CNN of ``names``, and one that began with it on the digits and hardly moved."""
    own = CNN(CNNConfig("wrn-10-1", len(names), (1, 16, 16), 4, class_names=tuple(names)))
    own.save_pretrained(folder / "own")
    start_cnn("digits", folder / "run", start=str(folder / "own"), limit=32, changes=STILL, say=lambda _: None, **more)
    return own, CNN.from_pretrained(folder / "run")


@pytest.mark.parametrize("resume", [False, True])  # without a checkpoint, where there is none yet
@pytest.mark.parametrize("names", ["0123456789", "1023456789", "abcd"])
def test_weights_network_and_size_are_the_models_and_of_other_classes_the_last_layer_is_fresh(names, resume, tmp_path):
    own, found = begun(tmp_path, names, resume=resume)
    expected = ("wrn-10-1", 4, (1, 16, 16), 10)
    assert (found.config.arch, found.config.width, found.input_shape, found.num_classes) == expected
    for (name, before), after in zip(own.network.named_parameters(), found.network.parameters(), strict=True):
        if name.startswith("linear.") and names != "0123456789":
            assert before.shape != after.shape or not torch.allclose(before, after, atol=1e-3)
        else:
            torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["from"] == str(tmp_path / "own")


@pytest.mark.parametrize("more", [{"width": 8}, {"arch": "wrn-16-1"}, {"channels": 3}])
def test_another_network_is_refused(more, tmp_path):
    with pytest.raises(IDCError, match=r"leave --arch, --width and --channels out"):
        begun(tmp_path, "0123456789", **more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["eps", "attack_steps", "norm"])
def test_what_a_method_without_an_attack_would_not_heed_is_refused(name, tmp_path):
    """As large as its default, too."""
    value = {"eps": 8 / 255, "attack_steps": 10, "norm": "linf"}[name]
    with pytest.raises(IDCError, match=rf"{name} with method = standard, which has no attack"):
        start_cnn("digits", tmp_path / "run", limit=32, changes=STILL | {name: value}, say=lambda _: None)
    assert not (tmp_path / "run").exists()


def diffused(folder, names, changes=None, **more):
    """A diffusion model of ``names``, and one that began with it on the digits and hardly moved."""
    own = Diffusion(DiffusionConfig((1, 16, 16), len(names), (16, 16), timesteps=50, class_names=tuple(names)))
    own.save_pretrained(folder / "own")
    changes, said = HARDLY | (changes or {}), []
    start = str(folder / "own")
    start_ddpm("digits", folder / "run", start=start, limit=32, changes=changes, say=said.append, **more)
    return own, Diffusion.from_pretrained(folder / "run" / "best"), said


@pytest.mark.parametrize("names", ["", "0123456789", "1023456789", "abcd"])
def test_a_diffusion_model_goes_on_with_all_its_weights_but_the_embedding_of_other_classes(names, tmp_path):
    own, found, said = diffused(tmp_path, names)
    assert found.config.image_shape == (1, 16, 16)
    assert (found.config.channels, found.config.timesteps) == ((16, 16), 50)
    assert found.config.class_names == (tuple("0123456789") if names else ())
    for (name, before), after in zip(own.unet.named_parameters(), found.unet.parameters(), strict=True):
        if name.startswith("class_embedding.") and names != "0123456789":
            assert before.shape != after.shape or not torch.allclose(before, after, atol=1e-3)
        else:
            torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    assert sum("begins with the weights of" in line for line in said) == 1
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["from"] == str(tmp_path / "own")


@pytest.mark.parametrize(("names", "conditional"), [("", True), ("0123456789", False)])
def test_whether_it_is_told_the_class_may_be_asked_for(names, conditional, tmp_path):
    _, found, said = diffused(tmp_path, names, {"conditional": conditional})
    assert found.config.num_classes == 10 * conditional
    assert any("all but the classes' embedding" in line for line in said)


@pytest.mark.parametrize(("more", "remedy"), [({"network": "nano"}, "--network"), ({"channels": 3}, "--channels")])
def test_another_diffusion_network_is_refused(more, remedy, tmp_path):
    with pytest.raises(IDCError, match=f"leave {remedy} out"):
        diffused(tmp_path, "", **more)
    assert not (tmp_path / "run").exists()


def test_a_pipeline_of_another_network_is_refused_in_a_line(tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(
        sample_size=16, in_channels=1, out_channels=1, block_out_channels=(16, 32), norm_num_groups=16, **blocks
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "own")
    with pytest.raises(IDCError, match="expected a network that idc train-peer ddpm made"):
        start_ddpm("digits", tmp_path / "run", start=str(tmp_path / "own"), limit=32, changes=HARDLY, say=str)
    assert not (tmp_path / "run").exists()
