"""From what the user names to the pools of images behind it: digits, a folder, parquet files or a hub id."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from idc.data.folders import folder_source
from idc.data.hub_sets import hub_source
from idc.data.parquet import find_parquet, parquet_source
from idc.data.pools import Pool, Source
from idc.errors import IDCError
from idc.storage import hub


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
    return opened


def _local_source(path: Path) -> Source:
    try:
        files = find_parquet(path)
        if path.is_file() and not files:
            raise IDCError(str(path), "a folder or a .parquet file", "name the folder that holds the class folders")
        return parquet_source(path, files) if files else folder_source(path)
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
