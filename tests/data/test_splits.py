"""Which image is in which split and subset: stratified, disjoint, reproducible over seeds and releases."""

from pathlib import Path

import numpy as np
import pytest

from idc.data import load
from idc.data.splits import split_of
from pictures import SPLITS, values, write_classes

RECORDED_TEST_IDS = [5, 16, 18, 21, 24, 29, 30, 31, 33, 35, 36, 42]


def test_the_seed_moves_the_validation_split_but_never_the_test_split() -> None:
    first = {split: set(load("digits", split=split, seed=0).ids.tolist()) for split in SPLITS}
    other = {split: set(load("digits", split=split, seed=1).ids.tolist()) for split in SPLITS}
    again = {split: set(load("digits", split=split, seed=0).ids.tolist()) for split in SPLITS}
    assert first == again
    assert first["test"] == other["test"]
    assert len(first["validation"] & other["validation"]) < 0.4 * len(first["validation"])
    assert not other["train"] & (other["validation"] | other["test"])


def test_the_test_split_stays_the_same_over_releases() -> None:
    # Recorded when this was written: a change means that old and new results are not of the same test images.
    assert load("digits", split="test").ids[:12].tolist() == RECORDED_TEST_IDS


def test_no_validation_fraction_leaves_all_to_train() -> None:
    train, test = load("digits", split="train", validation_fraction=0.0), load("digits", split="test")
    assert len(train) + len(test) == 1797


def test_without_a_test_folder_train_gives_up_a_fifth(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ["a", "b"], 10)
    write_classes(tmp_path / "val", ["a", "b"], 1, start=50)
    train, test = load(str(tmp_path), split="train"), load(str(tmp_path), split="test")
    assert (len(train), len(test)) == (16, 4)
    assert sorted(values(train) + values(test)) == list(range(20))


def test_a_limit_is_balanced_nested_and_independent_of_the_seed() -> None:
    small, large = load("digits", split="test", limit=50), load("digits", split="test", limit=105, seed=9)
    assert np.bincount(small.labels.numpy()).tolist() == [5] * 10
    assert sorted(np.bincount(large.labels.numpy()).tolist()) == [10] * 5 + [11] * 5
    assert set(small.ids.tolist()) < set(large.ids.tolist())
    assert small.ids.tolist() == sorted(small.ids.tolist())
    assert len(load("digits", split="test", limit=10**6)) == len(load("digits", split="test"))


@pytest.mark.parametrize(
    ("name", "split"),
    [("train-00000-of-00002", "train"), ("cifar_VAL.v2", "validation"), ("dev", "validation"), ("contest", None)],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split
