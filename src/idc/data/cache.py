"""Decoded images in memory-mapped files, named by what they were decoded from; damage is noticed, never loaded."""

import hashlib
import json
import os
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from idc.data.decoding import MAX_PIXELS, Shape
from idc.data.image_set import digest
from idc.data.pools import Positions
from idc.errors import IDCError
from idc.storage.files import make_folder, remove_left_over, whole_file

_DAY = 24 * 3600
_VERSION = "2"  # to be raised whenever the pixels that decoding gives change


def file_for(key: str, positions: Positions, shape: Shape, cache_dir: Path | None) -> Path | None:
    """The file for these images of the pool with that key; None without a key, or without a place for a cache."""
    if not key:
        return None
    try:
        folder = Path(cache_dir or os.environ.get("IDC_CACHE") or "~/.cache/idc").expanduser() / "images"
    except RuntimeError:  # no home directory
        return None
    name = hashlib.sha256(json.dumps([_VERSION, key, shape, MAX_PIXELS]).encode())
    name.update(positions.astype("<i8").tobytes())
    return folder / f"{name.hexdigest()[:40]}.safetensors"


def read(file: Path) -> tuple[Tensor, Positions] | None:
    """Images, memory-mapped, and positions; None if there is no file or it is not what was once written."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stream:
            images, positions = stream.get_tensor("images"), stream.get_tensor("positions")
            intact = (stream.metadata() or {}).get("sha256") == digest((), images, positions)
    except Exception:  # of the file, its header or its tensors: damaged in any case
        intact = False
    if not intact:
        warnings.warn(f"the cache file {file} is damaged; decoding the images again", stacklevel=2)
        return None
    return images, positions.numpy().copy()


def write(file: Path, images: Tensor, positions: Positions) -> None:
    """Write all or nothing; a folder that cannot be written, or a full disk, is a warning only."""
    tensors = {"images": images, "positions": torch.from_numpy(positions)}
    try:
        make_folder(file.parent)
        remove_left_over(file.parent, idle=_DAY)  # others may be writing theirs
        with whole_file(file) as part:
            save_file(tensors, part, metadata={"sha256": digest((), *tensors.values())})
    except (IDCError, SafetensorError, OSError) as error:
        warnings.warn(f"the decoded images are not cached ({error})", stacklevel=2)
