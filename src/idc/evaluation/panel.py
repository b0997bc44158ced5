"""Pictures of the first images: clean, adversarial, what the model translates them into, the label it then answers."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from idc.attacks.target import ANSWER, Target
from idc.evaluation.runner import Runner
from idc.noise import Streams, derive_seed
from idc.storage.files import whole_file, write_json
from idc.types import Classifier


def write_panel(runner: Runner, out: Path) -> None:
    """Write ``out/panel.safetensors`` and ``panel.json`` for the images in ``out/first.safetensors``, if it is there.

    A model with ``translate(images)`` and ``labels`` (as IDC has) shows its translations and nearest labels too.
    """
    if not (out / "first.safetensors").exists():
        return
    held = load_file(out / "first.safetensors")
    images, worst, ids = (held[k].to(runner.device) for k in ("images", "worst", "ids"))
    streams = Streams(ids, derive_seed(runner.seed, "panel"))
    target = Target.of(runner.classifier, chunk=runner.chunk)
    pictures: dict[str, Tensor] = {"clean": images, "adversarial": worst}
    answers = {}
    for kind, x in (("clean", images), ("adversarial", worst)):
        answers[kind] = target.logits(ANSWER, x, streams)[0].argmax(1)
        pictures |= {f"{kind}_{k}": v for k, v in _translations(runner.classifier, x, answers[kind], streams).items()}
    with whole_file(out / "panel.safetensors") as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in pictures.items()}, part)
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
    if not (hasattr(model, "translate") and isinstance(getattr(model, "labels", None), Tensor)):
        return {}
    with torch.no_grad(), streams.feeding(range(1)):
        return {"translation": model.translate(x), "nearest": model.labels[answers]}
