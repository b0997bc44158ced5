"""Pictures for a report: the first images clean and adversarial, what the model makes of them, its labels."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idc.attacks.target import ANSWER
from idc.evaluation.runner import Runner
from idc.noise import Streams, derive_seed
from idc.storage.files import write_json
from idc.storage.tensor_file import save_tensors
from idc.types import Classifier, answered

LABELS = 10  # of the model's labels that are kept


def write_panel(runner: Runner, out: Path) -> None:
    """Write ``out/panel.safetensors`` and ``panel.json`` for the images in ``out/first.safetensors``, if it is there.

    Pictures are (N, C, H, W) in [0, 1]: ``clean`` and ``adversarial``. Of a model with ``trajectory(images)`` and
    ``labels``, as IDC has, also its first ``labels``, and of both kinds of images ``KIND_steps`` (N, S, C, H, W), the
    x0_hat of each visited timestep, ``KIND_translation``, the last of them, and ``KIND_nearest``, the label answered.
    """
    if (held := runner.pictures()) is None:
        return
    images, worst, ids = held["images"], held["worst"], held["ids"]
    streams = Streams(ids, derive_seed(runner.seed, "panel"))
    target = runner.target()
    pictures: dict[str, Tensor] = {"clean": images, "adversarial": worst}
    model: Any = runner.classifier
    pictures |= {"labels": model.labels[:LABELS]} if _translates(model) else {}
    answers = {}
    for kind, x in (("clean", images), ("adversarial", worst)):
        answers[kind] = answered(target.logits(ANSWER, x, streams)[0])
        pictures |= {f"{kind}_{k}": v for k, v in _translations(runner.classifier, x, answers[kind], streams).items()}
    save_tensors(out / "panel.safetensors", pictures)
    true = runner.images(0)[1][: len(ids)].tolist()
    rows = [
        {"id": i, "class": c, "clean": a, "adversarial": b}
        for i, c, a, b in zip(
            ids.tolist(), true, answers["clean"].tolist(), answers["adversarial"].tolist(), strict=True
        )
    ]
    write_json(out / "panel.json", rows)


def _translations(classifier: Classifier, x: Tensor, answers: Tensor, streams: Streams) -> dict[str, Tensor]:
    model: Any = classifier
    if not _translates(model):
        return {}
    with torch.no_grad(), streams.feeding(range(1)):
        steps = torch.stack([((step.x0_hat + 1) / 2).clamp(0, 1) for step in model.trajectory(x)], dim=1)
    return {"steps": steps, "translation": steps[:, -1].clone(), "nearest": model.labels[answers]}


def _translates(model: Any) -> bool:
    return hasattr(model, "trajectory") and isinstance(getattr(model, "labels", None), Tensor)
