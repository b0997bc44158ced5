"""What a run needs to go on where it stopped: one folder a checkpoint, whole or not at all."""

import re
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch

from idc.errors import IDCError
from idc.storage import records
from idc.storage.files import whole_folder
from idc.storage.tensor_file import read_tensors

KEPT = 2  # the newest, and the one before it
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``step``: batches done. ``tensors``: state dicts by name. ``progress``: JSON-ready values."""

    step: int
    tensors: dict[str, Any]
    progress: dict[str, Any]


@dataclass(slots=True)
class RunState:
    """How far a run has come: the ``progress`` of its checkpoints.

    Args:
        images: number and fingerprint of the images of each split.
        seconds_on: by machine: a run may go on with more processes, or elsewhere.
        clock: how much of its ``minutes`` a run by the clock has spent, see ``Pace``.
        best, best_step: the best score of a validation so far, and its step.
        accuracy: the newest validation, as its ``to_dict``.
        whole: that of the best weights at the end.
        fit: that of the same weights on images that they were trained on.
        facts: what else it found, see ``TrainingObjective.facts``.
    """

    images: dict[str, list[Any]]
    seconds_on: dict[str, float] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None
    accuracy: dict[str, float | str] | None = None
    whole: dict[str, float | str] | None = None
    fit: dict[str, float | str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(self.seconds_on.values())

    def card(self, validation: dict[str, float | str] | None) -> dict[str, Any]:
        """For the model card: what the training took, and the figures of a validation."""
        effort = ", ".join(f"{seconds:,.0f} s on {name}" for name, seconds in self.seconds_on.items())
        figures = {f"validation {k}": v for k, v in (validation or {}).items()}
        return {"Training": effort} | ({"figures": figures} if figures else {})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"seconds": self.seconds} | asdict(self)

    def take_over(self, kept: dict[str, Any], out: Path, machine: str) -> None:
        """Go on from the ``to_dict`` of a checkpoint of the run in ``out``. One from before machines and images were
        noted is taken for one of this ``machine``, with these images.

        Raises:
            IDCError: if it was of other images.
        """
        for split, (count, fingerprint) in kept.get("images", self.images).items():
            if self.images.get(split) != [count, fingerprint]:
                now = self.images[split][0] if split in self.images else 0
                raise IDCError(
                    f"{out}: {now} {split} images" + (", others than before" if now == count else ""),
                    f"the {count} that the run began with",
                    "give the same --data, --limit and --image-size, or another --out",
                )
        older = {"seconds_on": {machine: kept["seconds"]}}
        for name in {f.name for f in fields(self)} & (older | kept).keys():
            setattr(self, name, (older | kept)[name])


def _folders(root: Path) -> list[Path]:
    """Whole checkpoints, oldest first (a folder being written has a name of its own)."""
    found = [p for p in root.glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def save(root: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` into ``root``; older ones but the last ``KEPT`` are removed afterwards."""
    with whole_folder(root / f"step-{checkpoint.step:08d}") as part:
        torch.save(checkpoint.tensors, part / "state.pt")
        records.write(part / "progress.json", checkpoint.progress)
    prune(root)


def prune(root: Path) -> None:
    """Remove all checkpoints but the newest ``KEPT``, of which the last is whole."""
    for old in _folders(root)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_latest(root: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None if there is none at all.

    Raises:
        IDCError: if there are checkpoints but none is whole, or it is of another version.
    """
    folders = _folders(root)
    for folder in reversed(folders):
        try:
            tensors = read_tensors(folder / "state.pt")
            progress = records.read_json(folder / "progress.json", "", keys=("seconds",))
        except (IDCError, OSError, ValueError, RuntimeError, EOFError, KeyError, UnpicklingError, BadZipFile):
            continue  # cut short by a full disk, say
        if not isinstance(tensors, dict):
            continue
        if "network" not in tensors:
            raise IDCError(root, "checkpoints of this version of idc", "train again into a new --out")
        return Checkpoint(step=int(folder.name.split("-")[1]), tensors=tensors, progress=progress)
    if folders:
        raise IDCError(root, "a whole checkpoint", "all are damaged: remove the folder and train again")
    return None
