"""Strong augmentation: each operation against plain arithmetic on one image."""

import pytest
import torch

from idc.data.strong import OPERATIONS, cutout, strongly_augmented

IMAGES = torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def one(name: str, strength: float) -> torch.Tensor:
    return OPERATIONS[name](IMAGES[:1], torch.tensor([strength]))[0]


def test_colours():
    x = IMAGES[0]
    torch.testing.assert_close(one("brightness", 0.5), 1.495 * x)
    torch.testing.assert_close(one("contrast", -1.0), x.mean() + 0.01 * (x - x.mean()))
    torch.testing.assert_close(one("saturation", -0.5), 0.495 * x.mean(0) + 0.505 * x)
    torch.testing.assert_close(one("solarize", 0.4), torch.where(x > 0.4, 1 - x, x))
    assert one("posterize", 0.0).unique().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert (one("posterize", 1.0) - x).abs().max() < 1 / 255


def test_geometry():
    x = IMAGES[0]
    torch.testing.assert_close(one("shift across", 0.5)[..., :-3], x[..., 3:], rtol=1e-4, atol=1e-5)
    assert not one("shift across", 0.5)[..., -3:].any()
    torch.testing.assert_close(one("shift down", -0.5)[:, 3:], x[:, :-3], rtol=1e-4, atol=1e-5)
    for name in ("shear across", "shear down", "rotate"):
        torch.testing.assert_close(one(name, 0.0), x, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(one(name, 0.5), x, atol=0.05)
    bar = torch.zeros(1, 1, 9, 9)
    bar[..., 4, :] = 1
    turned = OPERATIONS["rotate"](bar, torch.tensor([1.0]))[0, 0]  # counter-clockwise by 45 degrees
    torch.testing.assert_close(turned.flip(0).diagonal()[2:7], torch.ones(5))
    assert turned.diagonal().sum() == pytest.approx(1)


def test_a_square_is_cut_out_where_the_draws_say():
    found = cutout(torch.ones(1, 1, 12, 12), torch.tensor([[0.99], [0.5], [0.25]]))[0, 0]
    expected = torch.ones(12, 12)
    expected[3:9, 0:6] = 0.5
    assert torch.equal(found, expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_image_stays_one_and_follows_from_the_generator(channels):
    images = torch.rand(60, channels, 10, 14, generator=torch.Generator().manual_seed(0))
    found, again = (strongly_augmented(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(found, again)
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert not torch.equal(found, strongly_augmented(images, torch.Generator().manual_seed(2)))
    assert torch.equal(images, torch.rand(60, channels, 10, 14, generator=torch.Generator().manual_seed(0)))
