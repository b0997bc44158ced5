"""What a run needs to go on where it stopped: one folder a checkpoint, whole or not at all."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from idc.errors import IDCError
from idc.storage.files import whole_folder, write_json

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


def load_latest(root: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read, or None if there is none at all.

    Raises:
        IDCError: if there are checkpoints but none is whole.
    """
    folders = _folders(root)
    for folder in reversed(folders):
        try:
            tensors = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
            progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RuntimeError, EOFError, UnpicklingError):  # cut short by a full disk, say
            continue
        return Checkpoint(step=int(folder.name.split("-")[1]), tensors=tensors, progress=progress)
    if folders:
        raise IDCError(root, "a whole checkpoint", "all are damaged: remove the folder and train again")
    return None
