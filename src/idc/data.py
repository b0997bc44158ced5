"""Labelled images from anywhere as one uint8 tensor: scikit-learn's digits, image folders, parquet files, hub ids.

Every image is decoded once, to a square of one size, and kept in a memory-mapped cache file; see `load`. The module
knows no model. The order of the file: the public names, sources, splits, decoding, the cache.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from idc.augmentation import Augmentation as Augmentation
from idc.errors import IDCError

Split = Literal["train", "validation", "test"]
Positions = NDArray[np.int64]

MAX_PIXELS = 50_000_000
"""Images with more pixels are refused before they are decoded."""
TEST_FRACTION = 0.2
"""Share of each class that is held out as test where the source has no test split."""

_FIXED_SEED = 20_240_815  # for what must not change with the user's seed: the held-out test, the subset of a limit
_MIXED_SIZE = 32  # the default size of a source whose images are not all squares of one size
_PROBED = 2048  # how many images are looked at to choose the default size and channels
_HASHED_BYTES = 512 * 2**20  # parquet files up to this size are keyed by content, larger ones by name, size and time
_PROBE_SECONDS = 4.0
_CACHE_VERSION = "1"  # to be raised whenever the pixels that decoding gives change
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# fmt: off
_IMAGE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".jp2", ".ico",
})
_FILE_SUFFIXES = _IMAGE_SUFFIXES | {
    ".parquet", ".pq", ".arrow", ".csv", ".json", ".jsonl", ".txt", ".zip", ".tar", ".gz", ".tgz", ".npy", ".npz",
    ".pt", ".pth", ".pkl", ".bin", ".h5", ".safetensors",
}
# fmt: on
_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
_SPLIT_PATTERN = re.compile(rf"(?:^|[-_.])({'|'.join(_SPLIT_NAMES)})(?:[-_.]|$)", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """One split of a labelled image set.

    Attributes:
        images: (N, C, H, W) uint8. On the CPU it may be a view of the cache file: do not write into it.
        labels: (N,) int64 in [0, num_classes).
        ids: (N,) int64, the index of each image in its source split, whatever the limit, seed or skipped files.
        class_names: one name per class, in the order of the labels.
        source: what was asked for. split: "train", "validation" or "test".
        fingerprint: sha256 over the pixels, labels, ids and class names; the same on every machine.
        skipped: the names of the unreadable images that were left out.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    class_names: tuple[str, ...]
    source: str
    split: str
    fingerprint: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), ids=self.ids.to(device))

    def take(self, which: int | Sequence[int] | Tensor) -> ImageSet:
        """A smaller set: a class-balanced subset of `which` images (see `load`'s limit), or the images at indices.

        Raises:
            IDCError: a number below 1, or an index outside of the set.
        """
        if isinstance(which, int):
            labels, ids = self.labels.cpu().numpy(), self.ids.cpu().numpy()
            rows = torch.from_numpy(_balanced(labels, ids, which))
        else:
            rows = torch.as_tensor(which, dtype=torch.int64).flatten().cpu()
            if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
                raise IDCError(f"index {rows.tolist()[:5]}", f"indices from 0 to {len(self) - 1}", "lower the indices")
        rows = rows.to(self.images.device)
        images, labels_, ids_ = self.images[rows], self.labels[rows], self.ids[rows]
        return replace(
            self, images=images, labels=labels_, ids=ids_, fingerprint=_digest(self.class_names, images, labels_, ids_)
        )


