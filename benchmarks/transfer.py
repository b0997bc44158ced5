"""Attacked images of one model, given to others: does what misleads a CNN mislead an IDC, and the other way round?

    python benchmarks/transfer.py --data CIFAR [--models MODEL ...] [--limit 1000] [--eps 8/255] [--steps 50]

PGD along the margin of each model, an IDC's by the smooth surrogate of its one step; a cross-entropy, whose softmax is
flat on an IDC's inner products, would raise all other classes alike. The last iterate counts, also where an earlier one
misled the model already. Every model is asked about the images of every other one, about images moved at random within
the same ball, and about clean ones. Test images; nothing is chosen by them. Writes benchmarks/results/transfer.json.
"""

import argparse
from collections.abc import Callable

import torch
from common import CIFAR, write
from robust_pages import LATEST, SHIPPED, THIN_MUON
from torch import Tensor

from idc.attacks.gradient import GradientAttack
from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.commands.opening import open_both
from idc.commands.request import Request
from idc.compute.memory import keep_freed_memory
from idc.errors import IDCError
from idc.evaluation.verdict import wilson
from idc.noise import Streams
from idc.storage.fields import recorded
from idc.text import fraction

BATCH = 128
Parts = list[tuple[Tensor, Tensor, Tensor]]  # images (B, C, H, W) in [0, 1], classes (B,), ids (B,)


def attacked(target: Target, parts: Parts, eps: float, steps: int) -> list[Tensor]:
    """The images that PGD makes for a model, part by part."""
    attack = GradientAttack(threat=Threat("linf", eps), objective=Margin(), surrogate=target.first, steps=steps)
    return [attack(target, x, classes, Streams(ids, 0)) for x, classes, ids in parts]


def moved(parts: Parts, eps: float) -> list[Tensor]:
    """Images anywhere in the ball."""
    drawn = torch.Generator().manual_seed(0)
    return [(x + eps * (2 * torch.rand(x.shape, generator=drawn) - 1)).clamp(0, 1) for x, *_ in parts]


def right(target: Target, images: list[Tensor], parts: Parts) -> Tensor:
    """Whether a model's answers are (N,)."""
    found = [
        target.logits(ANSWER, x, Streams(ids, 1))[0].argmax(1) == classes
        for x, (_, classes, ids) in zip(images, parts, strict=True)
    ]
    return torch.cat(found)


def measure(models: list[str], data: str, eps: float, limit: int, steps: int) -> dict:
    """By source of the images and by the model that is asked about them, the share that is right."""
    opened = {name: open_both(Request(model=name, data=data, limit=limit), torch.device("cpu")) for name in models}
    if len({(held.fingerprint, tuple(held.class_names)) for _, held in opened.values()}) > 1:
        raise IDCError("models that see other images or classes", "the same for all", "choose others by --models")
    targets = {name: Target.of(model) for name, (model, _) in opened.items()}
    held = next(iter(opened.values()))[1]
    x = held.images.float().div(255)
    parts: Parts = list(zip(*(whole.split(BATCH) for whole in (x, held.labels, held.ids)), strict=True))
    makers: dict[str, Callable[[], list[Tensor]]] = {
        "clean": lambda: [x for x, *_ in parts],
        "random": lambda: moved(parts, eps),
    } | {name: lambda own=own: attacked(own, parts, eps, steps) for name, own in targets.items()}  # fmt: skip
    rows = []
    for source, make in makers.items():
        images = make()
        asked = {name: right(target, images, parts).float() for name, target in targets.items()}
        rows.append({"source": source} | {n: recorded(wilson(r.mean().item(), len(r))) for n, r in asked.items()})
        print(source, {name: f"{r.mean().item():.1%}" for name, r in asked.items()}, flush=True)
    return {"images": sum(len(x) for x, *_ in parts), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-name", default=CIFAR)
    parser.add_argument("--models", nargs="+", default=[SHIPPED, LATEST, "models/cifar10-thin-pgd-at", THIN_MUON])
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    found = measure(given.models, given.data, fraction(given.eps), given.limit, given.steps)
    about = {"data": given.data_name, "split": "test", "eps": given.eps, "steps": given.steps}
    models, ball = " ".join(given.models), f"--eps {given.eps} --steps {given.steps}"
    command = f"python benchmarks/transfer.py --data CIFAR --models {models} --limit {given.limit} {ball}"
    print(write("transfer", command, about | found))


if __name__ == "__main__":
    keep_freed_memory()
    main()
