"""Parquet files and their columns: shards, splits, class names, images by path, damage."""

import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from idc.data import load
from idc.errors import IDCError
from pictures import SPLITS, complaint, values, write_numbered_parquet


def test_a_folder_of_parquet_splits_with_names_in_the_schema(tmp_path: Path) -> None:
    write_numbered_parquet(tmp_path / "train.parquet", 20, names=["no", "yes"])
    write_numbered_parquet(tmp_path / "test.parquet", 6, start=100, names=["no", "yes"])
    train, validation, test = (load(str(tmp_path), split=split) for split in SPLITS)
    assert train.class_names == ("no", "yes")
    assert (len(train), len(validation)) == (18, 2)
    assert sorted(values(train) + values(validation)) == list(range(20))
    assert [value % 2 for value in values(train)] == train.labels.tolist()
    assert values(test) == list(range(100, 106))
    assert test.ids.tolist() == list(range(6))


def test_shards_in_a_data_folder_come_in_order(tmp_path: Path) -> None:
    write_numbered_parquet(tmp_path / "data/train-00001-of-00002.parquet", 4, start=4, img="image", label="labels")
    write_numbered_parquet(tmp_path / "data/train-00000-of-00002.parquet", 4, img="image", label="labels")
    write_numbered_parquet(tmp_path / "data/validation-00000-of-00001.parquet", 2, 50, img="image", label="labels")
    write_numbered_parquet(tmp_path / "data/test-00000-of-00001.parquet", 2, start=60, img="image", label="labels")
    assert values(load(str(tmp_path), split="train")) == list(range(8))
    assert values(load(str(tmp_path), split="validation")) == [50, 51]
    assert values(load(str(tmp_path), split="test")) == [60, 61]
    assert load(str(tmp_path), split="test").class_names == ("0", "1")


def test_split_folders_of_parquet(tmp_path: Path) -> None:
    write_numbered_parquet(tmp_path / "default/train/0000.parquet", 4, label="fine_label")
    write_numbered_parquet(tmp_path / "default/test/0000.parquet", 2, start=60, label="fine_label")
    assert values(load(str(tmp_path), split="train", validation_fraction=0)) == [0, 1, 2, 3]
    assert values(load(str(tmp_path), split="test")) == [60, 61]


@pytest.mark.parametrize("name", ["train.parquet", "images.parquet"])
def test_a_single_file_gives_up_a_fifth_as_test(tmp_path: Path, name: str) -> None:
    write_numbered_parquet(tmp_path / name, 40)
    sets = [load(str(tmp_path / name), split=split) for split in SPLITS]
    assert [len(images) for images in sets] == [28, 4, 8]
    assert sorted(chain(*map(values, sets))) == list(range(40))
    assert np.bincount(sets[2].labels.numpy()).tolist() == [4, 4]


def test_a_single_test_file_is_all_test(tmp_path: Path) -> None:
    write_numbered_parquet(tmp_path / "test.parquet", 6)
    assert values(load(str(tmp_path / "test.parquet"), split="test")) == list(range(6))
    with pytest.raises(IDCError, match="has no train split"):
        load(str(tmp_path / "test.parquet"), split="train")


def corrupt_parquet(root: Path) -> None:
    (root / "train.parquet").write_bytes(b"PAR1 but not really PAR1")


def empty_parquet(root: Path) -> None:
    write_numbered_parquet(root / "train.parquet", 2)
    pq.write_table(pq.read_table(root / "train.parquet").slice(0, 0), root / "train.parquet")


def truncated_parquet(root: Path) -> None:
    write_numbered_parquet(root / "train.parquet", 6)
    whole = (root / "train.parquet").read_bytes()
    (root / "train.parquet").write_bytes(b"\0" * 400 + whole[400:])


def parquet_of_a_name_that_is_no_text(root: Path) -> None:
    write_numbered_parquet(root / "train.parquet", 6)
    whole = (root / "train.parquet").read_bytes()
    (root / "train.parquet").write_bytes(whole.replace(b"label", b"lab\xe5l"))


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (corrupt_parquet, r"train.parquet \(.*\): expected readable parquet files"),
        (empty_parquet, "has no images"),
        (truncated_parquet, "expected "),
        (parquet_of_a_name_that_is_no_text, r"train.parquet \(.*\): expected readable parquet files"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoiled_file_is_one_clear_line(spoiled: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    spoiled(tmp_path)
    assert re.search(message, complaint(tmp_path))
