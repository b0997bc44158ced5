"""Does an image label help? The same network with K logits beside networks that answer by image labels.

    python benchmarks/image_labels.py --data digits --limit 300
    python benchmarks/image_labels.py --data CIFAR --data-name "CIFAR-10 (JPEG-75)" --epochs 3 [--sides label k-logits]

Each side (``label_sides.py``) is the encoder of `idc-nano-cifar10-robust` (the digits: a small one), trained against
attacks by that model's recipe, of the same data, batches and updates. Its last weights, so that none are chosen, are
judged by the protocol `quick` on validation images; of the digits four tenths of the training images are held out, else
the split of the data. The test split has no part in it. Runs are side by side, one thread each, into runs/image-labels,
and all of it is resumable. The figures of a run go to benchmarks/results/image-labels.json as soon as they are there: a
row an answer, with what each image came to. A row of the same settings is not done again, also in another clone.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from common import RESULTS, alone, cpu_name, read, write
from label_sides import REFERENCE, SIDES, Side, answer_of, build, is_digits, objective_of, recipe_of, spec_of

from idc import data
from idc.commands.evaluate import evaluate_on, processes
from idc.commands.request import Request
from idc.commands.train import run_training
from idc.compute.memory import keep_freed_memory
from idc.cost import flops_of
from idc.data import ImageSet
from idc.evaluation.pairing import survived
from idc.evaluation.summary import read_lines
from idc.storage.fields import recorded
from idc.storage.files import digest, write_json
from idc.training.recipe import Recipe

RUNS = Path("runs/image-labels")
NAME = "image-labels"
HELD_OUT = 0.4  # of the digits' training images, which have no validation split of their own: 504
EPOCHS = {True: 10.0, False: 3.0}  # of the digits, and of other data
COUNTED = 8  # images of the batch of which a training step's FLOPs are counted


def load(source: str) -> tuple[ImageSet, ImageSet]:
    """The images that are trained on, and the validation images."""
    share = {"validation_fraction": HELD_OUT} if is_digits(source) else {}
    return data.load(source, split="train", **share), data.load(source, split="validation", **share)  # type: ignore[arg-type]


def settings(source: str, name: str, *, seed: int, epochs: float, limit: int) -> str:
    """A digest of all that a row follows from but its data and the code."""
    side = SIDES[name]
    recipe = recorded(recipe_of(source, side, seed=seed, epochs=epochs))
    own = [side.network, side.parts, side.bridge, side.noise, list(side.answers)]
    return digest({"recipe": recipe, "network": recorded(spec_of(source)), "side": own, "limit": limit})[:12]


def training_flops(side: Side, train: ImageSet, recipe: Recipe, source: str) -> float:
    """FLOPs of a training step (attack, loss and gradient) per image."""
    objective = objective_of(side, build(side, train, recipe, spec_of(source)), recipe)
    objective.to(torch.device("cpu"), bf16=False)
    objective.begin(0.5, replay=0)
    images, classes = train.images[:COUNTED].float().div(255), train.labels[:COUNTED]
    random = torch.Generator().manual_seed(0)
    objective.network.train()
    return flops_of(lambda: objective.loss(objective.network, images, classes, random)["total"].backward()) / COUNTED


def one(source: str, data_name: str, name: str, *, seed: int, epochs: float, limit: int) -> list[dict[str, Any]]:
    """Train a side with one seed and judge it, or finish what was begun; a row an answer."""
    side, spec = SIDES[name], spec_of(source)
    (train, validation), (_, device) = load(source), processes()
    recipe = recipe_of(source, side, seed=seed, epochs=epochs)
    digest_of = settings(source, name, seed=seed, epochs=epochs, limit=limit)
    out = RUNS / f"{name}-{seed}-{digest_of}"
    objective = objective_of(side, build(side, train, recipe, spec), recipe)
    about = {"data": data_name, "side": name, "network": recorded(spec)}
    trained = run_training(
        objective, recipe, train, validation, out / "run", resume=True, about=about, changes={"epochs": epochs},
        began=None, say=print,
    )  # fmt: skip
    if trained.stopped:
        sys.exit(128 + trained.stopped)
    summary = read(out / "run" / "summary.json")
    model: Any = type(objective.model).from_pretrained(out / "run" / "last", device=device)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model = model.with_precision(recipe.precision)
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    same: dict[str, Any] = {
        "data": data_name, "side": name, "seed": seed, "settings": digest_of, "epochs": epochs, "eps": recipe.eps,
        "updates": summary["steps"], "training_images": len(train), "seconds": summary["seconds"],
        "training_flops": training_flops(side, train, recipe, source), "bf16": summary["bf16"],
        "hardware": {"cpu": cpu_name(), "gpu": gpu, "threads": torch.get_num_threads(), "torch": torch.__version__},
    }  # fmt: skip
    images = validation.take(min(limit, len(validation)))
    return [
        same | judged(answer_of(side, answer, model, recipe), answer, images, recipe, data_name, out)
        for answer in side.answers
    ]


def judged(classifier: Any, answer: str, images: ImageSet, recipe: Recipe, data_name: str, out: Path) -> dict[str, Any]:
    """What an answer of a model survives: figures, and an image's verdict after the other's, by id."""
    request = Request(model=f"{out.name}, {answer}", data=data_name, protocol="quick", eps=recipe.eps,
                      split="validation")  # fmt: skip
    folder = out / answer.replace(" ", "-")
    summary = evaluate_on(classifier, replace(images, split="validation"), request, folder)
    lines = read_lines(folder)
    clean, robust = {line["id"]: line["clean"][1] == line["class"] for line in lines}, survived(lines)
    return {
        "answer": answer, "images": len(lines), "ids": digest(sorted(robust))[:12], "draws": summary["draws"],
        "clean": summary["clean"], "robust": summary["robust"], "reliable": summary["reliable"],
        "right": bits(clean), "survived": bits(robust),
        "flops": summary["answer"]["flops"], "parameters": summary["answer"]["parameters"],
        "seconds_judged": summary["cost"]["seconds"] * len(lines),
    }  # fmt: skip


def bits(found: dict[int, bool]) -> str:
    """A character an image, in the order of their ids."""
    return "".join("01"[found[i]] for i in sorted(found))


class Table:
    """benchmarks/results/image-labels.json as it grows; other processes may add to it meanwhile.

    Args:
        data_name: whose rows are asked for.
    """

    def __init__(self, data_name: str) -> None:
        self.data_name, self.lock = data_name, Lock()

    def rows(self) -> list[dict[str, Any]]:
        file = RESULTS / f"{NAME}.json"
        return read(file)["rows"] if file.exists() else []

    def has(self, side: str, seed: int, settings: str) -> bool:
        """Whether every answer of a side and seed is there."""
        own = [r for r in self.rows() if _key(r) == (self.data_name, side, seed) and r["settings"] == settings]
        return {r["answer"] for r in own} >= set(SIDES[side].answers)

    def add(self, found: list[dict[str, Any]]) -> Path:
        """Take the rows of one side and seed in, in place of older ones, and write the file."""
        with self.lock:
            rows = [r for r in self.rows() if _key(r) != _key(found[0])] + found
            order = list(SIDES)
            rows.sort(key=lambda r: (r["data"], order.index(r["side"]), r["seed"]))  # stable: answers stay in order
            return write(NAME, "python benchmarks/image_labels.py --data D --data-name NAME", {"rows": rows})


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["data"], row["side"], row["seed"]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-name", help="what the record calls the data")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, help="by default 10 of the digits, 3 of other data")
    parser.add_argument("--limit", type=int, default=2000, help="so many validation images are judged")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "SEED", "FILE"), help=argparse.SUPPRESS)
    return parser


def main() -> None:
    given = arguments().parse_args()
    data_name = given.data_name or given.data
    asked = {"epochs": given.epochs or EPOCHS[is_digits(given.data)], "limit": given.limit}
    if given.one:
        name, seed, file = given.one
        write_json(Path(file), {"rows": one(given.data, data_name, name, seed=int(seed), **asked)})
        return
    table, failed = Table(data_name), []
    RUNS.mkdir(parents=True, exist_ok=True)

    def run(job: tuple[str, int]) -> None:
        name, seed = job
        file = RUNS / f"{name}-{seed}-{settings(given.data, name, seed=seed, **asked)}.json"
        own = [sys.executable, __file__, *sys.argv[1:], "--one", name, str(seed), str(file)]
        with file.with_suffix(".log").open("w") as log:
            done = subprocess.run(own, env=alone(), stdout=log, stderr=subprocess.STDOUT)
        if done.returncode:
            failed.append(job)
            print(f"{name}, seed {seed}: failed, see {file.with_suffix('.log')}", flush=True)
            return
        table.add(read(file)["rows"])
        print(f"{name}, seed {seed}: done", flush=True)

    jobs = [(name, seed) for seed in range(given.seeds) for name in (REFERENCE, *SIDES) if name in given.sides]
    jobs = [j for j in dict.fromkeys(jobs) if not table.has(*j, settings(given.data, j[0], seed=j[1], **asked))]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(run, jobs))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    keep_freed_memory()
    main()
