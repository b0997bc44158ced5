"""Starting the page, short of a browser: what it refuses, and the examples."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from idc.commands.serve import EXAMPLES, write_examples
from idc.errors import IDCError
from pictures import write_classes
from program import idc, refused
from tiny import save_digits_model, tiny_model


def test_without_gradio_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(idc("serve", tmp_path), "serve without gradio", "pip install 'idc-classifier[serve]'")


def test_bad_requests_are_a_line(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "gradio" else real(name))
    model = save_digits_model(tmp_path / "m")
    refused(idc("serve", tmp_path / "none"), "none")
    refused(idc("serve", model, "--port", 70000), "port 70000", "65535")
    refused(idc("serve", model, "--one-step", "--draws", 3), "leave --draws out")
    refused(idc("serve", model, "--mirrored"), "a network that is mirrored", "--one-step")
    refused(idc("serve", model, "--examples", tmp_path / "nothing.png"), "no such file")


def test_examples_are_spread_over_a_folder(tmp_path):
    write_classes(tmp_path / "data", ("ant", "bee"), 2 * EXAMPLES)
    (tmp_path / "out").mkdir()
    files, dark = write_examples(str(tmp_path / "data"), tiny_model(2, (1, 8, 8)), tmp_path / "out")
    shown = [int(np.asarray(Image.open(file))[0, 0]) for file in files]
    assert (len(shown), shown[0], shown[-1], dark) == (EXAMPLES, 0, 4 * EXAMPLES - 1, True)
    assert shown == sorted(set(shown))
    (tmp_path / "empty").mkdir()
    with pytest.raises(IDCError, match="images in the folder"):
        write_examples(str(tmp_path / "empty"), tiny_model(2, (1, 8, 8)), tmp_path / "out")


@pytest.mark.parametrize("channels", [1, 3])
def test_digits_are_examples_of_the_models_shape(channels, tmp_path):
    files, dark = write_examples("digits", tiny_model(10, (channels, 8, 8)), tmp_path)
    assert dark
    assert {Image.open(file).mode for file in files} == {"L" if channels == 1 else "RGB"}
    assert len(files) == EXAMPLES
