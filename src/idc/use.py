"""What the command line's short verbs do: classify files, open a model or preset."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from idc import data as datasets
from idc import zoo
from idc.classifier import IDC
from idc.profiling import preset_model
from idc.unet import PRESETS, resolve_spec
from idc.yaml_file import YAML_SUFFIXES


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def predict_files(
    model: str,
    files: Sequence[Path],
    *,
    draws: int = 10,
    top: int = 1,
    seed: int = 0,
    one_step: bool = False,
    precision: str = "fp32",
) -> list[dict[str, Any]]:
    """Classify image files.

    Returns:
        For each file: ``image``, ``class``, ``agreement`` in [0, 1], ``draws``, and ``top``, the nearest classes with
        their ``distance`` on [0, 1] and ``confidence``.

    Raises:
        IDCError: for a model or file that cannot be used.
    """
    classifier = IDC.from_pretrained(model, device=default_device()).with_precision(precision)
    images = datasets.read_images(files, shape=classifier.input_shape)
    visits = classifier.one_step_visits if one_step else None
    found = classifier.predict(images, draws=draws, visits=visits, seed=seed)
    order = found.distances.argsort(dim=1)[:, :top]
    rows = []
    for index, file in enumerate(files):
        nearest = [
            {
                "class": classifier.class_names[k],
                "distance": found.distances[index, k].item(),
                "confidence": found.confidence[index, k].item(),
            }
            for k in order[index].tolist()
        ]
        agreement = found.agreement[index].item()
        rows.append(
            {"image": str(file), "class": found.names[index], "agreement": agreement, "draws": draws, "top": nearest}
        )
    return rows


def open_model_or_preset(
    name: str, *, num_classes: int | None = None, image_size: int | None = None, channels: int | None = None
) -> IDC:
    """A saved model; or a preset, or a network's YAML file, with fresh weights for data of the given shape.

    Raises:
        IDCError: for a name of none of them.
    """
    if name not in PRESETS and not name.endswith(YAML_SUFFIXES):
        meant = "/" not in name and get_close_matches(name, PRESETS, n=1, cutoff=0.8)
        if meant and not zoo.folder(name) and not Path(name).exists():
            resolve_spec(name)  # misspelt: the error lists what there is
        return IDC.from_pretrained(name)
    return preset_model(name, num_classes=num_classes, image_size=image_size, channels=channels)
