"""``idc.evaluate``: a module and images in, an outcome out that prints and shows itself."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from idc.commands.evaluate import evaluate_on, processes
from idc.commands.opening import in_its_order
from idc.commands.request import Request
from idc.compute.modes import evaluation_mode
from idc.data.image_set import ImageSet, digest
from idc.errors import IDCError
from idc.evaluation.adapter import as_classifier, declared_shape, told_mode
from idc.evaluation.protocol import Protocol
from idc.report.rows import KINDS, points
from idc.report.statement import statement
from idc.text import share

_SETTINGS = {
    "norm", "eps", "draws", "steps", "eot", "restarts", "surrogate", "loss", "limit", "seed", "block",
    "batch_size", "keep", "attacks", "data_name",
}  # fmt: skip


class NoFigureError(IDCError, AttributeError):
    """A figure that the protocol does not give: to ``hasattr`` and whoever lists its values it is not there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation found. Printed, it is a few sentences; in a notebook, a table below them.

    Args:
        summary: as ``idc evaluate`` writes it to summary.json.
    """

    summary: dict[str, Any]

    @property
    def clean(self) -> float:
        """Mean share of right draws of the images as they are."""
        return float(self.summary["clean"]["mean"]["mean"])

    @property
    def robust(self) -> float:
        """The same on each image's worst adversarial example.

        Raises:
            NoFigureError: if no attack was made.
        """
        if not self.summary["attacks"]:
            given = f"robust accuracy of the protocol {self.summary['protocol']}, which attacks nothing"
            raise NoFigureError(given, "that of a protocol with attacks", 'evaluate with protocol="adaptive"')
        return float(self.summary["robust"]["mean"]["mean"])

    @property
    def reliable(self) -> bool:
        """Whether every sanity check passed."""
        return bool(self.summary["reliable"])

    def rows(self) -> list[tuple[str, ...]]:
        """Points and their mean, majority and worst-of-n accuracy, as text."""
        return [(found.name, *(share(found.verdict[kind]) for kind in KINDS)) for found in points(self.summary)]

    def __str__(self) -> str:
        failed = [check for check in self.summary["sanity"] if not check["passed"]]
        remedies = [f"{check['name']}: {check['remedy']}" for check in failed]
        return "\n".join([statement(self.summary), *remedies])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("", *KINDS.values()))
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows())
        said = escape(str(self)).replace("\n", "<br>")
        return f"<p>{said}</p><table><tr>{head}</tr>{rows}</table>"


def evaluate(
    model: nn.Module,
    images: ImageSet | Tensor | np.ndarray,
    labels: Tensor | np.ndarray | Sequence[int] | None = None,
    *,
    protocol: str | Protocol = "adaptive",
    class_names: Sequence[str] | None = None,
    out: str | Path | None = None,
    say: Callable[[str], object] = lambda text: None,
    **settings: Any,
) -> Outcome:
    """Evaluate a module on images, as ``idc evaluate`` does.

    Args:
        model: images (B, C, H, W) in [0, 1] -> logits (B, K); see docs/judging.md for what else it may say. It is
            moved to the device of the evaluation, and in evaluation mode while that lasts.
        images: what ``idc.data.load`` gives, which brings its labels, the names of its classes and its split; classes
            are then put into the order of the model's ``class_names``. Or (N, C, H, W), uint8 or float in [0, 1],
            H = W, a tensor or an array.
        labels: of a tensor or an array: (N,) of integers in [0, K).
        protocol: a name, or one of your own.
        class_names: of a tensor or an array: K names; by default the model's own, or numbers.
        out: a folder that keeps the result, for ``idc report``, and from which an interrupted evaluation goes on.
        say: is told what a user may want to know.
        settings: fields of ``Request`` that say how images are attacked and judged: ``eps=8 / 255``,
            ``norm``, ``draws``, ``limit``, ``seed`` and others.

    Raises:
        IDCError: if model, images and settings do not fit.
    """
    if not isinstance(model, nn.Module):
        remedy = "call the function that makes it" if callable(model) else "open it, as IDC.from_pretrained does"
        raise IDCError(f"a model of type {type(model).__name__}", "an nn.Module", remedy)
    _, device = processes()
    named = tuple(map(str, () if class_names is None else class_names))
    loaded = isinstance(images, ImageSet)
    if loaded and (labels is not None or named):
        raise IDCError("labels or class_names beside a data set", "those that it has", "leave them out")
    data = images if isinstance(images, ImageSet) else _image_set(model, images, labels, named)
    if not len(data):
        raise IDCError("0 images", "1 or more", "give some")
    name = type(model).__name__
    if unknown := sorted(set(settings) - _SETTINGS):
        expected = f"one of {', '.join(sorted(_SETTINGS))}"
        raise IDCError(f"setting {unknown[0]!r}", expected, "correct the name, or use idc evaluate")
    own = protocol if isinstance(protocol, Protocol) else None
    split: dict[str, Any] = {"split": data.split} if loaded else {}
    request = Request(model=name, data=data.source, **split, protocol=own.name if own else str(protocol), **settings)
    if request.limit and request.limit < len(data):
        about, *noted = data.summary.split("\n")
        summary = "\n".join([f"{about}; {request.limit:,} of these", *noted])
        data = replace(data.take(request.limit), summary=summary)
    declared = declared_shape(model, name)
    if declared and declared != data.shape:
        given, expected = ("x".join(map(str, shape)) for shape in (data.shape, declared))
        remedy = f"scale them: data.load(..., image_size={declared[1]}, channels={declared[0]})"
        raise IDCError(f"images of {given}", f"{expected}, the input_shape of {name}", remedy)
    if mode := told_mode(model, name):
        say(f"note: {mode}")
    kept = TemporaryDirectory() if out is None else nullcontext(str(out))
    with evaluation_mode(model), kept as folder:
        classifier = as_classifier(model.to(device), input_shape=data.shape, name=name)
        if loaded:
            data = in_its_order(classifier, data, name)
        elif classifier.num_classes < data.num_classes:
            raise IDCError(
                f"labels up to {int(data.labels.max())}", f"below the model's {classifier.num_classes}", "renumber"
            )
        elif classifier.num_classes > data.num_classes and not named:  # the last classes have no image here
            data = replace(data, class_names=tuple(map(str, range(classifier.num_classes))))
        return Outcome(evaluate_on(classifier, data, request, Path(folder), protocol=own, say=say))


def _image_set(
    model: nn.Module,
    images: Tensor | np.ndarray,
    labels: Tensor | np.ndarray | Sequence[int] | None,
    given: tuple[str, ...],
) -> ImageSet:
    """Images and labels as a data set.

    Raises:
        IDCError: if they are none.
    """
    images = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    labels = torch.as_tensor(labels) if isinstance(labels, np.ndarray | Sequence) else labels
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[2] != images.shape[3] or not len(images):
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise IDCError(f"images {shape}", "a tensor or array (N, C, H, W) of squares, N of 1 or more", "correct it")
    low, high = (float(v) for v in torch.aminmax(images))
    if images.dtype != torch.uint8 and not (images.is_floating_point() and low >= 0 and high <= 1):
        expected = "uint8, or floating point in [0, 1]"
        raise IDCError(
            f"images of {images.dtype} in [{low:g}, {high:g}]", expected, "scale them, without normalisation"
        )
    fit = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.shape == images.shape[:1]
    if not isinstance(labels, Tensor) or not fit or int(labels.min()) < 0:
        found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        found += f" from {int(labels.min())}" if fit and isinstance(labels, Tensor) else ""
        expected = f"{len(images)} integers of 0 or more"
        raise IDCError(f"labels {found}", expected, "give each image the number of its class")
    own = tuple(map(str, getattr(model, "class_names", None) or ()))
    if given and own and given != own:
        expected = f"{', '.join(own[:4])}, ...: those of the model, in the order of its logits"
        raise IDCError(f"class_names {', '.join(given[:4])}, ...", expected, "leave them out, and number the labels so")
    names = given or own
    count = max(int(labels.max()) + 1, int(getattr(model, "num_classes", None) or 0))
    if names and len(names) < count:
        raise IDCError(f"{len(names)} class names", f"{count}, one a class", "correct class_names")
    names = names or tuple(map(str, range(count)))
    pixels = images.detach().cpu() if images.dtype == torch.uint8 else images.detach().cpu().float()
    classes, ids = labels.detach().cpu().long(), torch.arange(len(images))
    data = ImageSet(pixels, classes, ids, names, "tensors", "as given", digest(names, pixels, classes, ids))
    return replace(data, summary=f"{len(data):,} images in memory, {len(names)} classes")
