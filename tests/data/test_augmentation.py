"""Augmentation against numpy's flips and padded windows, and against the geometry of a rotated dot."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from idc.data import Augmentation, augment
from idc.errors import IDCError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 64, channels: int = 3, height: int = 8, width: int = 8) -> torch.Tensor:
    """Images of random bytes: no window of one equals another."""
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator(1))


def as_bytes(images: torch.Tensor) -> NDArray[np.uint8]:
    """Augmented images back to the bytes they were moved from; only exact multiples of 1/255 are let through."""
    scaled = images.numpy().astype(np.float64) * 255
    assert np.abs(scaled - np.rint(scaled)).max() < 1e-4
    return np.rint(scaled).astype(np.uint8)


def test_all_off_is_division_by_255() -> None:
    images = noise()
    result = Augmentation()(images, generator())
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), images.numpy() / 255, rtol=1e-6)


def test_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    images = noise(400)
    result = as_bytes(Augmentation(flip=True)(images, generator()))
    mirrored = [bool((new == old[..., ::-1]).all()) for new, old in zip(result, images.numpy(), strict=True)]
    kept = [bool((new == old).all()) for new, old in zip(result, images.numpy(), strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9)])
def test_crop_gives_every_window_of_the_reflected_image(height: int, width: int) -> None:
    images, pad = noise(400, height=height, width=width), 2
    result = as_bytes(Augmentation(crop=pad)(images, generator()))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    seen: dict[tuple[int, int], int] = {}
    for index, new in enumerate(result):
        windows = [
            (top, left)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            if (padded[index, :, top : top + height, left : left + width] == new).all()
        ]
        assert len(windows) == 1
        seen[windows[0]] = seen.get(windows[0], 0) + 1
    assert len(seen) == 25  # each of the shifts occurs (16 times on average)
    assert max(seen.values()) < 40


def test_the_largest_crop_still_reflects() -> None:
    result = as_bytes(Augmentation(crop=7)(noise(200), generator()))
    assert result.shape == (200, 3, 8, 8)
    with pytest.raises(IDCError, match="crop=8"):
        Augmentation(crop=8)(noise())


def test_flip_and_crop_together_give_a_mirrored_window() -> None:
    images, pad = noise(100), 1
    result = as_bytes(Augmentation(flip=True, crop=pad)(images, generator()))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    windows = [padded[:, :, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    windows += [window[..., ::-1] for window in windows]
    found = np.array([(window == result).all(axis=(1, 2, 3)) for window in windows])
    assert (found.sum(axis=0) == 1).all()
    assert 30 < found[9:].sum() < 70


def dots(count: int) -> torch.Tensor:
    """A bright 3x3 dot, 10 pixels to the right of the centre of a 33x33 image."""
    images = torch.zeros(count, 1, 33, 33, dtype=torch.uint8)
    images[:, :, 15:18, 25:28] = 255
    return images


def test_rotation_turns_each_image_by_its_own_angle_about_the_centre() -> None:
    result = Augmentation(rotation=30.0)(dots(200), generator())[:, 0].numpy()
    axis = np.arange(33) - 16.0
    mass = result.sum(axis=(1, 2))
    x, y = (result * axis).sum(axis=(1, 2)) / mass, (result * axis[:, None]).sum(axis=(1, 2)) / mass
    angles = np.degrees(np.arctan2(y, x))
    np.testing.assert_allclose(np.hypot(x, y), 10.0, atol=0.15)
    np.testing.assert_allclose(mass, 9.0, rtol=0.05)
    assert np.abs(angles).max() < 30.5
    assert angles.min() < -25
    assert angles.max() > 25
    assert abs(angles.mean()) < 5
    assert result.min() >= 0
    assert result.max() <= 1


def test_rotation_of_an_oblong_image_keeps_distances() -> None:
    images = torch.zeros(50, 1, 33, 65, dtype=torch.uint8)
    images[:, :, 15:18, 41:44] = 255
    result = Augmentation(rotation=90.0)(images, generator())[:, 0].numpy()
    mass = result.sum(axis=(1, 2))
    x = (result * (np.arange(65) - 32.0)).sum(axis=(1, 2)) / mass
    y = (result * (np.arange(33) - 16.0)[:, None]).sum(axis=(1, 2)) / mass
    np.testing.assert_allclose(np.hypot(x, y), 10.0, atol=0.15)
    assert np.abs(y).max() > 8


def test_what_comes_from_outside_of_a_rotated_image_is_black() -> None:
    result = Augmentation(rotation=45.0)(torch.full((50, 1, 16, 16), 255, dtype=torch.uint8), generator())
    assert result[:, :, 7:9, 7:9].min() > 0.999
    assert result[:, :, 0, 0].min() == 0


def test_equal_generators_give_equal_images_and_different_ones_do_not() -> None:
    setting = Augmentation(flip=True, crop=2, rotation=10)
    first, again, other = (setting(noise(), generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_turning_the_rotation_off_leaves_flips_and_crops_as_they_were() -> None:
    images = noise()
    moved = Augmentation(flip=True, crop=2)(images, generator())
    turned = Augmentation(flip=True, crop=2, rotation=1e-6)(images, generator())
    torch.testing.assert_close(turned, moved, atol=1e-4, rtol=0)


def test_a_generator_leaves_torchs_global_stream_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    augment(noise(), flip=True, crop=2, rotation=5, generator=generator())
    assert torch.equal(torch.rand(3), expected)


def test_the_images_are_not_changed_in_place() -> None:
    images = noise()
    before = images.clone()
    Augmentation(flip=True, crop=2, rotation=5)(images, generator())
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "settings", [{"crop": -1}, {"rotation": -1.0}, {"rotation": 181.0}, {"rotation": float("nan")}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(IDCError, match=next(iter(settings))):
        Augmentation(**settings)  # type: ignore[arg-type]


def test_images_that_are_no_uint8_batch_are_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        augment(noise().float())
    with pytest.raises(TypeError, match="uint8 images"):
        augment(noise()[0])
