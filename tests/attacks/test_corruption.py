"""Corruptions: their closed forms, that they grow, and that an image's belong to it alone."""

import colorsys
import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from idc.attacks import corruption
from idc.attacks.corruption import KINDS, corrupted
from idc.errors import IDCError
from idc.noise import Streams

# Of the others the settings of the original do not make the pixels differ more and more: a larger smooth distortion
# turns into a smaller rough one, or fewer pixels of another grid; they are held below in other ways.
GROWING = [k for k in KINDS if k not in ("elastic-transform", "glass-blur", "pixelate", "frost")]


def photos(count: int = 4, side: int = 32, channels: int = 3) -> torch.Tensor:
    """Smooth shapes with edges, as photographs have them."""
    noise = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)).numpy()
    smooth = ndimage.gaussian_filter(noise, (0, 0, side / 16, side / 16), mode="wrap")
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    smooth[:, :, side // 4 : side // 2, side // 4 : side // 2] *= 0.3
    return torch.from_numpy((255 * smooth).round() / 255).float()


def streams(count: int = 4) -> Streams:
    return Streams(torch.arange(count) + 10, 3)


def distances(kind: str) -> list[float]:
    x = photos()
    return [(corrupted(x, kind, level, streams()) - x).square().mean().item() for level in range(1, 6)]


def test_there_are_fifteen_kinds_of_five_severities():
    assert len(KINDS) == 15
    assert {len(settings) for _, settings in KINDS.values()} == {5}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (20, 4), (32, 3)])
def test_an_image_comes_back_as_a_picture_of_its_shape(kind, side, channels):
    x = photos(2, side, channels)
    before = x.clone()
    for level in (1, 5):
        found = corrupted(x, kind, level, streams(2))
        assert (found.shape, found.dtype) == (x.shape, x.dtype)
        assert 0 <= found.min() <= found.max() <= 1
        torch.testing.assert_close((255 * found).round() / 255, found)
        assert torch.equal(found[:, 3:], x[:, 3:])  # alpha
    assert not torch.equal(found[:, :3], x[:, :3])
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_image_in_another_batch_is_the_same(kind):
    x, order = photos(), torch.tensor([3, 1])
    whole = corrupted(x, kind, 3, streams())
    assert torch.equal(corrupted(x[order], kind, 3, streams().take(order)), whole[order])
    assert torch.equal(corrupted(x, kind, 3, streams()), whole)
    if kind in ("gaussian-noise", "motion-blur", "elastic-transform", "frost"):
        assert not torch.equal(corrupted(x, kind, 3, Streams(streams().ids, 4)), whole)  # another seed


@pytest.mark.parametrize("kind", GROWING)
def test_it_grows_with_severity(kind):
    found = distances(kind)
    assert found[0] > 0
    assert found == sorted(found)
    assert found[4] > 1.5 * found[0]


def test_those_that_are_not_held_to_grow_are_far_from_nothing():
    assert distances("frost")[4] > distances("frost")[0]
    assert min([d for kind in set(KINDS) - set(GROWING) for d in distances(kind)]) > 1e-4


def test_gaussian_noise_has_its_variance():
    grey = torch.full((8, 3, 32, 32), 0.5)
    for level, sigma in enumerate(KINDS["gaussian-noise"][1], 1):
        noise = corrupted(grey, "gaussian-noise", level, streams(8)) - grey
        assert noise.std().item() == pytest.approx(sigma, rel=0.02)
        assert abs(noise.mean().item()) < 0.003


def test_shot_noise_has_the_variance_of_photons():
    for value in (0.2, 0.7):
        found = corrupted(torch.full((8, 3, 32, 32), value), "shot-noise", 3, streams(8))
        assert found.mean().item() == pytest.approx(value, rel=0.01)
        assert found.var().item() == pytest.approx(value / 100, rel=0.05)


def test_impulse_noise_changes_a_share_of_the_values_to_both_ends_alike():
    found = corrupted(torch.full((8, 3, 32, 32), 0.5), "impulse-noise", 5, streams(8))
    for end in (0.0, 1.0):
        assert (found == end).float().mean().item() == pytest.approx(0.035, rel=0.1)


def test_contrast_and_brightness_are_their_formulas():
    x = 0.2 + 0.5 * photos()
    mean = x.mean((2, 3), keepdim=True)
    expected = mean + 0.4 * (x - mean)
    torch.testing.assert_close(corrupted(x, "contrast", 3, streams()), expected, rtol=0, atol=0.51 / 255)
    bright = corrupted(x, "brightness", 2, streams())
    for own, other in zip(x.permute(0, 2, 3, 1).flatten(0, 2)[::97], bright.permute(0, 2, 3, 1).flatten(0, 2)[::97],
                          strict=True):  # fmt: skip
        hue, saturation, value = colorsys.rgb_to_hsv(*own.tolist())
        assert other.tolist() == pytest.approx(
            colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.1)), abs=0.51 / 255
        )


