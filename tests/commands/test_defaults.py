"""What a training takes for images of one's own where nothing else is asked for."""

from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image

from idc.commands import defaults
from idc.commands.train import build_model, start_training
from idc.commands.train_peers import start_cnn
from idc.cost import forward_flops
from idc.data import load
from idc.method.classifier import IDC
from idc.method.labels import orthogonal_labels
from idc.method.presets import PRESETS
from idc.training.recipe import CNN_RECIPES, ONE_STEP
from pictures import write_classes


def data(shape, num_classes):
    """Nothing but a shape and a number of classes."""
    some = load("digits", split="test", limit=10)
    names = tuple(map(str, range(num_classes)))
    return replace(some, images=torch.zeros(10, *shape, dtype=torch.uint8), class_names=names)


@pytest.mark.parametrize(
    ("shape", "num_classes", "cell"),
    [((3, 32, 32), 2, 8), ((3, 32, 32), 24, 8), ((3, 32, 32), 25, 4), ((3, 32, 32), 100, 2), ((1, 32, 32), 10, 4),
     ((3, 64, 64), 10, 16), ((3, 96, 96), 10, 16), ((3, 40, 40), 10, 8), ((3, 28, 28), 10, 4), ((3, 12, 12), 10, 4)],
)  # fmt: skip
def test_labels_have_room_for_twice_as_many_classes_and_can_be_made(shape, num_classes, cell):
    found = defaults.usual_labels(data(shape, num_classes), defaults.usual_network(shape[1]))
    values = shape[0] * (shape[1] // cell) * (shape[2] // cell)
    assert found["label_cell"] == cell
    assert values >= 2 * num_classes
    labels = orthogonal_labels(num_classes, shape, kind=found["labels"], cell=cell)
    assert labels.shape == (num_classes, *shape)


@pytest.mark.parametrize(
    ("kind", "side", "num_classes", "cell"),
    [("blocks", 32, 20, 4), ("hadamard", 40, 10, 4), ("qr", 32, 20, 8), ("mine:stripes", 32, 20, 1)],
)
def test_squares_leave_room_for_labels_of_the_kind_that_is_asked_for(kind, side, num_classes, cell):
    some, network = data((3, side, side), num_classes), PRESETS["base-encoder"]
    found = defaults.usual_labels(some, network, kind=kind)
    assert (found["labels"], found["label_cell"]) == (kind, cell)
    if ":" not in kind:
        assert len(orthogonal_labels(num_classes, some.shape, kind=kind, cell=cell)) == num_classes
    assert defaults.usual_labels(some, network, kind=kind, cell=5)["label_cell"] == 5  # refused where it is made


def test_every_number_of_images_makes_enough_updates():
    """Between 600 and a few thousand from a hundred images on, and more only where 20 epochs are more."""
    before = 0
    for images in (100, 399, 400, 1_499, 1_728, 10_000, 45_000):
        recipe = defaults.usual_schedule(images)
        updates = recipe.epochs * (images // recipe.batch_size)
        assert updates >= 450
        assert updates <= 2_000 or recipe.epochs == 20
        assert recipe.batch_size >= before
        before = recipe.batch_size
        assert recipe.epochs / recipe.validate_every <= 40
    assert defaults.usual_schedule(3).epochs == 150


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_classes(folder, ("cat", "dog"), 20)
    return folder


def trained(photos, out, size, **more):
    """The classifier that a short training gives, and the lines that it says."""
    said = []
    changes = {"epochs": 1.0, "ema_decay": 0.0} | more.pop("changes", {})
    start_training(str(photos), out, image_size=size, changes=changes, say=said.append, **more)
    return IDC.from_pretrained(out / "last").config, " ".join(said)


def test_images_of_ones_own_get_an_answer_in_one_step_and_are_told_so(photos, tmp_path):
    config, said = trained(photos, tmp_path / "r", 16)
    assert config.unet == PRESETS["nano-encoder-bn"]
    assert (config.label_kind, config.visits) == ("hadamard", (3,))
    assert "nano-encoder-bn (--preset)" in said
    assert "1 epoch (--epochs, --minutes) in batches of 32 (--batch-size)" in said
    trained(photos, tmp_path / "r", 16, resume=True)


def test_a_flag_changes_what_it_names_alone(photos, tmp_path):
    """Not size, network, answer or schedule too."""
    usual, said = trained(photos, tmp_path / "usual", None)
    assert usual.image_shape == (1, 32, 32)
    cells, words = trained(photos, tmp_path / "cells", None, labels="qr", label_cell=4)
    assert (cells.label_kind, cells.label_cell) == ("qr", 4)
    assert replace(cells, label_kind=usual.label_kind, label_cell=usual.label_cell) == usual
    assert words.replace("qr in squares of 4", "hadamard in squares of 8") in said
    other, words = trained(photos, tmp_path / "other", None, preset="digits-encoder", visits=(3,))
    assert other.unet == PRESETS["digits-encoder"] != usual.unet
    assert replace(other, unet=usual.unet) == usual
    assert "network digits-encoder (--preset), an answer in one step" in words
    named, words = trained(photos, tmp_path / "named", 64, preset="nano-encoder-bn", label_cell=16,
                           changes={"t_weights": (0.0, 0.0, 0.0, 1.0)}, visits=(3,))  # fmt: skip
    assert named == trained(photos, tmp_path / "same", 64)[0]
    assert named.unet.patch == 2


CHAINS = {"visits": (3, 1, 0)}, {"preset": "nano"}, {"recipe": "fast"}, {"changes": {"t_weights": (0.0, 0.5, 0.0, 0.5)}}


@pytest.mark.parametrize("more", CHAINS, ids=lambda more: next(iter(more)))
def test_a_chain_that_is_asked_for_is_trained(photos, tmp_path, more, monkeypatch):
    small = replace(PRESETS["nano"], base_channels=8, head_channels=8, groups=4, position_channels=0)
    monkeypatch.setitem(PRESETS, "nano", small)
    config, said = trained(photos, tmp_path / "r", 8, **more)
    assert (config.unet, config.visits) == (small, (3, 1, 0))
    told = "network nano (--preset), an answer along timesteps 3, 1, 0 (--visits), labels qr pixel by pixel"
    assert told in said if "recipe" not in more else "chosen" not in said


def test_images_are_as_large_as_a_network_of_large_patches_needs(tmp_path):
    for index, name in enumerate(("a", "b") * 4):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / name / f"{index}.png")
    coarse = replace(PRESETS["nano-encoder-bn"], patch=8)
    assert coarse.stride == 64
    assert defaults.usual_size(str(tmp_path), coarse) is None
    assert defaults.usual_size(str(tmp_path), replace(coarse, patch=6)) == 48
    assert defaults.usual_size(str(tmp_path), PRESETS["base-encoder"]) == 32


@pytest.mark.parametrize(("side", "size"), [(16, None), (32, None), (28, 32), (40, 32)])
def test_images_are_scaled_if_they_are_large_or_of_a_size_that_the_network_does_not_take(tmp_path, side, size):
    for index, name in enumerate(("a", "b") * 4):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (side, side)).save(tmp_path / name / f"{index}.png")
    assert defaults.usual_size(str(tmp_path)) == size


