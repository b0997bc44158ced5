"""Defences that hide their weakness, and honest models, under ``adaptive``: is one believed that should not be?

    python benchmarks/masks.py [NAME ...]

Around one small network for 8x8 digits that falls to any attack (and an adversarially trained one), each mask hides
that in its own way. Its true accuracy is what is left when the network inside is attacked and the whole is judged, a
new copy each time. It passes, which is bad, if the evaluation reports more than five points above that and every check
passes. Figures go to benchmarks/results/masks.json.
"""

import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mask_circumstances
import mask_kinds
import torch
from common import RESULTS, read, write
from mask_circumstances import Batched
from mask_kinds import EPS, Mask, Smoothed
from mask_networks import Attention, convolutions, perceptron, pixels, trained
from torch import Tensor, nn

from idc.attacks.gradient import apgd
from idc.attacks.objective import CrossEntropy, Margin
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.commands import evaluate as command
from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.data.image_set import interleaved
from idc.evaluation.protocol import PROTOCOLS, Protocol
from idc.evaluation.sanity.library import autoattack_finds_no_more
from idc.noise import Streams

IMAGES, POINTS = 32, 0.05
DRAWS, STEPS, QUERIES = 10, 20, 1000
FEW, FEW_EPS = 16, 0.1  # images of models that answer slowly

MASKS = mask_kinds.MASKS + mask_circumstances.MASKS
HONEST: dict[str, Callable[[], nn.Module]] = {
    "Standard": lambda: Mask(trained(perceptron)),
    "Adversarial": lambda: Mask(trained(convolutions, eps=EPS)),
    "Trades": lambda: Mask(trained(convolutions, eps=EPS, trades=4.0)),
    "Transformer": lambda: trained(Attention, 500),
    "Smoothed": lambda: Smoothed(trained(perceptron)),
}
PACKAGED = {"idc-digits-robust, one step": True, "idc-digits-robust, chain": False}


def mask(kind: type[Mask]) -> Mask:
    """Around the networks that all share."""
    return around(kind, trained(perceptron), trained(convolutions, eps=EPS))


def around(kind: type[Mask], net: nn.Module, other: nn.Module) -> Mask:
    """A mask around ``net``; of those that have two networks, the other is ``other``."""
    return (kind(net, other) if issubclass(kind, Batched) else kind(net)).eval()


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """The factory that ``idc evaluate masks:of_NAME`` names."""
    if not name.startswith("of_"):
        raise AttributeError(name)
    name = name.removeprefix("of_")
    if kind := {k.__name__: k for k in MASKS}.get(name):
        return lambda: mask(kind)
    if name in HONEST:
        return HONEST[name]
    raise AttributeError(name)


def true_accuracy(whole: Mask, images: Tensor, classes: Tensor, threat: Threat) -> float:
    """What is left of ``whole`` after attacks on the network inside, each image judged by itself, of a new copy."""
    streams = Streams(torch.arange(len(images)), 7)

    def straight_through(x: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            return whole.net(x + (whole.before(x) - x).detach())

    left = _judged(whole, images, classes)
    for index, (function, objective) in enumerate(product((whole.net, straight_through), (Margin(), CrossEntropy()))):
        attack = apgd(threat, objective=objective)
        found = whole.shown(attack(Target(function), images, classes, streams.of(index)))
        left = torch.minimum(left, _judged(whole, found, classes))
    return left.mean().item()


def _judged(whole: Mask, images: Tensor, classes: Tensor) -> Tensor:
    """(B,) share of right answers."""
    each = []
    for image in images:
        copy = deepcopy(whole)  # asked nothing before
        with whole.asking():
            each.append([int(copy(image[None]).argmax()) for _ in range(9 if whole.stochastic else 1)])
    return (torch.tensor(each) == classes[:, None]).double().mean(1)


def short(threat: Threat) -> Protocol:
    """``adaptive``, shorter."""
    found = PROTOCOLS["adaptive"](threat)
    own = {"steps": STEPS, "queries": QUERIES}
    attacks = [
        (name, replace(attack, **{k: v for k, v in own.items() if hasattr(attack, k)}))  # type: ignore[type-var]
        for name, attack in found.attacks
    ]
    return replace(found, attacks=tuple(attacks), sanity=IMAGES)


def evaluated(model: str, *, eps: float = EPS, **settings: Any) -> dict[str, Any]:
    """Accuracy as ``adaptive`` reports it, its failed checks, and seconds of a core."""
    began = time.process_time()
    with TemporaryDirectory() as folder:
        request = Request(model=model, data="digits", eps=eps, **{"limit": IMAGES, "draws": DRAWS} | settings)
        found = evaluate(request, Path(folder) / "out", protocol=short(Threat("linf", eps)), say=lambda text: None)
    failed = [check["name"] for check in found["sanity"] if not check["passed"]]
    seconds = round(time.process_time() - began, 1)
    return {"clean": found["clean"]["mean"]["mean"], "reported": found["robust"]["mean"]["mean"], "failed": failed,
            "seconds": seconds}  # fmt: skip


def row(name: str) -> dict[str, Any]:
    """What is known of one model; ``passes``: reported well above the truth, and nothing said."""
    if name in PACKAGED:
        settings = {"one_step": True} if PACKAGED[name] else {}
        return {"honest": True} | evaluated("idc-digits-robust", eps=FEW_EPS, limit=FEW, draws=4, **settings)
    if name in HONEST:
        return {"honest": True} | evaluated(f"masks:of_{name}")
    images, classes = pixels("test", IMAGES)
    order = interleaved(classes)
    true = true_accuracy(mask({k.__name__: k for k in MASKS}[name]), images[order], classes[order], Threat("linf", EPS))
    found = evaluated(f"masks:of_{name}")
    passes = found["reported"] > true + POINTS and not found["failed"]
    return {"honest": False, "true": true} | found | {"passes": passes}


def main() -> None:
    # Left out: AutoAttack's library, a minute a mask.
    command.CHECKS = tuple(check for check in command.CHECKS if check is not autoattack_finds_no_more)
    names = sys.argv[1:] or [*(k.__name__ for k in MASKS), *HONEST, *PACKAGED]
    rows = read(RESULTS / "masks.json")["rows"] if sys.argv[1:] and (RESULTS / "masks.json").exists() else {}
    for name in names:
        found = rows[name] = row(name)
        true = "" if found["honest"] else f"{found['true']:6.1%}"
        bad = " PASSES" if found.get("passes") else " FALSE ALARM" if found["honest"] and found["failed"] else ""
        text = f"{name:28} {true:7} {found['reported']:6.1%} {found['seconds']:5.0f} s{bad}"
        print(text, "; ".join(found["failed"]), sep="  ", flush=True)
        write("masks", "python benchmarks/masks.py", {"eps": EPS, "images": IMAGES, "rows": rows})


if __name__ == "__main__":
    main()
