"""A CNN's training that begins with another one's weights."""

import pytest
import torch
import yaml

from idc.commands.train_peers import start_cnn
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig

STILL = {"epochs": 1.0, "batch_size": 32, "lr": 1e-12, "weight_decay": 0.0, "precision": "fp32", "ema_decay": 0.0,
         "method": "standard", "final_limit": 20, "validation_limit": 20}  # fmt: skip


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
