"""The demo: train on digits, attack the result, write records and a page."""

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from idc import __version__
from idc import data as datasets
from idc.attacks.gradient import pgd
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.commands.train import start_training
from idc.cost import answer_cost, forward_flops, grey_image
from idc.data import ImageSet
from idc.evaluation.verdict import wilson
from idc.method.classifier import IDC
from idc.method.labels import gram_report
from idc.noise import Streams
from idc.report.demo_page import write_demo_page
from idc.report.results_page import write_report
from idc.storage.files import whole_file, write_json
from idc.training.recipe import RECIPES
from idc.training.run_folder import read_metrics
from idc.training.settings import override

EPS = (0.05, 0.1, 0.2, 0.3)
DRAWS = 10
QUICK_EPS, QUICK_IMAGES = 0.1, 100
_WHY_SIZE = (
    "The digits are 8x8 pixels and are enlarged to 32x32: a label then has D = 1,024 values, over which the noise that "
    "the reverse process injects averages out. With D = 64 it does not, and the multi-step answer falls far behind."
)


def _shares(model: IDC, images: Tensor, classes: Tensor, seed: int) -> dict[str, dict[str, float]]:
    """Accuracy of the one-step answer and of the mean of DRAWS multi-step draws, with fresh per-image noise."""
    one = model.one_step.predict(images, draws=1)
    many = model.predict(images, draws=DRAWS, seed=seed)
    rights = {"one_step": one.classes == classes, "multi_step": many.classes == classes}
    return {name: wilson(right.float().mean().item(), len(classes)).to_dict() for name, right in rights.items()}


def _attack(model: IDC, eps: float, images: Tensor, classes: Tensor, seed: int) -> Tensor:
    """PGD on the smooth one-step surrogate: the answer itself has clamps and signs that hide its gradient."""
    attack = pgd(Threat("linf", eps), surrogate="one-step-inner")
    return attack(Target.of(model), images, classes, Streams(torch.arange(len(images)), seed))


def _curve(model: IDC, images: Tensor, classes: Tensor, seed: int) -> list[dict[str, Any]]:
    points = []
    for eps in EPS:
        noisy = Threat("linf", eps).random(images, Streams(torch.arange(len(images)), seed + 1))
        attacked = _attack(model, eps, images, classes, seed)
        points.append(
            {
                "eps": eps,
                "attacked": _shares(model, attacked, classes, seed + 2),
                "noise": _shares(model, noisy, classes, seed + 2),
            }
        )
    return points


