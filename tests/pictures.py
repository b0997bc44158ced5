"""Image files, class folders and parquet files drawn for the tests, each image known by its grey value."""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from idc.data import ImageSet, Split, load
from idc.errors import IDCError

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def cache_files() -> list[Path]:
    return sorted((Path(os.environ["IDC_CACHE"]) / "images").glob("*"))


def encoded(image: Image.Image, kind: str = "png", **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def plain(value: int, size: int = 4, mode: str = "L") -> Image.Image:
    """An image of one grey value, by which a test knows it again."""
    return Image.new(mode, (size, size), value if mode == "L" else (value, 0, 0))


def rgb(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_classes(root: Path, classes: Sequence[str], count: int, start: int = 0, mode: str = "L") -> None:
    """`count` images in each class folder, each of its own value: start, start + 1, ... over the classes in order."""
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            plain(start + index * count + number, mode=mode).save(root / name / f"{number:03}.png")


def values(images: ImageSet) -> list[int]:
    """The grey value of each (plain) image."""
    assert (images.images == images.images[:, :1, :1, :1]).all()
    return images.images[:, 0, 0, 0].tolist()


def write_parquet(
    path: Path, images: Sequence[bytes], labels: Sequence[int | None], names: Sequence[str] = (), **columns: str
) -> None:
    """A parquet file as the hub has them; `columns` renames img and label."""
    img, label = columns.get("img", "img"), columns.get("label", "label")
    struct = [{"bytes": image, "path": None} for image in images]
    table = pa.table({img: struct, label: pa.array(labels, pa.int64())})
    if names:
        features = {img: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_numbered_parquet(path: Path, count: int, start: int = 0, names: Sequence[str] = (), **columns: str) -> None:
    """Images of the values start, start + 1, ..., labelled 0, 1, 0, 1, ..."""
    images = [encoded(plain(start + index)) for index in range(count)]
    write_parquet(path, images, [index % 2 for index in range(count)], names, **columns)


def complaint(root: Path) -> str:
    """The error of loading from a spoiled folder: one line."""
    with pytest.raises(IDCError) as caught:
        load(str(root), split="train")
    assert "\n" not in str(caught.value)
    return str(caught.value)
