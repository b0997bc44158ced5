"""Rotations and shifts, held to Pillow and to pixels that move; and that the worst of a grid is its worst."""

import numpy as np
import pytest
import torch
from PIL import Image

from idc.attacks.objective import Margin
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.attacks.warping import WorstShift, sampled
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images

WHOLE = Threat("linf", 1.0)


def of(value: float, count: int) -> torch.Tensor:
    return torch.full((count,), value)


def test_whole_pixels_move_as_they_are_and_black_comes_in():
    x = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    found = sampled(x, of(0, 3), of(2, 3), of(-1, 3))
    torch.testing.assert_close(found[:, :, :-1, 2:], x[:, :, 1:, :-2], rtol=0, atol=1e-5)
    assert found[:, :, -1].abs().max() < 1e-5
    assert found[:, :, :, :2].abs().max() < 1e-5
    torch.testing.assert_close(sampled(x, of(0, 3), of(0, 3), of(0, 3)), x, rtol=0, atol=1e-5)


def test_a_quarter_turn_is_numpys():
    x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    found = sampled(x, of(90, 2), of(0, 2), of(0, 2))
    torch.testing.assert_close(found, torch.from_numpy(np.rot90(x.numpy(), axes=(2, 3)).copy()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("degrees", [-30.0, 12.0])
def test_a_rotation_is_pillows(degrees):
    own = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(own[0, 0].numpy())
    expected = np.asarray(picture.rotate(degrees, Image.Resampling.BILINEAR))
    found = sampled(own, of(degrees, 1), of(0, 1), of(0, 1))[0, 0].numpy()
    assert np.abs(found - expected)[4:12, 4:12].max() < 0.01  # at edges Pillow does not mix black in


def test_the_worst_of_the_grid_is_its_worst():
    model = Linear(shape=(1, 8, 8))
    images, classes = easy_images(model, 12, spread=0.5)
    attack = WorstShift(threat=WHOLE, angles=3, shifts=3, draws=1)
    assert len(attack.grid) == 27
    assert (0.0, 0.0, 0.0) in attack.grid
    assert len(WorstShift(threat=WHOLE).grid) == 775
    ids = Streams(torch.arange(12), 0)
    found = attack(Target.of(model), images, classes, ids)
    scale = 8 / 32
    tried = [sampled(images, of(t, 12), of(scale * r, 12), of(scale * d, 12)) for t, r, d in attack.grid]
    wrong = torch.stack([model(x).argmax(1) != classes for x in tried]).any(0)
    assert torch.equal(model(found).argmax(1) != classes, wrong)
    assert wrong.sum() > 0
    highest = torch.stack([Margin()(model(x), classes) for x in tried]).amax(0)
    torch.testing.assert_close(Margin()(model(found), classes)[~wrong], highest[~wrong])
    assert attack(Target.of(model), images[:0], classes[:0], ids.take(torch.arange(0))).shape == (0, 1, 8, 8)


def test_an_image_of_a_noisy_model_is_tried_with_its_own_noise():
    model = Noisy(shape=(1, 8, 8))
    images, classes = easy_images(model, 6)
    attack, ids = WorstShift(threat=WHOLE, angles=3, shifts=2), Streams(torch.arange(6), 0)
    whole, rows = attack(Target.of(model), images, classes, ids), torch.tensor([4, 2])
    part = attack(Target.of(model), images[rows], classes[rows], ids.take(rows))
    torch.testing.assert_close(part, whole[rows])
