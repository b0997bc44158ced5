"""Attacked images of one model, given to others: on models whose answers are known."""

import pytest
import torch
import transfer

from idc import IDCError
from idc.attacks.target import Target
from idc.peers.cnn import CNN, CNNConfig
from tiny import tiny_model

PARTS = [(torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(n)), torch.arange(6) % 2, torch.arange(6))
         for n in range(2)]  # fmt: skip


def test_images_stay_in_the_ball():
    for kind in (transfer.moved(PARTS, 0.1), transfer.attacked(Target(linear), PARTS, 0.1, 3)):
        for found, (clean, *_) in zip(kind, PARTS, strict=True):
            assert 0.05 < (found - clean).abs().max().item() <= 0.1 + 1e-6
            assert (found.min() >= 0, found.max() <= 1) == (True, True)


def linear(images, **_):
    """Class 1 where the first channel is brighter than the second."""
    one = (images[:, 0] - images[:, 1]).mean((1, 2))
    return torch.stack([-one, one], 1)


def test_each_model_is_asked_for_its_own_answer():
    """Under an attack along its gradient a linear model is right where its margin exceeds what the ball allows."""
    target, images = Target(linear), transfer.attacked(Target(linear), PARTS, 0.05, 20)
    margins = torch.cat([linear(x)[:, 1] * (2 * classes - 1) for x, classes, _ in PARTS])
    clean = transfer.right(target, [x for x, *_ in PARTS], PARTS)
    assert torch.equal(clean, margins > 0)
    robust = transfer.right(target, images, PARTS)
    assert robust[margins > 0.1].all()
    assert not robust[margins < 0].any()


def test_models_of_other_images_are_refused(tmp_path):
    tiny_model(10, label_kind="hadamard").save_pretrained(tmp_path / "idc")
    CNN(CNNConfig("preact-resnet18", 10, (1, 16, 16), 8)).save_pretrained(tmp_path / "cnn")
    with pytest.raises(IDCError, match="other images"):
        transfer.measure([str(tmp_path / "idc"), str(tmp_path / "cnn")], "digits", 0.1, 20, 1)
