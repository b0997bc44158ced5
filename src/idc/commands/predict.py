"""What ``idc predict`` does: image files classified by a saved model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    draws: int | None = None,
    top: int = 1,
    seed: int = 0,
    one_step: bool = False,
    precision: str = "fp32",
    refuse: Callable[[IDCError], object] | None = None,
) -> list[dict[str, Any]]:
    """Classify image files.

    Args:
        files: each a file, a folder of images, or a pattern, see ``idc.data.images_at``.
        draws: of the noise, by default 10 if the answer draws any.
        refuse: is told of each file that cannot be read, which is then left out; without it the first one is raised.

    Returns:
        For each other file: ``image``, ``class``, ``draws`` and, if there are several, ``agreement``, the share of them
        in [0, 1] that gives this class by itself; ``top``, the nearest classes, with ``distance``, the mean absolute
        difference to the class's label over pixels on [0, 1] and over draws, and ``confidence``.

    Raises:
        IDCError: for a model or file that cannot be used, or several draws of an answer that draws no noise.
    """
    classifier = IDC.from_pretrained(model, device=default_device()).with_precision(precision)
    answering = classifier.one_step if one_step else classifier
    if not answering.stochastic and (draws or 1) > 1:
        raise IDCError(f"draws = {draws} of an answer without noise", "1: all would be the same", "leave --draws out")
    draws = draws or (10 if answering.stochastic else 1)
    read: list[tuple[Path, torch.Tensor]] = []
    for named in files:
        there: list[Path] = []
        with _told(refuse):
            there = datasets.images_at(named)
        for file in there:
            with _told(refuse):
                read.append((file, datasets.read_images([file], shape=classifier.input_shape)))
    if not read:
        return []
    images = torch.cat([image for _, image in read])
    found = answering.predict(images, draws=draws, seed=seed)
    order = found.distances.argsort(dim=1)[:, :top]
    rows = []
    for index, (file, _) in enumerate(read):
        nearest = [
            {
                "class": classifier.class_names[k],
                "distance": found.distances[index, k].item(),
                "confidence": found.confidence[index, k].item(),
            }
            for k in order[index].tolist()
        ]
        agreement = {"agreement": found.agreement[index].item()} if draws > 1 else {}
        rows.append({"image": str(file), "class": found.names[index], **agreement, "draws": draws, "top": nearest})
    return rows


@contextmanager
def _told(refuse: Callable[[IDCError], object] | None) -> Iterator[None]:
    """Inside, an error is told to ``refuse``, where there is one, and no more."""
    try:
        yield
    except IDCError as error:
        if refuse is None:
            raise
        refuse(error)