def test_a_short_training_is_validated_as_often_as_a_long_one():
    assert defaults.usual_schedule(300, 5.0).checkpoint_every == 1
    assert defaults.usual_schedule(300, 5.0).epochs == 5


def test_a_cnns_rate_falls_with_its_batches():
    """Of as many updates as an IDC's; CIFAR-10 is trained as the recipe has it."""
    few, many = defaults.usual_cnn_schedule(1_000), defaults.usual_cnn_schedule(45_000)
    assert (few.batch_size, few.lr, few.epochs) == (64, pytest.approx(0.1), defaults.usual_schedule(1_000).epochs)
    assert replace(many, checkpoint_every=1.0, validate_every=1.0) == CNN_RECIPES["fast"]


def test_a_cnn_on_own_images_takes_it_unless_told_otherwise(photos, tmp_path):
    said = []
    start_cnn(str(photos), tmp_path / "run", changes={"epochs": 1.0, "method": "standard"}, say=said.append,
              limit=16, image_size=8)  # fmt: skip
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (recipe["batch_size"], recipe["lr"], recipe["epochs"]) == (32, pytest.approx(0.05), 1)
    assert recipe["width"] == 16
    assert (defaults.usual_width("digits", 1_132), defaults.usual_width("photos", 45_000)) == (8, 0)


@pytest.mark.parametrize(("side", "patch"), [(8, 1), (32, 1), (48, 1), (64, 2), (96, 2), (128, 4), (72, 1)])
def test_larger_images_enter_as_patches(side, patch):
    """An answer to 64 pixels a side then costs a third more than one to 32, not four times as much."""
    spec = defaults.usual_network(side)
    assert spec.patch == patch
    if side == 64:
        models = [build_model(defaults.usual_network(s), data((3, s, s), 8), ONE_STEP) for s in (32, 64)]
        small, large = (forward_flops(m.one_step, torch.zeros(1, *m.input_shape)) for m in models)
        assert large < 1.4 * small
