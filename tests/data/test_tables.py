"""Columns of images and labels: which are taken, where class names come from, which are refused."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idc.data import load
from idc.errors import IDCError
from pictures import complaint, encoded, plain, values, write_numbered_parquet, write_parquet


def test_raw_bytes_and_files_named_by_path(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": [encoded(plain(value)) for value in range(4)], "label": [0, 1, 0, 1]}),
        tmp_path / "train.parquet",
    )
    (tmp_path / "pictures").mkdir()
    for value in (7, 8):
        plain(value).save(tmp_path / "pictures" / f"{value}.png")
    rows = [{"bytes": None, "path": f"pictures/{value}.png"} for value in (7, 8)]
    pq.write_table(pa.table({"image": rows, "label": [0, 1]}), tmp_path / "test.parquet")
    assert values(load(str(tmp_path), split="train", validation_fraction=0)) == [0, 1, 2, 3]
    assert values(load(str(tmp_path), split="test")) == [7, 8]


def test_a_parquet_file_cannot_name_files_outside_of_its_folder(tmp_path: Path) -> None:
    plain(3).save(tmp_path / "secret.png")
    inner = tmp_path / "inner"
    inner.mkdir()
    rows = [{"bytes": None, "path": "../secret.png"}, {"bytes": None, "path": str(tmp_path / "secret.png")}]
    pq.write_table(pa.table({"image": rows, "label": [0, 1]}), inner / "test.parquet")
    with pytest.raises(IDCError, match="2 of 2 images"):
        load(str(inner), split="test")


@pytest.mark.parametrize("where", ["schema", "readme"])
def test_brackets_without_end_name_no_class(tmp_path: Path, where: str) -> None:
    write_numbered_parquet(tmp_path / "train.parquet", 8)
    if where == "readme":
        (tmp_path / "README.md").write_text(f"---\n{'[' * 20_000}\n---\n")
    else:
        table = pq.read_table(tmp_path / "train.parquet")
        pq.write_table(table.replace_schema_metadata({"huggingface": "[" * 100_000}), tmp_path / "train.parquet")
    assert load(tmp_path, split="train").class_names == ("0", "1")


def test_class_names_of_a_readme(tmp_path: Path) -> None:
    write_numbered_parquet(tmp_path / "train.parquet", 6)
    readme = """---
dataset_info:
  features:
  - name: img
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '1': loud
          '0': quiet
---
# About
"""
    (tmp_path / "README.md").write_text(readme)
    assert load(str(tmp_path), split="train").class_names == ("quiet", "loud")
    (tmp_path / "README.md").write_text("---\n: [broken\n---\n")
    assert load(str(tmp_path), split="train").class_names == ("0", "1")


def no_image_column(root: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), root / "train.parquet")


def no_label_column(root: Path) -> None:
    pq.write_table(pa.table({"img": [encoded(plain(0))]}), root / "train.parquet")


def text_labels(root: Path) -> None:
    pq.write_table(pa.table({"img": [encoded(plain(0))], "label": ["a"]}), root / "train.parquet")


def missing_labels(root: Path) -> None:
    write_parquet(root / "train.parquet", [encoded(plain(0))] * 4, [0, None, 1, None])


def negative_labels(root: Path) -> None:
    write_parquet(root / "train.parquet", [encoded(plain(0))] * 4, [0, 1, -1, 1])


def labels_beyond_the_names(root: Path) -> None:
    write_parquet(root / "train.parquet", [encoded(plain(0))] * 4, [0, 1, 2, 1], ["a", "b"])


def one_label(root: Path) -> None:
    write_parquet(root / "train.parquet", [encoded(plain(0))] * 4, [1] * 4)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (no_image_column, "columns text, label: expected a column img or image"),
        (no_label_column, "columns img: expected an integer column label"),
        (text_labels, "column label of .*string: expected integer labels"),
        (missing_labels, "2 labels are missing or negative"),
        (negative_labels, "1 labels are missing or negative"),
        (labels_beyond_the_names, "label 2: expected labels from 0 to 1"),
        (one_label, "one class only"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_spoiled_columns_are_one_clear_line(spoiled: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    spoiled(tmp_path)
    assert re.search(message, complaint(tmp_path))