def load(
    source: str,
    *,
    split: Split,
    image_size: int | None = None,
    channels: int | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    skip_bad: bool = False,
    cache_dir: Path | None = None,
) -> ImageSet:
    """Load one split of a labelled image set.

    Sources: "digits" (scikit-learn's 1,797 digits, 32x32 grey); a folder with one subfolder per class, directly or in
    train/, test/ and validation/ folders; a parquet file, or a folder of them, in the Hugging Face hub's layout; a hub
    id such as "uoft-cs/cifar10". What looks like a path is never looked up on the hub.

    Splits are stratified by class. Without a test split in the source, 20% of each class are held out as test, always
    the same ones. Without a validation split, `validation_fraction` of each class of what remains is validation,
    chosen by `seed`. The three never overlap.

    Args:
        split: "train", "validation" or "test".
        image_size: side of the square in pixels. By default the images' own if all are squares of one size, else 32.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA). By default 1 if all images are grey, else 3. Both defaults look at up
            to 2,048 images spread evenly over the train split, so that all splits of a source agree.
        validation_fraction: in [0, 1); 0 leaves all of the images to train.
        limit: at most this many images: as many of each class as of any other where there are enough, picked by a
            permutation with a constant seed, not `seed`; the images of a smaller limit are among those of a larger.
        skip_bad: leave unreadable images out and name them in `skipped`; otherwise they are an error.
        cache_dir: where decoded images are kept; by default the environment's IDC_CACHE, else ~/.cache/idc.

    Raises:
        IDCError: the source is missing, empty, damaged or unreachable, lacks the split, labels or classes, holds
            unreadable images, or a setting is out of range.
    """
    _check_settings(split, image_size, channels, validation_fraction, limit)
    opened = _open_source(source)
    pool, wanted = _choose(opened, split, validation_fraction, seed)
    if limit is not None:
        wanted = wanted[_balanced(pool.labels[wanted], wanted, limit)]
    size, channels = _shape(opened, image_size, channels)
    pixels, good, skipped = _pixels(pool, wanted, (channels, size, size), cache_dir, limit is not None, skip_bad)
    labels, ids = torch.from_numpy(pool.labels[good]), torch.from_numpy(good)
    fingerprint = _digest(opened.class_names, pixels, labels, ids)
    return ImageSet(pixels, labels, ids, opened.class_names, str(source), split, fingerprint, skipped)


def decode_image(path_or_bytes: str | Path | bytes, *, image_size: int, channels: int) -> Tensor:
    """Decode one image file to (channels, image_size, image_size) uint8.

    The EXIF orientation is applied. Transparent pixels lie on white (4 channels keep them). 16-bit values are divided
    by 257; floats are taken as [0, 1] if none is above 1, else as [0, 255]. The centred square is scaled with PIL's
    antialiased bicubic filter. Of an animation the first frame counts.

    Raises:
        IDCError: the file is missing, no image, damaged or larger than MAX_PIXELS, or a setting is out of range.
    """
    _check_settings("train", image_size, channels, 0.0, None)
    raw = path_or_bytes if isinstance(path_or_bytes, bytes) else Path(path_or_bytes)
    name = "image of " + f"{len(raw)} bytes" if isinstance(raw, bytes) else str(path_or_bytes)
    with _no_bomb_warnings():
        return torch.from_numpy(np.array(_decode(raw, name, (channels, image_size, image_size)), order="C"))


def read_images(paths: Iterable[str | Path], *, shape: tuple[int, int, int]) -> Tensor:
    """Decode image files to (N, C, H, W) float32 in [0, 1], where shape is (C, H, W) with H = W; see `decode_image`.

    Raises:
        IDCError: as `decode_image`; no paths; a shape that is not square.
    """
    channels, height, width = shape
    if height != width:
        raise IDCError(f"shape {shape}", "square images, (C, H, H)", "use a model for square images")
    images = [decode_image(path, image_size=height, channels=channels) for path in paths]
    if not images:
        raise IDCError("no images", "at least one image file", "name the files to read")
    return torch.stack(images).float() / 255


def _check_settings(
    split: str, image_size: int | None, channels: int | None, fraction: float, limit: int | None
) -> None:
    if split not in get_args(Split):
        raise IDCError(f"split {split!r}", "train, validation or test", "use one of these names")
    if image_size is not None and image_size < 1:
        raise IDCError(f"image size {image_size}", "a side of 1 pixel or more", "use 32, for example")
    if channels is not None and channels not in _MODES:
        raise IDCError(f"{channels} channels", "1 (grey), 3 (RGB) or 4 (RGBA)", "use one of these numbers")
    if not 0.0 <= fraction < 1.0:
        raise IDCError(f"validation fraction {fraction}", "at least 0 and below 1", "use 0.1, for example")
    if split == "validation" and fraction == 0.0:
        raise IDCError("validation fraction 0", "more than 0 to have a validation split", "use 0.1, for example")
    if limit is not None and limit < 1:
        raise IDCError(f"limit {limit}", "1 image or more", "raise the limit, or leave it out")


def _digest(names: Sequence[str], *tensors: Tensor) -> str:
    digest = hashlib.sha256(json.dumps([list(names), [list(tensor.shape) for tensor in tensors]]).encode())
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------- sources

_Raw = bytes | Path | Image.Image


