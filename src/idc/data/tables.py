"""Data sets in columns, img/image and label/fine_label/labels, in the Hugging Face hub's layout; of Arrow tables."""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray
from pyarrow import types

from idc.data.decoding import Raw
from idc.data.pools import Pool, Source, Split
from idc.errors import IDCError
from idc.storage.files import parse_json
from idc.storage.yaml_file import OF_VALUES


@dataclass(frozen=True, slots=True)
class Table:
    """One split of a data set in columns: its Arrow schema, a reader of one column, and its cache key."""

    schema: Any
    column: Callable[[str], Any]
    key: Callable[[], str]
    folder: Path | None  # where images that are not stored inline must lie; None: anywhere (the hub library's cache)


def table_source(name: str, tables: Mapping[Split, Table], readme: Path | None, *, has_splits: bool = True) -> Source:
    """A source from columns img/image and label/fine_label/labels.

    Class names come from the schema's own `huggingface` metadata, else from the README's dataset_info, else they are
    the label numbers.

    Raises:
        IDCError: a column is missing or of another type, or labels are no class numbers.
    """
    pools: dict[Split, Pool] = {}
    names: tuple[str, ...] = ()
    for split in sorted(tables, key=lambda split: split != "train"):
        if twice := next((c for c in tables[split].schema.names if tables[split].schema.names.count(c) > 1), None):
            raise IDCError(f"{name} ({split}) has the column {twice} twice", "each column once", "rename one")
        label = _label_column(tables[split].schema, f"{name} ({split})")
        pools[split] = _table_pool(tables[split], label, f"{name} ({split})")
        names = names or _schema_names(tables[split].schema, label) or _readme_names(readme, label)
    return Source(name, pools, names or _numbered_names(name, pools), has_splits=has_splits)


def _numbered_names(name: str, pools: Mapping[Split, Pool]) -> tuple[str, ...]:
    highest = max((int(pool.labels.max(initial=-1)) for pool in pools.values()), default=-1)
    if highest >= 100_000:
        raise IDCError(f"{name} has a label {highest}", "labels from 0 to the number of classes - 1", "renumber them")
    return tuple(str(number) for number in range(highest + 1))


def _table_pool(table: Table, label: str, name: str) -> Pool:
    image = _image_column(table.schema, name)
    # Missing labels become -1, which is an error once the split is asked for (test splits without labels are common).
    labels = _numbers(table.column(label), f"{name}: column {label}")
    images = functools.cache(lambda: table.column(image))

    def read(index: int) -> Raw:
        value = images()[index].as_py()
        if isinstance(value, dict):
            value = value["bytes"] or (value.get("path") and _inside(table.folder, Path(value["path"])))
        if not value:
            raise IDCError(f"row {index} of {name} has no image", "an encoded image in every row", "leave out the row")
        raw: Raw = value
        return raw

    return Pool(labels, read, lambda index: f"row {index} of {name}", lambda: f"{table.key()} {image}")


def _numbers(column: Any, name: str) -> NDArray[np.int64]:
    try:
        return np.asarray(column.cast(pa.int64()).fill_null(-1).to_numpy(), dtype=np.int64)
    except pa.ArrowInvalid as error:  # an unsigned number beyond 2^63
        raise IDCError(name, "labels from 0 to the number of classes - 1", "renumber them") from error


def _inside(folder: Path | None, path: Path) -> Path | None:
    """The path below `folder`, or None if it leads out of there: a data file has no say about the rest of the disk."""
    if folder is None:
        return path
    try:
        return folder / path if (folder / path).resolve().is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):  # a name too long, or one with a zero in it
        return None


def image_column(schema: Any) -> str | None:
    """The column with encoded images: img, image, or the first one; None if there is none."""
    for column in ["img", "image", *schema.names]:
        if schema.names.count(column) == 1 and _holds_images(schema.field(column).type):
            return str(column)
    return None


def _image_column(schema: Any, name: str) -> str:
    if column := image_column(schema):
        return column
    expected = "a column img or image with encoded images ({bytes, path} or bytes)"
    raise IDCError(f"{name} has the columns {', '.join(schema.names)}", expected, "rename or encode the column")


def _holds_images(kind: Any) -> bool:
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and (_is_binary(kind.field(index).type) or bool(types.is_null(kind.field(index).type)))
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    """Not text: a text is no image, and Pillow would open the file of that name."""
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _label_column(schema: Any, name: str) -> str:
    for column in ("label", "fine_label", "labels"):
        if column in schema.names:
            kind = schema.field(column).type
            if types.is_integer(kind):
                return column
            raise IDCError(f"{name}: column {column} of {kind}", "integer labels", "number the classes")
    expected = "an integer column label, fine_label or labels"
    raise IDCError(f"{name} has the columns {', '.join(schema.names)}", expected, "rename the column with the classes")


def _schema_names(schema: Any, column: str) -> tuple[str, ...]:
    """Class names in the metadata that the `datasets` library writes into a schema; () if there are none."""
    try:
        features = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(str(name) for name in features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _readme_names(readme: Path | None, column: str) -> tuple[str, ...]:
    """Class names in the dataset_info of a data set card's front matter; () if there are none."""
    if readme is None or not readme.is_file():
        return ()
    try:
        front_matter = re.match(r"---\n(.*?)\n---", readme.read_text(encoding="utf-8"), re.DOTALL)
        info = yaml.safe_load(front_matter[1])["dataset_info"] if front_matter else {}
        features = (info[0] if isinstance(info, list) else info)["features"]
        names = next(entry for entry in features if entry["name"] == column)["dtype"]["class_label"]["names"]
        return tuple(str(names[key]) for key in sorted(names, key=int))
    except (*OF_VALUES, TypeError, StopIteration, yaml.YAMLError):
        return ()
