"""What a clean evaluation says of the model's own answers: accuracy, confusion, calibration, the worst mistakes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idc.evaluation.verdict import wilson
from idc.storage.fields import recorded
from idc.storage.tensor_file import save_tensors

PICTURES = "mistakes.safetensors"  # of the images in ``mistakes``, in their order
_BINS, _MISTAKES = 10, 24


def describe_answers(
    answers: Tensor, probabilities: Tensor, classes: Tensor, ids: Tensor, *, answer: str, calibrated: bool
) -> dict[str, Any]:
    """JSON-ready figures of one answer an image.

    Args:
        answers: (N,) int64, below 0 where there is none.
        probabilities: (N, K).
        classes, ids: (N,), true classes and identities.
        answer: what was asked, in words.
        calibrated: whether the probabilities were fitted on images of validation.

    Returns:
        ``answer``; ``accuracy``, a share; ``confusion``, rows true classes, columns answers, the last one of none;
        ``calibration``, see ``reliability``; ``mistakes``, the wrong answers of most confidence, with ``id``,
        ``class``, ``answer`` and ``confidence``.
    """
    count = probabilities.shape[1]
    confidence = probabilities.gather(1, answers.clamp(min=0)[:, None])[:, 0].nan_to_num(0.0)
    right = answers == classes
    places = classes * (count + 1) + answers.masked_fill(answers < 0, count)
    confusion = torch.bincount(places, minlength=count * (count + 1)).view(count, count + 1)
    wrong = (~right & (answers >= 0)).nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)][:_MISTAKES]
    return {
        "answer": answer,
        "accuracy": recorded(wilson(float(right.double().mean()), len(right))),
        "confusion": confusion.tolist(),
        "calibration": {"calibrated": calibrated} | reliability(confidence, right),
        "mistakes": [
            {"id": i, "class": c, "answer": a, "confidence": p}
            for i, c, a, p in zip(*(t[worst].tolist() for t in (ids, classes, answers, confidence)), strict=True)
        ],
    }


def reliability(confidence: Tensor, right: Tensor) -> dict[str, Any]:
    """The expected calibration error, ``ece``: the mean over images of |accuracy - mean confidence| of their bin, of
    ten equally wide (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017); the ``bins`` that hold images.

    Args:
        confidence: (N,) of the answers, in [0, 1].
        right: (N,) bool.
    """
    where, bins, error = (confidence * _BINS).long().clamp(max=_BINS - 1), [], 0.0
    for index in range(_BINS):
        own = where == index
        if n := int(own.sum()):
            sure, share = float(confidence[own].double().mean()), float(right[own].double().mean())
            error += n / len(right) * abs(share - sure)
            bins.append({"low": index / _BINS, "n": n, "confidence": sure, "accuracy": share})
    return {"ece": error, "bins": bins}


def write_mistakes(found: dict[str, Any], images: Tensor, ids: Tensor, out: Path) -> None:
    """Write the pictures of the ``mistakes`` of ``describe_answers`` into ``out``; images (N, C, H, W) of ``ids``."""
    place = {image: row for row, image in enumerate(ids.tolist())}
    rows = [place[one["id"]] for one in found["mistakes"]]
    kept = images[rows]
    save_tensors(out / PICTURES, {"images": kept.float() / 255 if kept.dtype == torch.uint8 else kept.float()})
