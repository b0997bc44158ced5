"""What benchmarks/paper.py measures: PGD read off along its way, visits of the same weights, short trainings, costs.

Each function measures into a folder and goes on where it was stopped; each ``..._found`` reads what the folder holds.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from common import CIFAR, ROOT, counted_checks, of_images, read, summary_so_far
from torch import Tensor

from idc.attacks.gradient import GradientAttack, pgd
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.commands.evaluate import evaluate, problem_of
from idc.commands.opening import open_both, open_model
from idc.commands.profile import pruning_table
from idc.commands.request import Request
from idc.commands.train import start_training
from idc.cost import answer_cost
from idc.evaluation.identity import describe_model
from idc.evaluation.protocol import PROTOCOLS, PUBLISHED, Protocol, published
from idc.evaluation.runner import hold_settings
from idc.evaluation.summary import read_costs
from idc.evaluation.verdict import wilson
from idc.noise import Streams, derive_seed
from idc.storage import records
from idc.storage.fields import recorded
from idc.storage.files import make_folder
from idc.text import eps_text
from idc.types import Classifier

EPS = 8 / 255
READ = (10, 20, 40, 80, 120, 200)  # steps at which the accuracy is read off
FUNCTIONS = {"published": PUBLISHED, "smooth": "one-step-inner"}  # line of figure 4a -> whose gradient is followed
DRAWS = 10
BLOCK = 32
VISITS = ((3,), (3, 0), (3, 1, 0), (3, 2, 1, 0))
TRAININGS = ("inter-class", "no-inter-class", "timesteps-2", "timesteps-8")  # files of recipes/paper
RECIPES = ("published", "fast")  # more of them: the paper's losses by either recipe
COSTED = ("models/idc-base-cifar10", "idc-nano-cifar10", "idc-nano-cifar10-robust", "models/cifar10-thin-pgd-at")


# -- figure 4a: over the steps of one run ------------------------------------------------------------------------------


def read_off(
    target: Target,
    attack: GradientAttack,
    images: Tensor,
    classes: Tensor,
    streams: Streams,
    *,
    at: Sequence[int] = READ,
    draws: int = DRAWS,
) -> Tensor:
    """One run of PGD (fixed steps, noise the same in each), judged on the real model after some of its steps.

    The point after s steps is that of a run of s steps. An image that is wrong in every draw, clean or at a step where
    it is judged, is not attacked further and counts as wrong from there on.

    Args:
        attack: whose threat, objective, function and step are used.
        images: (B, C, H, W) in [0, 1]; classes (B,), true.
        at: steps after which it is judged, rising.
        draws: of the noise, fresh at each.

    Returns:
        (1 + len(at), B) float64: share of right draws clean, then at each of ``at``.
    """

    def right(x: Tensor, rows: Tensor, step: int) -> Tensor:
        found, _ = target.judge(x, classes[rows], streams.of("judge", step).take(rows), draws=draws)
        return found.double().mean(0)

    shares = torch.zeros(1 + len(at), len(images), dtype=torch.float64)
    shares[0] = right(images, torch.arange(len(images)), 0)
    rows, own = shares[0].nonzero()[:, 0], streams.of(0, 0)
    x = attack.threat.random(images, own.of("start"))
    for step in range(1, 1 + max(at)):
        if not len(rows):
            break
        _, gradient, _ = target.gradient(
            attack.surrogate, x[rows], classes[rows], own.of("noise").take(rows), objective=attack.objective
        )
        moved = x[rows] + attack.step_size * attack.threat.steepest(gradient)
        x[rows] = attack.threat.project(moved, images[rows])
        if step in at:
            index = 1 + at.index(step)
            shares[index, rows] = right(x[rows], rows, step)
            rows = rows[shares[index, rows] > 0]
    return shares


def measure_steps(model: str, data: str, limit: int, out: Path) -> None:
    """Both lines of a model: a line an image in ``out/LINE.jsonl``."""
    request = Request(model=model, data=data, data_name=CIFAR, limit=limit)
    classifier, images = open_both(request, torch.device("cpu"))
    problem, target = problem_of(request, images), published(Target.of(classifier))
    about = {k: v for k, v in problem.about.items() if k != "fingerprint"}  # of more images, those that are done stay
    settings = {"classifier": describe_model(classifier, model), "data": about}
    hold_settings(out, settings | {"steps": list(READ), "draws": DRAWS, "eps": EPS})
    for start in range(0, len(problem), BLOCK):
        x, classes, ids = problem.part(slice(start, start + BLOCK), torch.device("cpu"))
        for line, surrogate in FUNCTIONS.items():
            known = records.read_all(out, f"{line}.jsonl", "id").keys()
            left = [row for row, i in enumerate(ids.tolist()) if i not in known]
            if not left:
                continue
            attack = pgd(Threat("linf", EPS), step=EPS / 4, surrogate=surrogate, fixed_noise=True)
            streams = Streams(ids[left], derive_seed(0, "paper", line))
            shares = read_off(target, attack, x[left], classes[left], streams).T.tolist()
            rows = [{"id": i, "right": own} for i, own in zip(ids[left].tolist(), shares, strict=True)]
            records.append(out / f"{line}.jsonl", rows)
            print(f"{line}: {len(known) + len(rows)} of {len(problem)}", flush=True)


def steps_found(out: Path) -> dict[str, Any]:
    """By line: images, and the accuracy clean (0 steps) and at each read-off."""
    found = {}
    for line in FUNCTIONS:
        rows = [row["right"] for row in records.read_all(out, f"{line}.jsonl", "id").values()]
        if rows:
            means = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
            points = [
                {"steps": s} | recorded(wilson(mean, len(rows))) for s, mean in zip((0, *READ), means, strict=True)
            ]
            found[line] = {"images": len(rows), "draws": DRAWS, "points": points}
    return found


# -- figures 4b and 4c: evaluations of other answers and of short trainings --------------------------------------------


def protocol(sizes: Sequence[float], adaptive: float) -> Protocol:
    """PGD-20 as published at each of ``sizes``, each alone, and the protocol ``quick``'s search at one of them."""
    attacks: list[tuple[str, Any]] = [
        (f"pgd-20 {eps_text(e)}", pgd(Threat("linf", e), step=e / 4, surrogate=PUBLISHED, fixed_noise=True))
        for e in sizes
    ]
    search = dict(PROTOCOLS["quick"](Threat("linf", adaptive)).attacks)["adaptive"]
    attacks.append((f"adaptive {eps_text(adaptive)}", search))
    return Protocol("figure 4", Threat("linf", max(sizes)), tuple(attacks), draws=DRAWS)