@dataclass(frozen=True, slots=True)
class _Pool:
    """The images of one split of a source, not decoded: labels (N,), and what reads, names and keys them."""

    labels: Positions
    read: Callable[[int], _Raw]
    name: Callable[[int], str]
    key: Callable[[], str]  # identifies the content; "" where a cache is not worth it


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    pools: Mapping[Split, _Pool]
    class_names: tuple[str, ...]
    default_size: int | None = None


def _open_source(source: str) -> _Source:
    source = str(source)
    if source == "digits":
        return _digits()
    path, found = Path(os.path.expanduser(source)), False
    try:
        found = bool(source) and path.exists()
    except OSError as error:
        raise IDCError(source, "a readable path", f"check it ({error.strerror})") from error
    if found:
        opened = _local_source(path)
    elif _looks_like_path(source) or not _HUB_ID.fullmatch(source):
        remedy = "check the path, or name a hub data set such as uoft-cs/cifar10"
        raise IDCError(f"no such file or folder: {source!r}", "a folder, a parquet file, digits or a hub id", remedy)
    else:
        opened = _hub_source(source)
    if len(opened.class_names) < 2:
        has = "one class only" if opened.class_names else "no images"
        raise IDCError(f"{source} has {has}", "two classes or more", "add images of another class")
    return opened


def _looks_like_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~"))
        or "\\" in source
        or source.count("/") > 1
        or source.endswith("/")
        or Path(source).suffix.lower() in _FILE_SUFFIXES
        or os.path.lexists(source.split("/")[0])
    )


def _local_source(path: Path) -> _Source:
    try:
        if path.is_file():
            if path.suffix.lower() not in (".parquet", ".pq"):
                raise IDCError(str(path), "a folder or a .parquet file", "name the folder that holds the class folders")
            # A lone test file is a test split; any other lone file is one pool, whatever its name.
            return _parquet_source(path, {"test" if _split_of(path.stem) == "test" else "train": [path]})
        for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet"):
            if files := sorted(file for file in path.glob(pattern) if not _is_hidden(file.relative_to(path))):
                return _parquet_source(path, _group_by_split(path, files))
        return _folder_source(path)
    except OSError as error:
        raise IDCError(f"{path} ({error.strerror})", "readable files", "check the permissions") from error


def _digits() -> _Source:
    bunch = import_module("sklearn.datasets").load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pool = _Pool(
        bunch.target.astype(np.int64),
        lambda index: Image.fromarray(grey[index]),
        lambda index: f"digit {index}",
        lambda: "",
    )
    return _Source("digits", {"train": pool}, tuple(str(digit) for digit in range(10)), default_size=32)


def _folder_source(root: Path) -> _Source:
    """Class folders, directly in `root` or in its split folders (those named so that have folders themselves)."""
    folders: dict[Split, Path] = {}
    for folder in _visible_folders(root):
        split = _SPLIT_NAMES.get(folder.name.lower())
        if split and _visible_folders(folder):
            folders.setdefault(split, folder)
    folders = folders or {"train": root}
    main: Split = "train" if "train" in folders else next(iter(folders))
    names = tuple(folder.name for folder in _visible_folders(folders[main]))
    pools = {split: _folder_pool(root, folder, names) for split, folder in folders.items()}
    loose = next((file.name for file in sorted(folders[main].iterdir()) if _is_image(file)), None)
    layout = ("one subfolder of images per class", "move each class's images into a folder with its name")
    if loose is not None and not len(pools[main].labels):
        raise IDCError(f"{folders[main]} has images ({loose}, ...) but no class folders", *layout)
    if not len(pools[main].labels):
        raise IDCError(f"{folders[main]} has no images", *layout)
    if all(name.lower() in _SPLIT_NAMES for name in names):
        raise IDCError(f"{root / names[0]} has no class folders", *layout)
    for name, count in zip(names, np.bincount(pools[main].labels, minlength=len(names)), strict=True):
        if not count:
            raise IDCError(f"{folders[main] / name} has no images", "images in every class folder", "fill or remove it")
    return _Source(str(root), pools, names)


