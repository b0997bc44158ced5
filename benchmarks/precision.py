"""What bf16 and compiling do to an attack: how long it takes, and whether it finds the same.

    python benchmarks/precision.py --data CIFAR [--models MODEL ...] [--limit 256] [--eps 1/255]

APGD along the cross-entropy, then towards likely classes, on validation images: on the network in float32, in bf16, and
in bf16 compiled, one thread. What each attack finds is judged by the float32 network as well as by its own. The three
are timed in turn, a call and a gradient of a batch, and ratios are medians over the rounds.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from common import CIFAR, write

from idc.attacks.best import Best
from idc.attacks.gradient import apgd
from idc.attacks.objective import DLR
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.commands.opening import open_both
from idc.commands.request import Request
from idc.compute.memory import keep_freed_memory
from idc.evaluation.verdict import wilson
from idc.noise import Streams
from idc.storage.fields import recorded
from idc.text import fraction
from idc.types import Classifier

WAYS = {"fp32": {}, "bf16": {"precision": "bf16"}, "bf16, compiled": {"precision": "bf16", "compile": True}}
BATCH, ROUNDS = 128, 5


def attack(
    model: Classifier, images: torch.Tensor, classes: torch.Tensor, ids: torch.Tensor, eps: float
) -> torch.Tensor:
    """The stronger of two attacks' adversarial examples for each image."""
    long = apgd(Threat("linf", eps), steps=50)
    target, streams = Target.of(model), Streams(ids, 0)
    best = Best(target, images, classes, streams.of("best"), 1)
    for step in (long, replace(long, objective=DLR(), targets=3)):
        rows = best.remaining()
        found = step(target, images[rows], classes[rows], streams.of("attack", step.targets).take(rows))
        best.offer(found, rows, step.targets)
    return best.x


def right(model: Classifier, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    streams = Streams(torch.zeros(len(images), dtype=torch.int64), 0)  # no model here draws noise
    return Target.of(model).logits(ANSWER, images, streams)[0].argmax(1) == classes


def call(model: Classifier, images: torch.Tensor) -> None:
    with torch.no_grad():
        model(images)


def gradient(model: Classifier, images: torch.Tensor) -> None:
    x = images.clone().requires_grad_(True)
    torch.autograd.grad(model(x).sum(), x)


def alternate(
    models: dict[str, Classifier], work: Callable[[Classifier, torch.Tensor], None], images: torch.Tensor
) -> dict:
    """Median seconds of each, and of the ratio to the first, over rounds in which each is timed once."""
    taken: dict[str, list[float]] = {way: [] for way in models}
    for _ in range(ROUNDS + 1):  # the first warms up, and compiles
        for way, model in models.items():
            began = time.perf_counter()
            work(model, images)
            taken[way].append(time.perf_counter() - began)
    first = taken["fp32"][1:]
    return {
        way: {
            "seconds": median(own[1:]),
            "times_faster": median(a / b for a, b in zip(first, own[1:], strict=True)),
        }
        for way, own in taken.items()
    }


def measure(name: str, data: str, eps: float, limit: int) -> dict:
    """One model in every way."""
    asked = Request(model=name, data=data, split="validation", limit=limit, one_step=name.startswith("idc-"))
    opened = {way: open_both(replace(asked, **settings), torch.device("cpu")) for way, settings in WAYS.items()}
    models = {way: model for way, (model, _) in opened.items()}
    held = opened["fp32"][1]
    images, classes = held.images.float().div(255), held.labels
    found = {}
    for way, model in models.items():
        worst = attack(model, images, classes, held.ids, eps)
        stand = {kind: right(judge, worst, classes) for kind, judge in (("own", model), ("fp32", models["fp32"]))}
        found[way] = {
            "clean": recorded(wilson(right(model, images, classes).float().mean().item(), len(images))),
            "stand": {kind: recorded(wilson(s.float().mean().item(), len(images))) for kind, s in stand.items()},
        }
        print(f"{name}, {way}: {int(stand['own'].sum())} of {len(images)} stand, {int(stand['fp32'].sum())} in fp32")
    times = {kind: alternate(models, work, images[:BATCH]) for kind, work in (("call", call), ("gradient", gradient))}
    return {"model": name, "images": len(images), "ways": found, "times": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-name", default=CIFAR)
    parser.add_argument("--models", nargs="+", default=["pyautoattack-resnet18", "idc-nano-cifar10"])
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--eps", default="1/255")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, given.data, fraction(given.eps), given.limit) for name in given.models]
    about = {"data": given.data_name, "split": "validation", "eps": given.eps, "batch": BATCH, "rounds": ROUNDS}
    models = " ".join(given.models)
    command = f"python benchmarks/precision.py --data CIFAR --models {models} --limit {given.limit} --eps {given.eps}"
    print(write("precision", command, {"settings": about, "rows": rows}))


if __name__ == "__main__":
    keep_freed_memory()
    main()
