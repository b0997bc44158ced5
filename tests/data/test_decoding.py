"""One image at a time: modes, depths, transparency, orientation, the square, what is refused."""

import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from idc.data import decode_image, decoding, read_images
from idc.errors import IDCError
from pictures import encoded, plain, rgb


def test_an_image_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    array = rgb(8, 8)
    Image.fromarray(array).save(tmp_path / "x.png")
    for image in (tmp_path / "x.png", str(tmp_path / "x.png"), (tmp_path / "x.png").read_bytes()):
        decoded = decode_image(image, image_size=8, channels=3)
        assert decoded.dtype == torch.uint8
        np.testing.assert_array_equal(decoded.numpy(), array.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.array([[0, 257, 1000], [128 * 257, 65535, 150 * 257], [1, 200, 300]], dtype=np.uint16)
    written = (
        b"P5 3 3 65535\n" + ramp.astype(">u2").tobytes() if kind == "pgm" else encoded(Image.fromarray(ramp), kind)
    )
    decoded = decode_image(written, image_size=3, channels=1)
    np.testing.assert_array_equal(decoded[0].numpy(), [[0, 1, 4], [128, 255, 150], [0, 1, 1]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 200], [3, 255]], np.int32), [[0, 200], [3, 255]]),
        (np.array([[0.0, 0.2], [0.6, 1.02]], np.float32), [[0, 51], [153, 255]]),
        (np.array([[-0.05, 0.002], [0.0, 0.0]], np.float32), [[0, 1], [0, 0]]),
    ],
)
def test_numbers_without_a_range_of_their_own_are_read_by_one_rule(values: np.ndarray, expected: list) -> None:
    """Whatever the other pixels are: a dark image stays dark, a single overshoot does not blacken the rest."""
    decoded = decode_image(encoded(Image.fromarray(values), "tiff"), image_size=2, channels=1)
    np.testing.assert_array_equal(decoded[0].numpy(), expected)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 256]] * 2, np.int32),
        np.array([[0, -1]] * 2, np.int32),
        np.array([[0, 200.0]] * 2, np.float32),
        np.array([[0, np.nan]] * 2, np.float32),
        np.array([[0, np.inf]] * 2, np.float32),
    ],
)
def test_numbers_out_of_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(IDCError, match="outside of"):
        decode_image(encoded(Image.fromarray(values), "tiff"), image_size=2, channels=1)


def test_a_damaged_exif_block_does_not_spoil_good_pixels() -> None:
    image = encoded(plain(77), "png", exif=b"Exif\0\0" + b"MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03\xff\xff\xff\xff")
    assert decode_image(image, image_size=4, channels=1).unique().tolist() == [77]
    place = image.index(b"eXIf")
    for damaged in range(place + 4, place + 30, 5):  # its checksum then differs too
        changed = bytearray(image)
        changed[damaged] ^= 1
        assert decode_image(bytes(changed), image_size=4, channels=1).unique().tolist() == [77]


def test_only_the_formats_that_are_meant_are_opened(tmp_path: Path) -> None:
    """An EPS would have Pillow start Ghostscript, whatever the file is called."""
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n")
    with pytest.raises(IDCError, match="not an image"):
        decode_image(tmp_path / "x.png", image_size=4, channels=1)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(IDCError, match="a pipe or a device"):
        decode_image(tmp_path / "x.png", image_size=4, channels=1)


def test_transparent_pixels_lie_on_white_unless_four_channels_are_asked_for() -> None:
    array = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]], [[0, 0, 255, 51], [0, 0, 0, 255]]], dtype=np.uint8)
    image = encoded(Image.fromarray(array, "RGBA"))
    decoded = decode_image(image, image_size=2, channels=3).permute(1, 2, 0).tolist()
    assert decoded == [[[255, 0, 0], [255, 255, 255]], [[204, 204, 255], [0, 0, 0]]]
    np.testing.assert_array_equal(decode_image(image, image_size=2, channels=4).permute(1, 2, 0).numpy(), array)
    opaque = decode_image(encoded(plain(7, 2)), image_size=2, channels=4)
    assert opaque[:, 0, 0].tolist() == [7, 7, 7, 255]


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    image = image.resize((2, 2), Image.Resampling.NEAREST)
    assert decode_image(encoded(image), image_size=2, channels=3)[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 0]]
    see_through = decode_image(encoded(image, transparency=1), image_size=2, channels=3)
    assert see_through[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


def test_cmyk_two_colours_and_grey_alpha() -> None:
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert decode_image(encoded(cmyk, "tiff"), image_size=2, channels=3)[:, 0, 0].tolist() == [255, 0, 0]
    bits = Image.fromarray(np.array([[True, False], [False, True]]))
    assert decode_image(encoded(bits), image_size=2, channels=1)[0].tolist() == [[255, 0], [0, 255]]
    grey_alpha = Image.merge("LA", [Image.new("L", (2, 2), 100), Image.new("L", (2, 2), 0)])
    assert decode_image(encoded(grey_alpha), image_size=2, channels=1)[0, 0, 0] == 255


def test_colour_to_grey_and_grey_to_colour() -> None:
    green = decode_image(encoded(Image.new("RGB", (2, 2), (0, 255, 0))), image_size=2, channels=1)
    assert abs(int(green[0, 0, 0]) - 0.587 * 255) < 1
    assert decode_image(encoded(plain(9)), image_size=4, channels=3).unique().tolist() == [9]


@pytest.mark.parametrize(("orientation", "turn"), [(3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1))])
def test_the_exif_orientation_is_applied(orientation: int, turn: Callable[[Any], Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = rgb(6, 6)
    decoded = decode_image(encoded(Image.fromarray(array), exif=exif), image_size=6, channels=3)
    np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), turn(array))