def _folder_pool(root: Path, folder: Path, class_names: Sequence[str]) -> _Pool:
    files: list[Path] = []
    labels: list[int] = []
    for child in _visible_folders(folder):
        if child.name not in class_names:
            raise IDCError(f"class folder {child}", f"one of train's {len(class_names)} classes", "rename or remove it")
        for base, folders, names in os.walk(child, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            files += [Path(base, name) for name in sorted(names) if _is_image(Path(name))]
        labels += [class_names.index(child.name)] * (len(files) - len(labels))

    def key() -> str:
        # Reading every byte would cost a good part of decoding it. A file that changes and keeps its size and time
        # goes unnoticed. The root is part of the key, as files of equal names, sizes and times may lie elsewhere.
        stats = [(str(file.relative_to(root)), file.stat()) for file in files]
        rows = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return hashlib.sha256(json.dumps([str(root.resolve()), rows]).encode()).hexdigest()

    array = np.asarray(labels, dtype=np.int64)
    return _Pool(array, lambda index: files[index], lambda index: str(files[index].relative_to(root)), key)


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith((".", "__")))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _IMAGE_SUFFIXES and not file.name.startswith(".")


def _raise(error: OSError) -> None:
    raise error


def _split_of(name: str) -> Split | None:
    match = _SPLIT_PATTERN.search(name)
    return _SPLIT_NAMES[match[1].lower()] if match else None


@dataclass(frozen=True, slots=True)
class _Table:
    """One split of a data set in columns: its Arrow schema, a reader of one column, and its cache key."""

    schema: Any
    column: Callable[[str], Any]
    key: Callable[[], str]
    folder: Path | None  # where images that are not stored inline must lie; None: anywhere (the hub library's cache)


def _parquet_source(root: Path, groups: Mapping[Split, list[Path]]) -> _Source:
    tables = {split: _parquet_table(files) for split, files in groups.items()}
    return _table_source(str(root), tables, (root.parent if root.is_file() else root) / "README.md")


def _group_by_split(root: Path, files: Iterable[Path]) -> Mapping[Split, list[Path]]:
    """Files by the split that their name, else a folder's name, tells; all of them are train where none tells."""
    groups: dict[Split, list[Path]] = {}
    files = list(files)
    for file in files:
        names = [file.stem, *reversed(file.relative_to(root).parts[:-1])]
        split = next((found for name in names if (found := _split_of(name))), None)
        if split:
            groups.setdefault(split, []).append(file)
    return groups or {"train": files}


def _parquet_table(files: Sequence[Path]) -> _Table:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")

    @contextmanager
    def readable() -> Iterator[None]:
        try:
            yield
        except (arrow.ArrowException, OSError) as error:
            value = f"{', '.join(file.name for file in files[:5])} ({str(error).splitlines()[0]})"
            raise IDCError(value, "readable parquet files with equal columns", "download the data again") from error

    def column(name: str) -> Any:
        with readable():
            parts = [parquet.ParquetFile(file).read(columns=[name]).column(name) for file in files]
            return arrow.chunked_array([chunk for part in parts for chunk in part.chunks], type=parts[0].type)

    def key() -> str:
        digest = hashlib.sha256()
        by_content = sum(file.stat().st_size for file in files) <= _HASHED_BYTES
        for file in files:
            if by_content:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            else:
                stat = file.stat()
                digest.update(json.dumps([str(file.resolve()), stat.st_size, stat.st_mtime_ns]).encode())
        return digest.hexdigest()

    with readable():
        return _Table(parquet.read_schema(files[0]), column, key, files[0].parent)


def _table_source(name: str, tables: Mapping[Split, _Table], readme: Path | None) -> _Source:
    """A source from columns img/image and label/fine_label/labels.

    Class names come from the schema's own `huggingface` metadata, else from the README's dataset_info, else they are
    the label numbers.
    """
    pools: dict[Split, _Pool] = {}
    names: tuple[str, ...] = ()
    for split in sorted(tables, key=lambda split: split != "train"):
        label = _label_column(tables[split].schema, f"{name} ({split})")
        pools[split] = _table_pool(tables[split], label, f"{name} ({split})")
        names = names or _schema_names(tables[split].schema, label) or _readme_names(readme, label)
    if not names:
        highest = max((int(pool.labels.max(initial=-1)) for pool in pools.values()), default=-1)
        if highest >= 100_000:
            raise IDCError(
                f"{name} has a label {highest}", "labels from 0 to the number of classes - 1", "renumber them"
            )
        names = tuple(str(number) for number in range(highest + 1))
    return _Source(name, pools, names)


