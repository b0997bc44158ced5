"""What defines an IDC but its weights is saved and read, also as it was before there was a choice of labels."""

import json
from pathlib import Path

import torch

from edited import edit_config
from idc import IDC
from idc.method.bridge import BridgeSpec
from idc.method.config import config_from_dict
from idc.storage.fields import recorded
from idc.storage.model_folder import CARD, CONFIG
from tiny import tiny_model


def test_every_setting_survives(tmp_path):
    model = tiny_model(
        3, (3, 8, 8), bridge=BridgeSpec(timesteps=6, eta=0.5, max_variance=2.0), visits=(5, 2), clip=False,
        temperature=0.2, label_seed=7, class_names=("a", "b", "ü"), label_kind="hadamard", label_cell=2,
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    again = IDC.from_pretrained(tmp_path)
    assert again.config == model.config
    assert torch.equal(again.labels, model.labels)
    assert config_from_dict(json.loads(json.dumps(recorded(model.config)))) == model.config
    text = (tmp_path / CARD).read_text()
    assert "- Classes: a, b, ü\n" in text
    assert "- Image labels: hadamard, seed 7, in cells of 2x2 pixels\n" in text
    assert "- Timesteps visited: 5, 2 of T = 6; eta = 0.5\n" in text


def test_what_says_nothing_of_labels_is_read_and_written_as_before(tmp_path, model):
    """A model of the paper's labels has the config, and so the hash of it, that it had before there were others."""
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    assert set(values["classifier"]) == {
        "num_classes", "image_shape", "unet", "bridge", "label_seed", "visits", "clip", "temperature", "class_names",
    }  # fmt: skip
    again = IDC.from_pretrained(tmp_path).config
    assert (again.label_kind, again.label_cell) == ("qr", 1)
    edit_config(tmp_path, lambda v: v["classifier"].update(label_kind="qr", label_cell=1))
    assert IDC.from_pretrained(tmp_path).config == model.config


def test_a_model_from_before_there_was_a_choice_loads():
    folder = Path(__file__).parents[2] / "models" / "digits"
    found = IDC.from_pretrained(folder)
    assert found.config.label_kind == "qr"
    assert recorded(found.config) == json.loads((folder / CONFIG).read_text())["classifier"]
