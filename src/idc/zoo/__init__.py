"""What is known of the models that come with the package, a folder each beside this file."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idc.storage.locate import HOME, packaged_names
from idc.storage.model_folder import CONFIG, WEIGHTS, shapes

_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")  # of BatchNorm: no parameters


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


def models() -> list[Model]:
    """All models, by name."""
    return [_model(HOME / name) for name in packaged_names()]


def _model(home: Path) -> Model:
    card = json.loads((home / CONFIG).read_text(encoding="utf-8")).get("card", {})
    about, data, training = (str(card.get(key, "?")) for key in ("About", "Data", "Training"))
    held = shapes(home / WEIGHTS).items()
    parameters = sum(math.prod(shape) for name, shape in held if not name.endswith(_STATISTICS))
    return Model(home.name, parameters, about, data, training, tuple(card.get("measured", ())), str(home))