def _table_pool(table: _Table, label: str, name: str) -> _Pool:
    image = _image_column(table.schema, name)
    # Missing labels become -1, which is an error once the split is asked for (test splits without labels are common).
    labels = table.column(label).fill_null(-1).to_numpy().astype(np.int64)
    images = functools.cache(lambda: table.column(image))

    def read(index: int) -> _Raw:
        value = images()[index].as_py()
        if isinstance(value, dict):
            value = value["bytes"] or (value.get("path") and _inside(table.folder, Path(value["path"])))
        if not value:
            raise IDCError(f"row {index} of {name} has no image", "an encoded image in every row", "leave out the row")
        raw: _Raw = value
        return raw

    return _Pool(labels, read, lambda index: f"row {index} of {name}", lambda: f"{table.key()} {image}")


def _inside(folder: Path | None, path: Path) -> Path | None:
    """The path below `folder`, or None if it leads out of there: a data file has no say about the rest of the disk."""
    if folder is None:
        return path
    return folder / path if (folder / path).resolve().is_relative_to(folder.resolve()) else None


def _image_column(schema: Any, name: str) -> str:
    types = import_module("pyarrow").types

    def holds_images(column: str) -> bool:
        kind = schema.field(column).type
        if types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    for column in ["img", "image", *schema.names]:
        if column in schema.names and holds_images(column):
            return str(column)
    expected = "a column img or image with encoded images ({bytes, path} or bytes)"
    raise IDCError(f"{name} has the columns {', '.join(schema.names)}", expected, "rename or encode the column")


def _label_column(schema: Any, name: str) -> str:
    types = import_module("pyarrow").types
    for column in ("label", "fine_label", "labels"):
        if column in schema.names:
            if types.is_integer(schema.field(column).type):
                return column
            raise IDCError(
                f"{name}: column {column} of {schema.field(column).type}", "integer labels", "number the classes"
            )
    expected = "an integer column label, fine_label or labels"
    raise IDCError(f"{name} has the columns {', '.join(schema.names)}", expected, "rename the column with the classes")


def _schema_names(schema: Any, column: str) -> tuple[str, ...]:
    """Class names in the metadata that the `datasets` library writes into a schema; () if there are none."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(str(name) for name in features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _readme_names(readme: Path | None, column: str) -> tuple[str, ...]:
    """Class names in the dataset_info of a data set card's front matter; () if there are none."""
    if readme is None or not readme.is_file():
        return ()
    yaml = import_module("yaml")
    try:
        front_matter = re.match(r"---\n(.*?)\n---", readme.read_text(encoding="utf-8"), re.DOTALL)
        info = yaml.safe_load(front_matter[1])["dataset_info"] if front_matter else {}
        features = (info[0] if isinstance(info, list) else info)["features"]
        names = next(entry for entry in features if entry["name"] == column)["dtype"]["class_label"]["names"]
        return tuple(str(names[key]) for key in sorted(names, key=int))
    except (KeyError, TypeError, ValueError, IndexError, StopIteration, yaml.YAMLError):
        return ()