@pytest.mark.parametrize(("height", "width"), [(8, 20), (20, 8), (8, 24)])
@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_oblong_images_are_scaled_by_their_short_side_then_lose_their_ends(height: int, width: int, size: int) -> None:
    image = Image.fromarray(rgb(height, width) // 4 + 96)  # no overshoot of the filter is clipped
    scaled = np.asarray(image.resize((width * size // 8, height * size // 8), Image.Resampling.BICUBIC), dtype=int)
    top, left = (scaled.shape[0] - size) / 2, (scaled.shape[1] - size) / 2
    decoded = decode_image(encoded(image), image_size=size, channels=3)
    assert decoded.shape == (3, size, size)
    if top % 1 == left % 1 == 0:
        expected = scaled[int(top) : int(top) + size, int(left) : int(left) + size].transpose(2, 0, 1)
        assert np.abs(decoded.numpy() - expected).max() <= 1
    else:  # the centre lies between two pixels: no crop of whole pixels has it
        assert size == 2


def test_cropping_without_scaling_keeps_the_pixels() -> None:
    array = rgb(4, 10)
    decoded = decode_image(encoded(Image.fromarray(array)), image_size=4, channels=3)
    np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), array[:, 3:7])


def test_shrinking_averages_instead_of_skipping() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    decoded = decode_image(encoded(Image.fromarray(checks)), image_size=8, channels=1)
    assert (decoded.float() - 127.5).abs().max() < 4


def test_read_images_scales_to_the_unit_interval(tmp_path: Path) -> None:
    plain(0).save(tmp_path / "a.png")
    plain(255).save(tmp_path / "b.png")
    images = read_images([tmp_path / "a.png", str(tmp_path / "b.png")], shape=(3, 5, 5))
    assert images.shape == (2, 3, 5, 5)
    assert images.dtype == torch.float32
    assert images.flatten(1).mean(1).tolist() == [0.0, 1.0]
    with pytest.raises(IDCError, match="square"):
        read_images([tmp_path / "a.png"], shape=(3, 5, 6))
    with pytest.raises(IDCError, match="no images"):
        read_images([], shape=(3, 5, 5))


def test_decode_image_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IDCError, match=r"no such file: .*missing\.png"):
        decode_image(tmp_path / "missing.png", image_size=4, channels=3)
    (tmp_path / "text.png").write_text("I am no image")
    with pytest.raises(IDCError, match=r"text\.png \(not an image\)"):
        decode_image(tmp_path / "text.png", image_size=4, channels=3)
    with pytest.raises(IDCError, match="directory"):
        decode_image(tmp_path, image_size=4, channels=3)
    with pytest.raises(IDCError, match="image of 4 bytes"):
        decode_image(b"junk", image_size=4, channels=3)
    jpeg = encoded(Image.fromarray(rgb(64, 64)), "jpeg")
    with pytest.raises(IDCError, match="truncated"):
        decode_image(jpeg[: len(jpeg) // 2], image_size=4, channels=3)
    plain(1, size=101).save(tmp_path / "big.png")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 10_000)
    with pytest.raises(IDCError, match=r"big\.png \(101x101 pixels\).*10,000"):
        decode_image(tmp_path / "big.png", image_size=4, channels=3)


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    """A PNG that claims side x side pixels and holds none: PIL itself warns of the first and refuses the second."""
    header = encoded(plain(0, size=1))
    forged = header[:16] + side.to_bytes(4, "big") * 2 + header[24:29]
    forged += zlib.crc32(forged[12:29]).to_bytes(4, "big") + header[33:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(IDCError, match=r"expected at most 50,000,000 pixels"):
            decode_image(forged, image_size=4, channels=1)
