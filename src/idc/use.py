"""What the command line's short verbs do: classify files, measure a model on a split, open a model or preset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from idc import data as datasets
from idc.classifier import IDC
from idc.errors import IDCError
from idc.evaluation.verdict import wilson
from idc.files import make_folder, write_json
from idc.profiling import preset_model
from idc.training.validation import clean_accuracy
from idc.unet import PRESETS


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def predict_files(
    model: str, files: Sequence[Path], *, draws: int = 10, top: int = 1, seed: int = 0, one_step: bool = False
) -> list[dict[str, Any]]:
    """Classify image files.

    Returns:
        For each file: ``image``, ``class``, ``agreement`` in [0, 1], ``draws``, and ``top``, the nearest classes with
        their ``distance`` on [0, 1] and ``confidence``.

    Raises:
        IDCError: for a model or file that cannot be used.
    """
    classifier = IDC.from_pretrained(model, device=default_device())
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


def evaluate_clean(
    model: str,
    data: str,
    out: Path,
    *,
    split: str = "test",
    draws: int = 10,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Clean accuracy of a saved model on a split, written to ``out/summary.json``.

    Raises:
        IDCError: if model and data do not fit, or ``out`` cannot be written.
    """
    if split not in ("train", "validation", "test"):
        raise IDCError(f"split {split!r}", "train, validation or test", "correct --split")
    classifier = IDC.from_pretrained(model, device=default_device())
    channels, size, _ = classifier.input_shape
    images = datasets.load(
        data, split=cast(datasets.Split, split), image_size=size, channels=channels, limit=limit, skip_bad=skip_bad
    )
    if images.class_names != classifier.class_names:
        given, own = ", ".join(images.class_names[:4]), ", ".join(classifier.class_names[:4])
        raise IDCError(
            f"data with the classes {given}, ...", f"the model's: {own}, ...", "evaluate on data of the same classes"
        )
    make_folder(out)
    found, _ = clean_accuracy(classifier, images, draws=draws, seed=seed)
    accuracy = {"one-step": found.one_step, f"multi-step, mean of {draws} draws": found.multi_step}
    summary = {
        "accuracy": {name: wilson(value, found.images).to_dict() for name, value in accuracy.items()},
        "settings": {
            "model": model,
            "data": data,
            "split": split,
            "images": found.images,
            "draws": draws,
            "seed": seed,
            "visits": list(classifier.config.visits),
            "eta": classifier.config.bridge.eta,
            "fingerprint": images.fingerprint,
            "torch": torch.__version__,
        },
    }
    write_json(out / "summary.json", summary)
    return summary


def open_model_or_preset(
    name: str, *, num_classes: int | None = None, image_size: int | None = None, channels: int | None = None
) -> IDC:
    """A saved model, or a preset with fresh weights for data of the given shape."""
    if name not in PRESETS:
        return IDC.from_pretrained(name)
    size = image_size or (64 if name == "bbdm" else 32)
    return preset_model(name, num_classes=num_classes, shape=(channels or (1 if name == "digits" else 3), size, size))