def measure_visits(model: str, data: str, limit: int, out: Path) -> None:
    """The same weights, asked along each list of timesteps."""
    for visits in VISITS:
        request = Request(model=model, data=data, data_name=CIFAR, limit=limit, visits=visits)
        evaluate(request, out / "-".join(map(str, visits)), protocol=protocol((EPS,), EPS))


def visits_found(out: Path) -> dict[str, Any]:
    """An entry for each list that is done."""
    folders = [(visits, out / "-".join(map(str, visits))) for visits in VISITS]
    return {"rows": [{"visits": list(visits)} | _judged(f) for visits, f in folders if (f / "summary.json").exists()]}


def measure_trainings(
    data: str,
    seeds: Iterable[int],
    sizes: Sequence[float],
    limit: int,
    out: Path,
    changes: dict[str, Any],
    names: Sequence[str] = TRAININGS,
) -> None:
    """Train by each of these files of recipes/paper with each seed, and attack what it gives."""
    adaptive = sizes[len(sizes) // 2]
    for seed in seeds:
        for name in names:
            run = make_folder(out) / f"{name}-{seed}"
            recipe = str(ROOT / "recipes" / "paper" / f"{name}.yaml")
            training = start_training(data, run, recipe=recipe, resume=True, changes=changes | {"seed": seed})
            if training.stopped:
                raise SystemExit(128 + training.stopped)
            shown = "digits" if data == "digits" else CIFAR
            request = Request(model=str(run), data=data, data_name=shown, limit=limit)
            evaluate(request, out / f"{name}-{seed}-attacked", protocol=protocol(sizes, adaptive))


def trainings_found(out: Path) -> dict[str, Any]:
    """An entry for each training that was attacked."""
    rows = []
    for folder in sorted(out.glob("*-attacked/summary.json")):
        run = folder.parent.with_name(folder.parent.name.removesuffix("-attacked"))
        name, _, seed = run.name.rpartition("-")
        trained = {k: read(run / "summary.json")[k] for k in ("images_seen", "seconds")}
        epochs = read(run / "summary.json")["recipe"]["epochs"]
        attacked = {"attack_seconds": attack_seconds(read(folder))}
        rows.append(
            {"training": name, "seed": int(seed), "epochs": epochs}
            | trained
            | attacked
            | _judged(folder.parent)
            | {"validation": _validated(run)}
        )
    return {"rows": sorted(rows, key=lambda r: ((*TRAININGS, *RECIPES).index(r["training"]), r["seed"]))}


def _validated(run: Path) -> list[dict[str, float]]:
    """Accuracy on validation images, by epochs."""
    lines = records.read(run / "metrics.jsonl")
    known = {k: f"validation/{k}" for k in ("one_step", "multi_step", "images")}
    return [{"epoch": line["epoch"]} | {k: line[v] for k, v in known.items()} for line in lines if "epoch" in line]


def _judged(folder: Path) -> dict[str, Any]:
    """Clean accuracy and that under each attack, as means of draws."""
    held = read(folder / "summary.json")
    attacks = {name: own["mean"] for name, own in held["attacks"].items()}
    evaluations = held["answer"]["network_evaluations"]
    about = {"images": held["images"], "draws": held["draws"], "network_evaluations": evaluations}
    failed = [check["name"] for check in held["sanity"] if not check["passed"]]
    return about | {"clean": held["clean"]["mean"], "attacks": attacks, "failed": failed}


# -- the adaptive protocol --------------------------------------------------------------------------------------------


def measure_adaptive(model: str, data: str, limit: int, out: Path, *, eps: float = EPS, **given: Any) -> None:
    """One model under the adaptive protocol; ``given``: further fields of the ``Request``."""
    evaluate(Request(model=model, data=data, data_name=CIFAR, limit=limit, protocol="adaptive", eps=eps, **given), out)


def adaptive_found(out: Path) -> dict[str, Any]:
    """Clean and robust accuracy, once it is done."""
    if not (out / "summary.json").exists():
        return {}
    held = read(out / "summary.json")
    found = {
        "precision": held.get("settings", {}).get("classifier", {}).get("precision", "fp32"),
        "images": held["images"],
        "clean": held["clean"],
        "robust": held["robust"],
    } | of_images(out)
    return found | {"checks": counted_checks(held), "core_seconds": round(attack_seconds(held))}


def adaptive_so_far(out: Path) -> dict[str, Any]:
    """The same; before that, of the images that have finished, of which no sanity check was made yet."""
    if done := adaptive_found(out):
        return done
    found = summary_so_far(out)
    if not found:
        return {}
    known = {name: found[name] for name in ("images", "clean", "robust")}
    seconds = sum(read_costs(out)["seconds"].values())
    return known | {"checks": {"made": 0, "passed": 0}, "core_seconds": round(seconds)}


def attack_seconds(summary: dict[str, Any]) -> float:
    """Of all processes, whoever began and ended the evaluation."""
    seconds: float = summary["cost"]["seconds"] * summary["images"]
    return seconds


# -- costs -------------------------------------------------------------------------------------------------------------


def costs() -> dict[str, Any]:
    """The pruning table, and what an answer of the models of figure 1 costs that no other result says."""
    models = {}
    for name in COSTED:
        model = cast(Classifier, open_model(name if "/" not in name else str(ROOT / name)))
        models[name] = answer_cost(model, torch.device("cpu"))
    return {"pruning": pruning_table(), "models": models}
