"""What a run needs to go on where it stopped: one folder a checkpoint, whole or not at all."""

import json
import re
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch

from idc.errors import IDCError
from idc.storage.files import whole_folder, write_json
from idc.storage.tensor_file import read_tensors

KEPT = 2  # the newest, and the one before it
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``step``: batches done. ``tensors``: state dicts by name. ``progress``: JSON-ready values."""

    step: int
    tensors: dict[str, Any]
    progress: dict[str, Any]


def _folders(root: Path) -> list[Path]:
    """Whole checkpoints, oldest first (a folder being written has a name of its own)."""
    found = [p for p in root.glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def save(root: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` into ``root``; older ones but the last ``KEPT`` are removed afterwards."""
    with whole_folder(root / f"step-{checkpoint.step:08d}") as part:
        torch.save(checkpoint.tensors, part / "state.pt")
        write_json(part / "progress.json", checkpoint.progress)
    for old in _folders(root)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_latest(root: Path, whole: Set[str] = frozenset()) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None if there is none at all.

    Args:
        whole: what the progress of a whole one says at least.

    Raises:
        IDCError: if there are checkpoints but none is whole.
    """
    folders = _folders(root)
    for folder in reversed(folders):
        try:
            tensors = read_tensors(folder / "state.pt")
            progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RuntimeError, EOFError, KeyError, UnpicklingError, BadZipFile):
            continue  # cut short by a full disk, say
        if not isinstance(tensors, dict) or not isinstance(progress, dict) or not progress.keys() >= whole:
            continue
        return Checkpoint(step=int(folder.name.split("-")[1]), tensors=tensors, progress=progress)
    if folders:
        raise IDCError(root, "a whole checkpoint", "all are damaged: remove the folder and train again")
    return None
