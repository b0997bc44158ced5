"""What ``idc predict`` does: image files classified by a saved model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from idc import data as datasets
from idc.errors import IDCError
from idc.method.classifier import IDC


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
    refuse: Callable[[IDCError], object] | None = None,
) -> list[dict[str, Any]]:
    """Classify image files.

    Args:
        refuse: is told of each file that cannot be read, which is then left out; without it the first one is raised.

    Returns:
        For each other file: ``image``, ``class``, ``agreement`` in [0, 1], ``draws``, and ``top``, the nearest classes
        with their ``distance`` on [0, 1] and ``confidence``.

    Raises:
        IDCError: for a model or file that cannot be used.
    """
    classifier = IDC.from_pretrained(model, device=default_device()).with_precision(precision)
    read: dict[int, torch.Tensor] = {}
    for index, file in enumerate(files):
        try:
            read[index] = datasets.read_images([file], shape=classifier.input_shape)
        except IDCError as error:
            if refuse is None:
                raise
            refuse(error)
    if not read:
        return []
    images = torch.cat(list(read.values()))
    answering = classifier.one_step if one_step else classifier
    found = answering.predict(images, draws=draws, seed=seed)
    order = found.distances.argsort(dim=1)[:, :top]
    rows = []
    for index, file in enumerate(files[place] for place in read):
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