def _hub_source(source: str) -> _Source:
    """A data set of the hub, or of the hub library's own cache when the hub cannot be reached."""
    online = _hub_reachable()
    datasets = import_module("datasets")
    before = datasets.config.HF_HUB_OFFLINE
    # Told that it is offline the library goes straight to its cache, instead of trying again for minutes.
    datasets.config.HF_HUB_OFFLINE = before or not online
    try:
        loaded = datasets.load_dataset(source)
    except Exception as error:  # the library raises anything from ValueError to errors of its HTTP client
        if not online:
            value = f"hub data set {source!r} (the hub cannot be reached, and it is not in the local cache)"
            raise IDCError(
                value, "a network, or a local path", f"connect, or give a folder such as ./{source}"
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise IDCError(f"hub data set {source!r} ({reason})", "a data set of images", "check the id") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before
    names: dict[Split, str] = {}
    for name in sorted(loaded):
        if split := _split_of(name):
            names.setdefault(split, name)
    if not names:
        names = {"train": next(iter(loaded))}
    return _table_source(source, {split: _hub_table(loaded[name]) for split, name in names.items()}, None)


def _hub_table(split: Any) -> _Table:
    def key() -> str:
        files = [Path(file["filename"]) for file in split.cache_files]
        rows = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest() if files else ""

    return _Table(split.features.arrow_schema, split.data.column, key, None)


def _hub_reachable() -> bool:
    """Whether the hub answers at all, within _PROBE_SECONDS; False without asking if the user chose to be offline."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return False
    request, error = import_module("urllib.request"), import_module("urllib.error")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    answered, done = threading.Event(), threading.Event()

    def probe() -> None:
        try:
            request.urlopen(request.Request(endpoint, method="HEAD"), timeout=_PROBE_SECONDS).close()
            answered.set()
        except error.HTTPError:  # an answer, though not a friendly one
            answered.set()
        except (OSError, ValueError, import_module("http.client").HTTPException):
            pass  # no network, no such host, no URL
        finally:
            done.set()

    # In a thread, because a lookup of the host's name does not keep to the time limit.
    threading.Thread(target=probe, daemon=True).start()
    done.wait(_PROBE_SECONDS + 0.5)
    return answered.is_set()


# ----------------------------------------------------------------------------------------------------- splits


def _choose(source: _Source, split: Split, fraction: float, seed: int) -> tuple[_Pool, Positions]:
    """The pool that holds a split, and the split's positions in it, ascending."""
    base: Split = split if split in source.pools else "train"
    if base not in source.pools:
        have, remedy = ", ".join(source.pools), "ask for that one, or add a train split"
        raise IDCError(f"{source.name} has no {split} split", f"one of: {have}", remedy)
    pool = source.pools[base]
    _check_labels(pool, source, base)
    positions = np.arange(len(pool.labels))
    if base != "train":
        return pool, positions
    splits_test = "test" not in source.pools
    splits_validation = "validation" not in source.pools and fraction > 0 and split != "test"
    counts = np.bincount(pool.labels, minlength=len(source.class_names))
    least = 1 + splits_test + splits_validation
    for name, count in zip(source.class_names, counts, strict=True):
        if 0 < count < least:
            value, expected = f"class {name!r} has {count} training image(s)", f"at least {least} to split"
            raise IDCError(value, expected, "add images of it, give a folder of test images, or use no validation")
    if splits_test:
        held_out = _hold_out(pool.labels, positions, TEST_FRACTION, _FIXED_SEED)
        if split == "test":
            return pool, positions[held_out]
        positions = positions[~held_out]
    if splits_validation:
        held_out = _hold_out(pool.labels[positions], positions, fraction, seed)
        positions = positions[held_out if split == "validation" else ~held_out]
    return pool, positions


def _check_labels(pool: _Pool, source: _Source, split: Split) -> None:
    classes, where = len(source.class_names), f"{source.name} ({split})"
    if not len(pool.labels):
        raise IDCError(f"{where} has no images", "a split with images", "use another split or source")
    lowest, highest = int(pool.labels.min()), int(pool.labels.max())
    if lowest < 0:
        bad = int((pool.labels < 0).sum())
        raise IDCError(f"{where}: {bad} labels are missing or negative", "a label for every image", "use another split")
    if highest >= classes:
        raise IDCError(f"{where}: label {highest}", f"labels from 0 to {classes - 1}", "correct labels or class names")
    if split == "train" and len(np.unique(pool.labels)) < 2:
        raise IDCError(f"{where} has one class only", "two classes or more", "add images of another class")


def _hold_out(labels: Positions, positions: Positions, fraction: float, seed: int) -> NDArray[np.bool_]:
    """True for `fraction` of each class: at least one, never all, chosen by the seed and each image's position."""
    rank = _rank_in_class(labels, _shuffle_keys(positions, seed))
    counts = np.bincount(labels)
    quota = np.clip(np.rint(counts * fraction), 1, np.maximum(counts - 1, 0))
    return np.asarray(rank < quota[labels])


def _balanced(labels: Positions, positions: Positions, limit: int) -> Positions:
    """Indices, ascending, of at most `limit` entries: the first of each class, the second of each class, and so on."""
    if limit < 1:
        raise IDCError(f"limit {limit}", "1 image or more", "raise the limit, or leave it out")
    keys = _shuffle_keys(positions, _FIXED_SEED)
    return np.sort(np.lexsort((keys, _rank_in_class(labels, keys)))[:limit])


def _rank_in_class(labels: Positions, keys: NDArray[np.uint64]) -> Positions:
    """How many images of the same class have a smaller key, for each image."""
    order = np.lexsort((keys, labels))
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - starts[labels[order]]
    return rank


def _shuffle_keys(positions: Positions, seed: int) -> NDArray[np.uint64]:
    """A pseudo-random number per position, by the splitmix64 finaliser.

    Not a generator of NumPy or PyTorch: their streams may change with a release, and so would everyone's test split.
    """
    start = (seed * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    z = np.uint64(start) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


# --------------------------------------------------------------------------------------------------- decoding


def _shape(source: _Source, image_size: int | None, channels: int | None) -> tuple[int, int]:
    """(image size, channels), with the defaults that `load` documents."""
    image_size = image_size or source.default_size
    if image_size and channels:
        return image_size, channels
    pool = source.pools.get("train") or next(iter(source.pools.values()))
    sizes: set[tuple[int, int]] = set()
    grey = True
    with _no_bomb_warnings():
        for index in np.unique(np.linspace(0, len(pool.labels) - 1, _PROBED).astype(int)):
            try:
                with _open_image(pool.read(int(index)), pool.name(int(index))) as image:
                    sizes.add(image.size)
                    grey = grey and _is_grey(image)
            except IDCError:
                continue  # decoding reports it, if its split is asked for
    common = sizes.pop() if len(sizes) == 1 else (0, 1)
    side = common[0] if common[0] == common[1] else _MIXED_SIZE
    return image_size or side, channels or (1 if grey else 3)


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [0, 1, 2]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _decode_all(pool: _Pool, positions: Positions, shape: tuple[int, int, int]) -> tuple[Tensor, Positions, list[str]]:
    """(images (M, C, H, W) uint8, positions (M,) that could be read, why the others could not)."""
    images = torch.empty((len(positions), *shape), dtype=torch.uint8)
    out, good = images.numpy(), np.zeros(len(positions), dtype=np.bool_)

    def work(rows: range) -> list[str]:
        problems = []
        for row in rows:
            index = int(positions[row])
            try:
                out[row] = _decode(pool.read(index), pool.name(index), shape)
                good[row] = True
            except IDCError as error:
                problems.append(error.value)
        return problems

    chunks = [range(start, min(start + 128, len(positions))) for start in range(0, len(positions), 128)]
    problems: list[str] = []
    with _no_bomb_warnings(), ThreadPoolExecutor(_workers(pool, positions)) as executor:
        try:
            for found in _progress(executor.map(work, chunks), len(chunks)):
                problems += found
        except BaseException:  # Ctrl-C above all: do not decode the rest first
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return (images if good.all() else images[torch.from_numpy(good)]), positions[good], problems


def _workers(pool: _Pool, positions: Positions) -> int:
    """One thread for thumbnails, where handing the interpreter's lock over costs more than it gains, else one per core.

    Looking at the first image also makes the pool read its columns once, before threads could do so together.
    """
    try:
        with _open_image(pool.read(int(positions[0])), "") as image:
            thumbnails = image.width * image.height < 128**2
    except (IDCError, IndexError):
        thumbnails = False
    return 1 if thumbnails else min(8, os.cpu_count() or 1)


def _progress(steps: Iterator[list[str]], total: int) -> Iterator[list[str]]:
    """The steps, with a progress bar on a terminal's standard error if they are many."""
    if total < 8 or not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(steps, description="decoding images", total=total, console=Console(stderr=True), transient=True)


def _decode(raw: _Raw, name: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decode to a read-only array of `shape` (C, H, H); see `decode_image`."""
    channels, size, _ = shape
    with _open_image(raw, name) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(_square(_to_mode(_to_8_bits(upright), channels), size))
        except IDCError:
            raise
        except Exception as error:  # a damaged file makes PIL's readers raise anything, from OSError to struct.error
            raise _unreadable(name, error) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _open_image(raw: _Raw, name: str) -> Image.Image:
    """Open an image by its header and check its size; nothing is decoded yet."""
    too_large = (f"at most {MAX_PIXELS:,} pixels", "scale it down, or leave it out")
    try:
        image = raw if isinstance(raw, Image.Image) else Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw)
    except FileNotFoundError as error:
        raise IDCError(f"no such file: {name}", "an image file", "check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise IDCError(f"{name} ({str(error).split(',')[0]})", *too_large) from error
    except Exception as error:  # as in _decode
        raise _unreadable(name, error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise IDCError(f"{name} ({width}x{height} pixels)", *too_large)
    return image


def _unreadable(name: str, error: Exception) -> IDCError:
    if isinstance(error, UnidentifiedImageError):
        reason = "not an image"
    else:
        reason = (str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__])[0]
    return IDCError(f"{name} ({reason})", "a readable image file", "replace or remove it")


@contextmanager
def _no_bomb_warnings() -> Iterator[None]:
    """Without PIL's own warning of large images: ours is an error, and comes earlier."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which PIL keeps in I;16 or in 32-bit I
        values = np.asarray(image).astype(np.float64) / 257
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
        values = values * (255 if values.max(initial=0.0) <= 1.0 else 1)
    else:
        return image
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels < 4:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])


def _square(image: Image.Image, size: int) -> Image.Image:
    """The short side scaled to `size` by antialiased bicubic interpolation, then the centred square; in one step.

    An image that fits already is not touched.
    """
    width, height = image.size
    if (width, height) == (size, size):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


# --------------------------------------------------------------------------------------------------- the cache


def _pixels(
    pool: _Pool,
    wanted: Positions,
    shape: tuple[int, int, int],
    cache_dir: Path | None,
    limited: bool,
    skip_bad: bool,
) -> tuple[Tensor, Positions, tuple[str, ...]]:
    """(images (M, C, H, W), their positions (M,), the names of those left out) from the cache or the source.

    Without a limit the whole pool is decoded and kept, so that train, validation and test share one file.
    """
    everything = np.arange(len(pool.labels))
    attempts = [everything, wanted] if limited else [everything]
    key = pool.key()
    folder = _cache_folder(cache_dir) if key else None
    files = [folder / _cache_name(key, positions, shape) if folder else None for positions in attempts]
    cached = next((found for file in files if file and (found := _read_cache(file))), None)
    images, good = cached or _decode_and_keep(pool, attempts[-1], shape, files[-1])
    missing = np.setdiff1d(wanted, good)
    problems = _decode_all(pool, missing, shape)[2] if len(missing) else []
    if len(problems) < len(missing):  # files that could not be read when the cache was written can be read now
        images, good = _decode_and_keep(pool, attempts[-1], shape, files[-1])
        missing = np.setdiff1d(wanted, good)
    if problems and (not skip_bad or len(missing) == len(wanted)):
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        remedy = "replace or remove them, or skip bad images"
        raise IDCError(f"{len(problems)} of {len(wanted)} images cannot be used: {shown}", "readable images", remedy)
    wanted = np.setdiff1d(wanted, missing)
    if len(wanted) < len(good):
        images = images[torch.from_numpy(np.searchsorted(good, wanted))]
    return images, wanted, tuple(pool.name(int(position)) for position in missing)


def _decode_and_keep(
    pool: _Pool, positions: Positions, shape: tuple[int, int, int], file: Path | None
) -> tuple[Tensor, Positions]:
    images, good, _ = _decode_all(pool, positions, shape)
    if file and len(good):
        _write_cache(file, images, good)
    return images, good


def _cache_folder(cache_dir: Path | None) -> Path | None:
    try:
        return Path(cache_dir or os.environ.get("IDC_CACHE") or "~/.cache/idc").expanduser() / "images"
    except RuntimeError:  # no home directory
        return None


def _cache_name(key: str, positions: Positions, shape: tuple[int, int, int]) -> str:
    digest = hashlib.sha256(json.dumps([_CACHE_VERSION, key, shape, MAX_PIXELS]).encode())
    digest.update(positions.astype("<i8").tobytes())
    return f"{digest.hexdigest()[:40]}.safetensors"


def _read_cache(file: Path) -> tuple[Tensor, Positions] | None:
    """Images, memory-mapped, and positions; None if there is no file or it is not what was once written."""
    if not file.is_file():
        return None
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as stream:
            images, positions = stream.get_tensor("images"), stream.get_tensor("positions")
            intact = (stream.metadata() or {}).get("sha256") == _digest((), images, positions)
    except Exception:  # safetensors' own error, or OSError: damaged either way
        intact = False
    if not intact:
        warnings.warn(f"the cache file {file} is damaged; decoding the images again", stacklevel=2)
        return None
    return images, positions.numpy().copy()


def _write_cache(file: Path, images: Tensor, positions: Positions) -> None:
    """Write all or nothing; a folder that cannot be written, or a full disk, is a warning only."""
    from safetensors.torch import save_file

    tensors = {"images": images, "positions": torch.from_numpy(positions)}
    digest = _digest((), *tensors.values())
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata={"sha256": digest})
        temporary.replace(file)
    except Exception as error:  # OSError, or safetensors' own for the same reasons
        warnings.warn(f"the decoded images are not cached in {file.parent} ({error})", stacklevel=2)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
