"""Does the distance to the nearest label know what a model has not seen? Beside it: confidence, and a CNN's softmax.

    python benchmarks/doubt.py --data CIFAR --photos FOLDER [--limit 256] [--attacked 96] [--models MODEL ...]

Each model (an IDC answers in one step) gives every image a doubt: an IDC its distance to the nearest label, every model
one minus the largest probability. Asked are test images, and what is none of the classes or attacked: uniform noise,
scikit-learn's digits, a folder of photos (--photos), PGD on the class, and an adaptive attack that also pulls the doubt
down: it raises what the doubt is made of for a wrong class. Both follow the model itself and, for an IDC, its inner
product with the labels, and keep the better point. The threshold of each doubt refuses 5% of the rightly answered
validation images. Writes benchmarks/results/doubt.json.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import CIFAR, ROOT, write
from sklearn.metrics import roc_auc_score
from torch import Tensor

from idc import IDC, data
from idc.attacks.gradient import GradientAttack
from idc.attacks.objective import CrossEntropy, best_other
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.commands.opening import open_model
from idc.compute.memory import keep_freed_memory
from idc.method.calibration import temperature
from idc.noise import Streams
from idc.text import eps_text

MODELS = ("idc-nano-cifar10", "idc-nano-cifar10-robust", "models/cifar10-thin-pgd-at")
DISTANCE, PROBABILITY = "distance to the nearest label", "largest probability"
SHARE, EPS, STEPS = 0.05, 8 / 255, 20
INNER, ATTACKS = "one-step-inner", ("PGD", "adaptive")
Doubts = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Near:
    """Adaptive: what the doubt is made of, for the best wrong class: logits of an IDC, minus distances over a
    temperature; log probabilities of a CNN. Raised, it both changes the answer and lowers the doubt."""

    probabilities: bool

    def __call__(self, logits: Tensor, classes: Tensor, targets: Tensor | None = None) -> Tensor:
        return best_other(torch.log_softmax(logits, 1) if self.probabilities else logits, classes)


def area_of_risk(doubt: Tensor, wrong: Tensor) -> float:
    """The area under risk over coverage: the mean, over k, of the share of errors among the k images of least doubt."""
    errors = wrong[doubt.argsort(stable=True)].double()
    return float((errors.cumsum(0) / torch.arange(1, len(errors) + 1)).mean())


def asked(model: Any, images: Tensor, heat: float) -> tuple[Tensor, Doubts]:
    """Answers (B,), and the doubts (B,) by name; ``heat``: temperature of an IDC's probabilities."""
    with torch.no_grad():
        if isinstance(model, IDC):
            distances = torch.cat([model.distances(part) for part in images.split(128)])
            best = torch.softmax(-distances / heat, 1).amax(1)
            return distances.argmin(1), {DISTANCE: distances.amin(1), PROBABILITY: 1 - best}
        best, answers = torch.softmax(torch.cat([model(part) for part in images.split(128)]), 1).max(1)
        return answers, {PROBABILITY: 1 - best}


def attacked(model: Any, images: Tensor, classes: Tensor, objective: Any, score: str, heat: float) -> Tensor:
    """Of the points found along each function of the model, the one that is wrong, and then of least doubt."""
    functions, kept = [ANSWER, *([INNER] if isinstance(model, IDC) else [])], images.clone()
    best = torch.full((len(images),), float("inf"))
    for function in functions:
        attack = GradientAttack(threat=Threat("linf", EPS), objective=objective, surrogate=function, steps=STEPS)
        found = attack(Target.of(model, chunk=128), images, classes, Streams(torch.arange(len(images)), 0))
        answers, doubts = asked(model, found, heat)
        rank = doubts[score] + 10.0 * (answers == classes)
        kept = torch.where((rank < best).view(-1, 1, 1, 1), found, kept)
        best = torch.minimum(rank, best)
    return kept


