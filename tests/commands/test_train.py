"""A training that begins with another model's weights."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from idc import IDC
from idc.commands.train import start_training
from idc.errors import IDCError
from tiny import tiny_model

STILL = {"epochs": 1.0, "batch_size": 32, "lr": 1e-12, "weight_decay": 0.0, "precision": "fp32", "ema_decay": 0.0}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A model of four classes, and a training on the ten digits that begins with it and hardly moves."""
    folder = tmp_path_factory.mktemp("started")
    tiny_model(4, label_kind="hadamard", label_cell=2, visits=(3, 0)).save_pretrained(folder / "four")
    begin(folder, folder / "ten")
    return folder


def begin(folder, out, **more):
    return start_training(
        "digits", out, start=str(folder / "four"), limit=32, changes=STILL, say=lambda _: None, **more
    )


def test_weights_and_answer_are_the_models_classes_the_datas(started):
    four, ten = IDC.from_pretrained(started / "four"), IDC.from_pretrained(started / "ten")
    for key, value in four.unet.state_dict().items():
        torch.testing.assert_close(ten.unet.state_dict()[key], value, rtol=0, atol=1e-9)
    assert (ten.config.num_classes, ten.config.image_shape) == (10, (1, 8, 8))
    same = ("unet", "bridge", "visits", "label_kind", "label_cell")
    assert [getattr(ten.config, n) for n in same] == [getattr(four.config, n) for n in same]
    assert str(started / "four") in (started / "ten" / "last" / "README.md").read_text()


def test_a_run_that_its_data_make_short_is_told_so(started, tmp_path):
    said = []
    (tmp_path / "r.yaml").write_text("\n".join(f"{name}: {value}" for name, value in STILL.items()))
    begun = {"start": str(started / "four"), "limit": 32, "say": said.append}
    start_training("digits", tmp_path / "run", recipe=str(tmp_path / "r.yaml"), **begun)
    taken = f"begins with the weights of {started / 'four'}: all "
    assert (
        sum(line.startswith(taken) and line.endswith("of the 10 classes: new; it takes grey images") for line in said)
        == 1
    )
    assert any(line == "32 images make only 1 update in 1 epoch: raise --epochs" for line in said)


def test_a_run_resumed_before_its_first_checkpoint_begins_with_the_models_weights_too(started, tmp_path):
    begin(started, tmp_path / "run", resume=True)
    held, found = (load_file(f / "model.safetensors") for f in (started / "four", tmp_path / "run" / "last"))
    torch.testing.assert_close(found["unet.net.conv_in.weight"], held["unet.net.conv_in.weight"], rtol=0, atol=1e-9)


def test_another_image_size(started, tmp_path):
    begin(started, tmp_path / "run", image_size=16)
    found = load_file(tmp_path / "run" / "last" / "model.safetensors")
    held = load_file(started / "four" / "model.safetensors")
    torch.testing.assert_close(found["unet.net.conv_in.weight"], held["unet.net.conv_in.weight"], rtol=0, atol=1e-9)


def test_a_run_says_what_it_began_with_and_goes_on_only_with_that(started):
    assert yaml.safe_load((started / "ten" / "recipe.yaml").read_text())["from"] == str(started / "four")
    begin(started, started / "ten", resume=True)
    IDC.from_pretrained(started / "four").save_pretrained(started / "copy")
    with pytest.raises(IDCError, match=r"from = .*copy"):
        start_training("digits", started / "ten", start=str(started / "copy"), limit=32, changes=STILL, resume=True)


@pytest.mark.parametrize(
    ("more", "words"),
    [({"preset": "digits", "image_size": 32}, "same network"), ({"channels": 3}, "channels"),
     ({"image_size": 7, "preset": "nano"}, "multiple of")],
)  # fmt: skip
def test_what_cannot_be_begun_with(started, tmp_path, more, words):
    with pytest.raises(IDCError, match=words):
        begin(started, tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()