def test_pixelate_and_jpeg_are_pillows():
    x = photos()
    for own, small, file in zip(
        x, corrupted(x, "pixelate", 4, streams()), corrupted(x, "jpeg-compression", 3, streams()), strict=True
    ):
        picture = Image.fromarray((255 * own).round().byte().permute(1, 2, 0).numpy())
        expected = picture.resize((24, 24), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
        assert np.array_equal(np.asarray(expected), (255 * small).round().byte().permute(1, 2, 0).numpy())
        picture.save(buffer := io.BytesIO(), "JPEG", quality=58)
        assert np.array_equal(np.asarray(Image.open(buffer)), (255 * file).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("kind", ["motion-blur", "snow"])
def test_a_trail_is_the_filter_by_its_dense_kernel(kind):
    x = photos(1).double().numpy()
    for setting in KINDS[kind][1]:
        radius, sigma = setting[-3:-1] if kind == "snow" else setting
        length, angle = round(2 * radius), math.radians(33)
        dense = np.zeros((2 * length + 3, 2 * length + 3))
        for at in range(length + 1):
            place = length + 1 + at * np.array([math.sin(angle), math.cos(angle)])
            for corner in itertools.product(*({math.floor(v), math.floor(v) + 1} for v in place)):
                dense[corner] += math.exp(-((at / sigma) ** 2) / 2) * np.prod(1 - np.abs(place - corner))
        expected = ndimage.correlate(x[0], dense[None] / dense.sum(), mode="mirror")
        found = corruption._filtered(x, [corruption._trail(radius, sigma, 33, 1.0)])
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("channels", [2, 5])
def test_every_channel_is_changed_where_none_is_alpha(channels):
    x = photos(2, 16, channels)
    for kind in KINDS:
        found = corrupted(x, kind, 5, streams(2))
        assert found.shape == x.shape
        assert (found != x).flatten(2).any(2).all(), kind
    alone = torch.cat([corrupted(x[:, c : c + 1], "jpeg-compression", 3, streams(2)) for c in range(channels)], 1)
    assert torch.equal(corrupted(x, "jpeg-compression", 3, streams(2)), alone)


@pytest.mark.parametrize("kind", ["defocus-blur", "motion-blur", "zoom-blur", "glass-blur"])
def test_a_blur_leaves_a_plain_image_plain(kind):
    plain = torch.full((2, 3, 32, 32), 102 / 255)
    torch.testing.assert_close(corrupted(plain, kind, 5, streams(2)), plain)


def test_glass_moves_pixels_and_loses_none(monkeypatch):
    monkeypatch.setattr(corruption.ndimage, "gaussian_filter", lambda x, *rest, **more: x.copy())
    x = photos()
    found = corrupted(x, "glass-blur", 5, streams())
    for one, other in zip(x.flatten(2).permute(0, 2, 1), found.flatten(2).permute(0, 2, 1), strict=True):
        assert sorted(map(tuple, (255 * one).round().tolist())) == sorted(map(tuple, (255 * other).round().tolist()))


def test_an_elastic_transform_without_noise_is_affine():
    """Of severity 1: a ramp stays a ramp, but for the edges that are mirrored."""
    ramp = torch.linspace(0.2, 0.8, 32).view(1, 1, 1, 32).expand(2, 1, 32, 32)
    found = corrupted(ramp, "elastic-transform", 1, streams(2))[:, 0, 10:22, 10:22]
    for axis in (1, 2):
        assert found.diff(dim=axis).diff(dim=axis).abs().max() <= 2.1 / 255


def test_fog_of_nothing_and_plasma_fill_their_range():
    field = corruption._plasma((32, 32), 2.0, streams())
    assert (field.min((1, 2)) == 0).all()
    assert field.max() <= 1
    assert (np.abs(np.diff(field, axis=2)).mean() < 0.5 * field.std()).all()  # it is smooth
    black = torch.zeros(2, 3, 32, 32)
    assert torch.equal(corrupted(black, "fog", 5, streams(2)), black)  # as bright as the image at most


@pytest.mark.parametrize("wrong", [("rain", 1), ("fog", 0), ("fog", 6)])
def test_other_kinds_and_severities_are_refused(wrong):
    with pytest.raises(IDCError, match="one of gaussian-noise"):
        corrupted(photos(), *wrong, streams())
