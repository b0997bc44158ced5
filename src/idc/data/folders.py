"""Image files sorted into one folder per class."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from idc.data.pools import Pool, Source, Split
from idc.data.splits import SPLIT_NAMES
from idc.errors import IDCError
from idc.storage.hub import image_suffixes


def folder_source(root: Path) -> Source:
    """Class folders, directly in `root` or in its split folders (those named so that have folders themselves).

    Raises:
        IDCError: there are none, one has no images, or a test or validation class is none of train's.
        OSError: a folder cannot be read.
    """
    folders: dict[Split, Path] = {}
    for folder in _visible_folders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split and _visible_folders(folder):
            folders.setdefault(split, folder)
    folders = folders or {"train": root}
    main: Split = "train" if "train" in folders else next(iter(folders))
    names = tuple(folder.name for folder in _visible_folders(folders[main]))
    pools = {split: _folder_pool(root, folder, names) for split, folder in folders.items()}
    _check_layout(folders[main], names, pools[main])
    return Source(str(root), pools, names)


def _check_layout(folder: Path, class_names: Sequence[str], pool: Pool) -> None:
    layout = ("one subfolder of images per class", "move each class's images into a folder with its name")
    if not len(pool.labels):
        loose = next((file.name for file in sorted(folder.iterdir()) if _is_image(file)), None)
        has = f"images ({loose}, ...) but no class folders" if loose else "no images"
        raise IDCError(f"{folder} has {has}", *layout)
    if all(name.lower() in SPLIT_NAMES for name in class_names):
        raise IDCError(f"{folder / class_names[0]} has no class folders", *layout)
    for name, count in zip(class_names, np.bincount(pool.labels, minlength=len(class_names)), strict=True):
        if not count:
            raise IDCError(f"{folder / name} has no images", "images in every class folder", "fill or remove it")


def _folder_pool(root: Path, folder: Path, class_names: Sequence[str]) -> Pool:
    files: list[Path] = []
    labels: list[int] = []
    for child in _visible_folders(folder):
        if child.name not in class_names:
            raise IDCError(f"class folder {child}", f"one of train's {len(class_names)} classes", "rename or remove it")
        found = _image_files(child)
        files += found
        labels += [class_names.index(child.name)] * len(found)
    names = [str(file.relative_to(root)) for file in files]

    def key() -> str:
        # Reading every byte would cost a good part of decoding it. A file that changes and keeps its size and time
        # goes unnoticed. The root is part of the key, as files of equal names, sizes and times may lie elsewhere.
        stats = [file.stat() for file in files]
        rows = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in zip(names, stats, strict=True)]
        return hashlib.sha256(json.dumps([str(root.resolve()), rows]).encode()).hexdigest()

    return Pool(np.asarray(labels, dtype=np.int64), files.__getitem__, names.__getitem__, key)


def _image_files(folder: Path) -> list[Path]:
    """The images in a folder and in its subfolders, sorted by name within each."""
    files: list[Path] = []
    for base, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(base, name) for name in sorted(names) if _is_image(Path(name))]
    return files


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith((".", "__")))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in image_suffixes() and not file.name.startswith(".")


def _raise(error: OSError) -> None:
    raise error
