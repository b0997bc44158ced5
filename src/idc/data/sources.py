"""Where data come from: digits, a folder, parquet files or a hub id, each as pools of images; add a source here."""

import os
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

from idc.data.folders import folder_source, has_class_folders
from idc.data.hub_sets import hub_source
from idc.data.parquet import find_parquet, holds_images, parquet_source
from idc.data.pools import Pool, Source
from idc.errors import IDCError
from idc.storage import hub

_LONGEST_NAME = 200  # characters of a class name
_UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no UTF-8, and line ends


def open_source(source: str) -> Source:
    """Find and open a source, without decoding any image.

    Raises:
        IDCError: it is missing, damaged or unreachable, or has fewer than two classes.
    """
    if source == "digits":
        return _digits()
    path = Path(os.path.expanduser(source))
    try:
        found = bool(source) and path.exists()
    except OSError as error:
        raise IDCError(source, "a readable path", f"check it ({error.strerror})") from error
    if found:
        opened = _local_source(path)
    elif hub.looks_like_path(source):
        remedy = "check the path, or name a hub data set such as uoft-cs/cifar10"
        raise IDCError(f"no such file or folder: {source!r}", "a folder, a parquet file, digits or a hub id", remedy)
    else:
        opened = hub_source(source)
    if len(opened.class_names) < 2:
        has = "one class only" if opened.class_names else "no images"
        raise IDCError(f"{source} has {has}", "two classes or more", "add images of another class")
    _check_names(opened)
    return opened


def _check_names(source: Source) -> None:
    """Refuse class names that no file could hold, before hours of training and not after."""
    for name in source.class_names:
        if len(name) > _LONGEST_NAME or any(unicodedata.category(c) in _UNPRINTED for c in name):
            shown = name if len(name) <= _LONGEST_NAME else f"{name[:40]}..."
            raise IDCError(f"class name {shown!r} of {source.name}"[:300],
                           f"up to {_LONGEST_NAME} printable characters", "rename it")  # fmt: skip
    if len(set(source.class_names)) < len(source.class_names):
        twice = next(name for name in source.class_names if source.class_names.count(name) > 1)
        raise IDCError(f"class name {twice!r} of {source.name}", "each name once", "rename one")


def _local_source(path: Path) -> Source:
    try:
        files = find_parquet(path)
        if path.is_file() and not files:
            raise IDCError(str(path), "a folder or a .parquet file", "name the folder that holds the class folders")
        if not files:
            return folder_source(path)
        if path.is_dir() and has_class_folders(path) and not holds_images(files):
            opened = folder_source(path)  # what lies beside class folders may be about them, as metadata.parquet is
            opened.left_out[".parquet files"] += len(files)
            return opened
        return parquet_source(path, files)
    except OSError as error:
        raise IDCError(f"{path} ({error.strerror})", "readable files", "check the permissions") from error


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pool = Pool(
        labels=bunch.target.astype(np.int64),
        read=lambda index: Image.fromarray(grey[index]),
        name=lambda index: f"digit {index}",
        key=lambda: "",
    )
    # 30% make 539 test images: enough for the 512 that a figure takes.
    return Source("digits", {"train": pool}, tuple("0123456789"), default_size=32, test_fraction=0.3)
