"""The models that come with the package, a folder each beside this file: they load by name and without a network."""

import difflib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent
_CONFIG, _WEIGHTS = (
    "config.json",
    "model.safetensors",
)  # as idc.storage.saved has them, which asks this module for names
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")  # of BatchNorm


def names() -> tuple[str, ...]:
    """The names of all models, sorted."""
    return tuple(sorted(file.parent.name for file in HOME.glob(f"[!.]*/{_CONFIG}")))


def folder(name: str) -> Path | None:
    """The folder of the model of exactly that name; None if there is none."""
    return HOME / name if name in names() else None


def resembles(name: str) -> bool:
    """Whether ``name``, which is none of the names, was meant as one. A hub id ``owner/name`` never was."""
    known = names()
    if "/" in name or name in known:
        return False
    return name.startswith("idc-") or bool(difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7))


@dataclass(frozen=True, slots=True)
class Model:
    """What the card of a model says.

    ``measured`` holds rows with ``attack``, ``answer``, ``accuracy`` (with its 95% interval), ``n`` images, ``checks``
    and ``weights``, the precision that was measured.
    """

    name: str
    parameters: int
    about: str
    data: str
    training: str
    measured: tuple[dict[str, Any], ...]
    folder: str

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        return asdict(self)


def models() -> list[Model]:
    """All models, by name."""
    return [_model(HOME / name) for name in names()]


def _model(home: Path) -> Model:
    card = json.loads((home / _CONFIG).read_text(encoding="utf-8")).get("card", {})
    about, data, training = (str(card.get(key, "?")) for key in ("About", "Data", "Training"))
    measured = tuple(card.get("measured", ()))
    return Model(home.name, _parameters(home / _WEIGHTS), about, data, training, measured, str(home))


def _parameters(weights: Path) -> int:
    """How many parameters a safetensors file holds, from its head: BatchNorm's statistics are none."""
    with weights.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    held = {name: tensor["shape"] for name, tensor in head.items() if name != "__metadata__"}
    return sum(math.prod(shape) for name, shape in held.items() if not name.endswith(_STATISTICS))