def rows_of(name: str, model: Any, images: dict[str, Any], few: int) -> list[dict[str, Any]]:
    """Everything that is measured of a model; ``few`` of the test images are attacked."""
    validation, classes, heat = images["validation"], images["test"].labels, 1.0
    held, x = (images[split].images.float() / 255 for split in ("validation", "test"))
    if isinstance(model, IDC):
        with torch.no_grad():
            distances = torch.cat([model.distances(part) for part in held.split(128)])
        heat = temperature(distances, validation.labels)
    strange = {kind: images[kind] for kind in ("noise", "digits", "photos")}
    (known, clean), (right, doubts) = asked(model, x, heat), asked(model, held, heat)
    wrong, first = known != classes, next(iter(clean))
    strange["PGD"] = attacked(model, x[:few], classes[:few], CrossEntropy(), first, heat)
    rows = []
    for score, own in clean.items():
        print(f"{name}: adaptive against {score}", flush=True)
        near = Near(probabilities=score == PROBABILITY)
        shown = strange | {"adaptive": attacked(model, x[:few], classes[:few], near, score, heat)}
        limit = float(doubts[score][right == validation.labels].quantile(1 - SHARE))
        about = {"model": name, "score": score}
        refused = float((own > limit).float().mean())
        accuracy = float((~wrong).float().mean())
        rows.append(about | {"set": "test", "n": len(x), "accuracy": accuracy, "refused": refused,
                             "area": area_of_risk(own, wrong)})  # fmt: skip
        for kind, points in shown.items():
            answers, far = asked(model, points, heat)
            errors = answers != classes[:few] if kind in ATTACKS else torch.ones(len(points), dtype=torch.bool)
            rows.append(about | measured(own, far[score], wrong, errors, limit) | {"set": kind, "n": len(points)})
    return rows


def measured(known: Tensor, far: Tensor, wrong: Tensor, errors: Tensor, limit: float) -> dict[str, float]:
    """Of doubts of test images and of others, and which answers are wrong: how well they are told apart."""
    told, both = torch.cat([torch.zeros(len(known)), torch.ones(len(far))]), torch.cat([known, far])
    return {
        "auroc": float(roc_auc_score(told.numpy(), both.numpy())),
        "refused": float((far > limit).float().mean()),
        "wrong_accepted": float((errors & (far <= limit)).float().mean()),
        "area": area_of_risk(both, torch.cat([wrong, errors])),
    }


def load(source: str, photos: str, limit: int, shape: tuple[int, int, int]) -> dict[str, Any]:
    """All images, at ``shape``."""
    size = {"image_size": shape[1], "channels": shape[0]}

    def plain(name: str, split: Any) -> Tensor:
        return data.load(name, split=split, limit=limit, **size).images.float() / 255

    noise = np.random.default_rng(0).random((limit, *shape), dtype=np.float32)
    return {
        "validation": data.load(source, split="validation", limit=2 * limit, **size),
        "test": data.load(source, split="test", limit=limit, **size),
        "noise": torch.from_numpy(noise), "digits": plain("digits", "test"), "photos": plain(photos, "all"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--photos", required=True, help="a folder of class folders, none of the data's classes")
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--attacked", type=int, default=96, help="so many of the test images")
    parser.add_argument("--models", nargs="+", default=MODELS)
    given = parser.parse_args()
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for name in given.models:
        own = ROOT / name
        model = open_model(str(own) if own.is_dir() else name)
        model = model.one_step if isinstance(model, IDC) else model
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        rows += rows_of(name, model, load(given.data, given.photos, given.limit, model.input_shape), given.attacked)
        settings = {"limit": given.limit, "eps": EPS, "eps_text": eps_text(EPS), "steps": STEPS, "share": SHARE}
        write("doubt", "python benchmarks/doubt.py --data CIFAR --photos FOLDER",
              {"settings": settings | {"data": CIFAR}, "rows": rows})  # fmt: skip


if __name__ == "__main__":
    keep_freed_memory()
    main()
