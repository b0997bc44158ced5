"""Paths, PIL images and arrays become what the data reader makes of the same file."""

import numpy as np
import pytest
import torch
from PIL import Image

from idc.data import read_images
from idc.data.held import as_images
from idc.errors import IDCError
from pictures import rgb

SHAPE = (3, 8, 8)


@pytest.fixture
def file(tmp_path):
    Image.fromarray(rgb(20, 30)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_all_are_as_the_file_is_read(file):
    expected = read_images([file], shape=SHAPE)
    array = rgb(20, 30)
    opened = Image.open(file)
    for given in (file, str(file), opened, array, array / 255, (array / 255).astype(np.float32), array[None], [array]):
        assert torch.equal(as_images(given, SHAPE), expected)
    assert opened.getpixel((0, 0)) == tuple(array[0, 0])  # still the caller's
    assert torch.equal(as_images([file, array, opened], SHAPE), expected.expand(3, -1, -1, -1))
    grey = array[:, :, 0]
    assert torch.equal(as_images(grey, SHAPE), as_images(np.stack([grey] * 3, 2), SHAPE))
    assert torch.equal(as_images(grey[:, :, None], (1, 8, 8)), as_images(Image.fromarray(grey), (1, 8, 8)))


def test_16_bits_are_read_as_from_a_file(tmp_path):
    Image.fromarray(rgb(9, 9)[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as opened:
        assert torch.equal(as_images(opened, (1, 8, 8)), read_images([tmp_path / "deep.png"], shape=(1, 8, 8)))


def test_a_tensor_is_left_as_it_is_and_nothing_is_an_empty_batch(images):
    assert as_images(images, SHAPE) is images
    assert as_images([], SHAPE).shape == (0, *SHAPE)


@pytest.mark.parametrize(
    "given",
    [
        rgb(5, 5).transpose(2, 0, 1), np.full((4, 4), 2.0), np.full((4, 4), np.nan), np.zeros((0, 4), np.uint8),
        rgb(4, 4).astype(np.int64), np.array(["a"]), [np.zeros((2, 2, 2, 2))], 3, [None], b"bytes", {"a": 1},
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(given):
    with pytest.raises(IDCError):
        as_images(given, SHAPE)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(IDCError, match=r"none\.png"):
        as_images([tmp_path / "none.png"], SHAPE)


def test_predict_takes_them(model, file):
    found = model.predict([file, rgb(20, 30), Image.open(file)], draws=2, ids=[0, 0, 0])
    assert torch.equal(found.distances, found.distances[:1].expand(3, -1))
    assert torch.allclose(model.predict(str(file), draws=2).distances, found.distances[:1], atol=1e-6)