@torch.no_grad()
def _panel(model: IDC, test: ImageSet, eps: float, seed: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Pictures of eight test images, of different classes where possible."""
    first = [int((test.labels == k).nonzero()[0]) for k in range(test.num_classes) if (test.labels == k).any()][:8]
    images, classes = test.images[first].float().div(255), test.labels[first]
    with torch.enable_grad():
        attacked = _attack(model, eps, images, classes, seed)
    steps = model.trajectory(images, generator=torch.Generator().manual_seed(seed))
    last = model.trajectory(attacked, generator=torch.Generator().manual_seed(seed))[-1]
    clean, fooled = model.predict(images, draws=DRAWS, seed=seed), model.predict(attacked, draws=DRAWS, seed=seed)

    def unit(x0_hat: Tensor) -> Tensor:
        return ((x0_hat + 1) / 2).clamp(0, 1)

    pictures = {
        "labels": model.labels,
        "panel_images": images,
        "panel_steps": torch.stack([unit(s.x0_hat) for s in steps]),
        "panel_nearest": model.labels[clean.classes],
        "panel_attacked": attacked,
        "panel_attacked_translation": unit(last.x0_hat),
        "panel_attacked_nearest": model.labels[fooled.classes],
    }
    rows = [
        {"truth": model.class_names[c], "answer": a, "attacked_answer": f, "eps": eps}
        for c, a, f in zip(classes.tolist(), clean.names, fooled.names, strict=True)
    ]
    return pictures, rows


def _records(
    model: IDC, run: Path, splits: dict[str, ImageSet], seed: int, limit: int | None, summary: dict[str, Any]
) -> dict[str, Any]:
    test = splits["test"]
    images, classes = test.images.float().div(255), test.labels
    history = [m for m in read_metrics(run) if "validation/one_step" in m]
    visits, device = model.config.visits, model.labels.device
    cost, one_step = answer_cost(model, device), model.one_step
    return {
        "idc_version": __version__,
        "torch": torch.__version__,
        "hardware": {
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "device": str(model.labels.device),
        },
        "command": f"idc demo --seed {seed} --epochs {summary['recipe']['epochs']:g}"
        + (f", on {limit} test images" if limit else ""),
        "seed": seed,
        "data": {"name": "digits (scikit-learn)", "image_shape": list(test.shape), "why_size": _WHY_SIZE}
        | {name: len(split) for name, split in splits.items()},
        "model": {
            "preset": "digits",
            "parameters": cost["parameters"],
            "visits": list(visits),
            "timesteps": model.config.bridge.timesteps,
            "eta": model.config.bridge.eta,
            "passes": cost["network_evaluations"],
            "flops_per_pass": forward_flops(one_step, grey_image(model, device)),
            "flops_per_answer": cost["flops"],
        },
        "training": {
            "seconds": summary["seconds"],
            "images_seen": summary["images_seen"],
            "epochs": summary["recipe"]["epochs"],
            "history": [
                {"epoch": m["epoch"], "one_step": m["validation/one_step"], "multi_step": m["validation/multi_step"]}
                for m in history
            ],
        },
        "labels": {name: getattr(report, name) for report in [gram_report(model.labels)] for name in report.__slots__},
        "clean": _shares(model, images, classes, seed),
        "attack": {
            "name": "PGD-20, L-inf, step eps/4, cross-entropy, random start",
            "surrogate": "one-step-inner",
            "steps": 20,
            "curve": _curve(model, images, classes, seed),
        },
        "draws": DRAWS,
        "class_names": list(model.class_names),
    }


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    epochs: float | None = None,
    limit: int | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Train, attack and report; what ``idc demo`` does. An interrupted demo goes on where it stopped.

    Args:
        out: folder for ``run/`` (the training run), ``demo.json``, ``pictures.safetensors`` and ``report.html``.
        seed: of weights, order, noise and attack.
        epochs: of training; by default the recipe's, which reach full accuracy.
        limit: attack so many test images, balanced by class; by default all.
        say: takes a line for the user.

    Returns:
        The page.

    Raises:
        IDCError: if ``out`` cannot be written or holds another run.
    """
    import json

    from idc.errors import IDCError

    changes = {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    recipe = override(RECIPES["digits"], changes)
    say(f"training on scikit-learn's digits ({recipe.epochs:g} epochs; TensorBoard: {out / 'run' / 'tensorboard'})")
    result = start_training("digits", out / "run", recipe="digits", resume=True, changes=changes)
    if result.stopped:
        raise IDCError(out, "a whole training run (this one was interrupted)", "run idc demo again: it goes on")
    model = IDC.from_pretrained(out / "run" / "best")
    splits = {name: datasets.load("digits", split=name) for name in ("train", "validation")}
    splits["test"] = datasets.load("digits", split="test", limit=limit)
    summary = json.loads((out / "run" / "summary.json").read_text(encoding="utf-8"))
    say(f"attacking {len(splits['test'])} test images with PGD-20 at eps {', '.join(map(str, EPS))} ...")
    records = _records(model, out / "run", splits, seed, limit, summary)
    pictures, rows = _panel(model, splits["test"], EPS[2], seed)
    records["pictures"] = {"panel": rows}
    with whole_file(out / "pictures.safetensors") as part:
        save_file({name: tensor.contiguous() for name, tensor in pictures.items()}, part)
    write_json(out / "demo.json", records)
    for line in _lines(records):
        say(line)
    _quick(out, seed, say)
    return write_demo_page(out)


def _quick(out: Path, seed: int, say: Callable[[str], object]) -> None:
    """The quick protocol on the demo's model, and its report beside the demo's page."""
    say(f"the quick protocol (a short adaptive attack) on {QUICK_IMAGES} test images at eps {QUICK_EPS} ...")
    request = Request(model=str(out / "run" / "best"), data="digits", protocol="quick", eps=QUICK_EPS,
                      limit=QUICK_IMAGES, seed=seed)  # fmt: skip
    summary = evaluate(request, out / "quick", say=say)
    robust, clean = summary["robust"], summary["clean"]
    say(
        f"quick: {robust['mean']['mean']:.1%} of draws right, {robust['majority']['mean']:.1%} by majority, "
        f"{robust['worst_of_n']['mean']:.1%} in all {robust['draws']} draws (clean: {clean['mean']['mean']:.1%}, "
        f"{clean['majority']['mean']:.1%}, {clean['worst_of_n']['mean']:.1%})"
    )
    page, *_ = write_report([out / "quick"], out / "quick.html")
    say(f"its report: {page}")


def _lines(records: dict[str, Any]) -> list[str]:
    """What the terminal says."""

    def text(share: dict[str, float]) -> str:
        return f"{share['mean']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"

    clean, points = records["clean"], records["attack"]["curve"]
    lines = [
        f"clean test accuracy (n = {records['data']['test']}): {text(clean['one_step'])} one-step, "
        f"{text(clean['multi_step'])} multi-step (mean of {records['draws']} draws)"
    ]
    for point in points:
        verdict = "withstands" if point["attacked"]["multi_step"]["low"] > 0.5 else "fails"
        lines.append(
            f"{verdict} PGD-20 at eps {point['eps']}: {text(point['attacked']['one_step'])} one-step, "
            f"{text(point['attacked']['multi_step'])} multi-step (random noise of that size: "
            f"{text(point['noise']['multi_step'])})"
        )
    lines.append("This is a basic attack: a stronger one can only lower these figures.")
    return lines
