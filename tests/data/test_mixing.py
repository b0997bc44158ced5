"""CutMix and mixup, image by image: what each pixel is of, and how much of it the share says."""

import pytest
import torch

from idc.data.mixing import mix

CLASSES = torch.arange(400)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def plain(height=12, width=20):
    """Images of one value each, which tells whose a pixel is."""
    return (CLASSES.float() / 400).view(-1, 1, 1, 1).expand(-1, 3, height, width).contiguous()


def test_the_box_of_cutmix_is_one_of_the_image_before_and_the_share_counts_the_rest():
    images = plain()
    mixed = mix(images, CLASSES, "cutmix", 1.0, random())
    before = [399, *range(399)]
    assert mixed.others.tolist() == before
    assert torch.equal(mixed.classes, CLASSES)
    areas = []
    for index, new in enumerate(mixed.images):
        pasted = new[0] == images[before[index], 0, 0, 0]
        assert torch.equal(new, torch.where(pasted, images[before[index]], images[index]))
        rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
        if len(rows):  # a rectangle of the image's proportions, unless the border cuts it
            assert pasted.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            inside = rows[0] > 0 and columns[0] > 0 and rows[-1] < 11 and columns[-1] < 19
            assert not inside or abs(len(rows) / 12 - len(columns) / 20) < 1 / 12 + 1 / 20
        areas.append(pasted.sum().item() / 240)
        assert mixed.share[index].item() == pytest.approx(1 - areas[-1], abs=1e-6)
    # A uniform share of a box that a uniform centre may cut: of a side s, s - s^2 / 4 is left on average, and the mean
    # of its square over s = sqrt(u) is 1/2 - 1/5 + 1/48.
    assert sum(areas) / 400 == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.04)


def test_mixup_blends_by_a_uniform_share():
    images = plain()
    mixed = mix(images, CLASSES, "mixup", 1.0, random())
    share = mixed.share.view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed.images, share * images + (1 - share) * images[[399, *range(399)]])
    assert abs(mixed.share.mean() - 0.5) < 0.06
    assert abs(mixed.share.std() - 12**-0.5) < 0.03


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_only_so_many_images_are_mixed(kind):
    images = plain(32, 32)
    mixed = mix(images, CLASSES, kind, 0.5, random())
    kept = (mixed.images == images).flatten(1).all(1)
    assert 150 < kept.sum() < 260
    assert (mixed.share[kept] == 1).all()
    assert (mixed.share[~kept] < 1).all()


@pytest.mark.parametrize(("kind", "rate"), [("none", 1.0), ("cutmix", 0.0), ("mixup", 0.0)])
def test_nothing_is_mixed_and_no_number_drawn(kind, rate):
    generator = random()
    before = generator.get_state()
    assert mix(plain(), CLASSES, kind, rate, generator) is None
    assert torch.equal(generator.get_state(), before)
