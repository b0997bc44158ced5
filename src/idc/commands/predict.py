"""What ``idc predict`` does: image files classified by a saved model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from idc import data as datasets
from idc.errors import IDCError
from idc.method.classifier import IDC
from idc.method.prediction import DRAWS, Prediction
from idc.storage.files import write_text
from idc.text import csv_text


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


_FEW = 100  # images, by which a small share cannot be set
NONE = "none of these"  # the answer that is refused
Say = Callable[[str], object]


def predict_files(
    model: str,
    files: Sequence[Path],
    *,
    draws: int | None = None,
    top: int = 1,
    reject: float | None = None,
    seed: int = 0,
    one_step: bool = False,
    mirrored: bool = False,
    precision: str = "fp32",
    refuse: Callable[[IDCError], object] | None = None,
    say: Say = print,
) -> list[dict[str, Any]]:
    """Classify image files.

    Args:
        files: each a file, a folder of images, or a pattern, see ``idc.data.images_at``.
        draws: of the noise, by default 10 if the answer draws any.
        one_step, mirrored: see ``Request``.
        reject: answer ``NONE`` where the nearest label is farther away than of all but this share of the validation
            images that are answered rightly, see ``Prediction.rejected``.
        refuse: is told of each file that cannot be read, which is then left out; without it the first one is raised.
        say: is told what a user may want to know.

    Returns:
        For each other file: ``image``, ``class``, ``draws`` and, if there are several, ``agreement``, the share of them
        in [0, 1] that gives this class by itself; with ``reject``, ``rejected``; ``top``, the nearest classes, with
        ``distance``, the mean absolute difference to the class's label over pixels on [0, 1] and over draws, and, of a
        calibrated answer, ``confidence``, its probability.

    Raises:
        IDCError: for a model or file that cannot be used, several draws of an answer that draws no noise, or
            ``reject`` of an answer that is not calibrated.
    """
    classifier = IDC.from_pretrained(model, device=default_device()).with_precision(precision)
    visits = classifier.one_step_visits if one_step else None
    answering = classifier.with_answer(visits=visits, mirrored=mirrored)
    if not answering.stochastic and (draws or 1) > 1:
        raise IDCError(f"draws = {draws} of an answer without noise", "1: all would be the same", "leave --draws out")
    draws = draws or (DRAWS if answering.stochastic else 1)
    if mirrored and classifier.with_answer(visits=visits).calibration and not answering.calibration:
        say("no confidence: the model's was calibrated for its answer without --mirrored")
    if top > classifier.num_classes:
        say(f"the model has {classifier.num_classes} classes, all of which are shown (--top {top})")
    nothing = torch.empty(0, *classifier.input_shape)
    if reject is not None:
        asked = answering.predict(nothing, draws=draws)
        asked.rejected(reject)  # what cannot be is said before files are read
        if asked.calibration and (few := asked.calibration.images) < _FEW:
            say(f"the threshold of --reject rests on {few} validation images only: it may refuse far more, or fewer")
    read: list[tuple[Path, torch.Tensor]] = []
    for named in files:
        there: list[Path] = []
        with _told(refuse):
            there = datasets.images_at(named)
        for file in there:
            with _told(refuse):
                read.append((file, datasets.read_images([file], shape=classifier.input_shape)))
    images = torch.cat([image for _, image in read]) if read else nothing
    found = answering.predict(images, draws=draws, seed=seed)
    rejected = None if reject is None else found.rejected(reject).tolist()
    order = found.distances.argsort(dim=1)[:, :top].tolist()
    rows = []
    for index, (file, _) in enumerate(read):
        own: dict[str, Any] = {"image": str(file), "class": found.names[index]}
        if rejected is not None:
            own |= {"rejected": rejected[index]} | ({"class": NONE} if rejected[index] else {})
        own |= ({"agreement": found.agreement[index].item()} if draws > 1 else {}) | {"draws": draws}
        rows.append(own | {"top": [_near(found, index, k) for k in order[index]]})
    return rows


def _near(found: Prediction, index: int, k: int) -> dict[str, Any]:
    own = {"class": found.class_names[k], "distance": found.distances[index, k].item()}
    return own | ({"confidence": found.confidence[index, k].item()} if found.calibration else {})


def write_csv(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write what ``predict_files`` gives as CSV, a line an image: the columns of the further classes of ``top`` have
    their number, as ``class_2``; where images may be rejected, ``nearest`` is the class of the nearest label.

    Raises:
        IDCError: if the file cannot be written.
    """
    flat = []
    for row in rows:
        first, *others = row["top"]
        own = {name: value for name, value in row.items() if name != "top"}
        own |= ({"nearest": first["class"]} if "rejected" in row else {}) | {k: first[k] for k in first if k != "class"}
        flat.append(own | {f"{k}_{rank}": v for rank, one in enumerate(others, 2) for k, v in one.items()})
    ordered = ("image", "class", "rejected", "nearest", "confidence", "distance", "agreement", "draws")
    held = flat[0] if flat else dict.fromkeys(ordered[:2])
    columns = [*(name for name in ordered if name in held), *(name for name in held if name not in ordered)]
    write_text(file, csv_text([columns, *([row[name] for name in columns] for row in flat)]))


@contextmanager
def _told(refuse: Callable[[IDCError], object] | None) -> Iterator[None]:
    """Inside, an error is told to ``refuse``, where there is one, and no more."""
    try:
        yield
    except IDCError as error:
        if refuse is None:
            raise
        refuse(error)
