"""Smaller and moved copies of a set."""

import pytest
import torch

from idc.data import load
from idc.data.image_set import interleaved
from idc.errors import IDCError


def test_take_a_number_is_the_same_subset_as_a_limit() -> None:
    whole, limited = load("digits", split="test"), load("digits", split="test", limit=30)
    taken = whole.take(30)
    assert torch.equal(taken.ids, limited.ids)
    assert torch.equal(taken.images, limited.images)
    assert taken.fingerprint == limited.fingerprint != whole.fingerprint


def test_take_indices() -> None:
    whole = load("digits", split="test")
    taken = whole.take([5, 0, 5])
    assert taken.ids.tolist() == [int(whole.ids[5]), int(whole.ids[0]), int(whole.ids[5])]
    assert torch.equal(taken.images[1], whole.images[0])
    assert len(whole.take(torch.tensor([3]))) == 1
    for wrong in ([-1], [len(whole)], 0):
        with pytest.raises(IDCError):
            whole.take(wrong)


def test_a_set_is_shown_in_a_line_and_not_by_its_pixels() -> None:
    assert repr(load("digits", split="test", limit=30)) == "ImageSet(30 of digits, test: 10 classes, 1x32x32)"


def test_to_moves_all_tensors() -> None:
    moved = load("digits", split="test").to("meta")
    assert {moved.images.device.type, moved.labels.device.type, moved.ids.device.type} == {"meta"}


def test_the_first_images_are_of_every_class():
    classes = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    order = interleaved(classes)
    assert sorted(order.tolist()) == list(range(9))
    assert classes[order].tolist() == [0, 1, 2, 0, 1, 2, 0, 2, 0]
