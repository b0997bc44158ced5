"""What carries the robustness: one setting changed at a time, on the digits or on CIFAR-10 with `nano-patch4`; and what
the field's ingredients add to a network that answers in one step (`robust`).

    python benchmarks/ablations.py digits [--seeds 2] [--only adversarial free]
    python benchmarks/ablations.py nano --data CIFAR --data-name "CIFAR-10 (JPEG-75)"
    python benchmarks/ablations.py robust --data CIFAR --data-name "CIFAR-10 (JPEG-75)"

A row is a file of recipes/ablation/NAME: a short training, then the protocol `quick` at the eps of the trainings on the
one-step answer and on the chain (and, for the row `adversarial`, on other visits and another eta of the same weights).
The digits are judged on their test split, whose recipe was chosen on the validation split alone; CIFAR-10 on validation
images, its networks in bf16 (`robust`: fp32). Chains are judged on fewer images (--chain-limit): ten draws make them
dear. Rows run side by side, one thread each, into runs/ablation/NAME, and all of it is resumable. Each row's figures go
to benchmarks/results/ablation-NAME.json as soon as they are there; a row that the file has, of the same recipe, data
and numbers of images, is not done again, also in another clone.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from common import CORES, RESULTS, alone, cpu_name, of_images, read, write

from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.commands.train import start_training
from idc.compute.memory import keep_freed_memory
from idc.storage.files import sha256
from idc.training.recipe import load_recipe

RECIPES = Path(__file__).parents[1] / "recipes" / "ablation"
RUNS = Path("runs/ablation")
EPS = {"digits": "0.1", "nano": "8/255", "robust": "8/255"}
SPLIT = {"digits": "test", "nano": "validation", "robust": "validation"}
PRECISION = {"digits": "fp32", "nano": "bf16", "robust": "fp32"}
LIMITS = {"digits": (500, 250), "nano": (500, 250), "robust": (2000, 0)}  # images for one-step answers and for chains
ONE_STEP = ("robust",)  # whose networks have no chain
BASE = "adversarial"
ANSWERS: dict[str, dict[str, Any]] = {"one step": {"one_step": True}, "chain": {}}
OTHERS: dict[str, dict[str, Any]] = {
    "chain, visits 3, 0": {"visits": (3, 0)},
    "chain, visits 3, 2, 1, 0": {"visits": (3, 2, 1, 0)},
    "chain, eta 0": {"eta": 0.0},
}
KEPT = ("clean", "robust", "images", "draws", "answer")
OF_IMAGES = {"ids", "survived"}  # of the images, one after the other: whether the vote is right under attack


def rows(name: str) -> dict[str, Path]:
    """The recipe of each row, by its name, in order."""
    return {file.stem.split("-", 1)[1]: file for file in sorted((RECIPES / name).glob("*.yaml"))}


def meaning(file: Path) -> str:
    """What a row is: the comment at the head of its recipe."""
    return file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def answers(name: str, row: str) -> dict[str, dict[str, Any]]:
    """What is asked of a row's weights, by the answer's name."""
    if name in ONE_STEP:
        return {"one step": ANSWERS["one step"]}
    return ANSWERS | (OTHERS if row == BASE else {})


def result(name: str, row: str, seed: int, answer: str) -> Path:
    """The folder of an evaluation."""
    return RUNS / name / f"{row}-{seed}" / "quick" / answer.replace(", ", "-").replace(" ", "-")


def one(name: str, row: str, seed: int, data: str | None, data_name: str | None, limits: tuple[int, int]) -> None:
    """Train a row with one seed and evaluate it, or finish what was begun.

    Args:
        limits: images on which one-step answers are judged, and chains.
    """
    file = rows(name)[row]
    out = RUNS / name / f"{row}-{seed}"
    source = data or str(load_recipe(str(file))[1]["data"])
    # A finished training is only checked: its recipe must still be the file's.
    training = start_training(source, out, recipe=str(file), resume=True, changes={"seed": seed})
    if training.stopped:
        sys.exit(128 + training.stopped)
    for answer, settings in answers(name, row).items():
        request = Request(
            model=str(out), data=source, data_name=data_name, protocol="quick", eps=EPS[name],
            limit=limits["one_step" not in settings], split=SPLIT[name], precision=PRECISION[name], **settings,
        )  # fmt: skip
        evaluate(request, result(name, row, seed, answer))


def figures(name: str, row: str, seed: int) -> list[dict[str, Any]]:
    """What was measured of a row and seed: an entry for each answer."""
    training = read(RUNS / name / f"{row}-{seed}" / "summary.json")
    same = {"row": row, "meaning": meaning(rows(name)[row]), "seed": seed, "recipe": recipe(name, row)}
    same |= {"cpu": cpu_name(), "seconds": training["seconds"], "validation": training["validation"]}
    found = []
    for answer in answers(name, row):
        folder = result(name, row, seed, answer)
        kept = {k: v for k, v in read(folder / "summary.json").items() if k in KEPT}
        found.append(same | {"answer_name": answer} | kept | of_images(folder))
    return found


def recipe(name: str, row: str) -> str:
    """A digest of a row's recipe."""
    return sha256(rows(name)[row])[:16]


class Table:
    """benchmarks/results/ablation-NAME.json as it grows.

    Args:
        name: of the ablation.
        about: what holds of all rows; a file of which something else holds is begun anew.
    """

    def __init__(self, name: str, about: dict[str, Any]) -> None:
        self.name, self.about, self.lock = name, about, Lock()
        file = RESULTS / f"ablation-{name}.json"
        held = read(file) if file.exists() else {}
        same = all(held.get(key) == value for key, value in about.items())
        current = {row: recipe(name, row) for row in rows(name)}
        known = [r for r in held.get("rows", []) if r.keys() >= OF_IMAGES]
        self.rows = [r for r in known if same and current.get(r["row"]) == r["recipe"]]

    def has(self, row: str, seed: int) -> bool:
        """Whether every answer of the row is there."""
        held = {r["answer_name"] for r in self.rows if (r["row"], r["seed"]) == (row, seed)}
        return held >= set(answers(self.name, row))

    def add(self, row: str, seed: int) -> Path:
        """Take a row in that is done, and write the file."""
        with self.lock:
            others = [r for r in self.rows if (r["row"], r["seed"]) != (row, seed)]
            order = list(rows(self.name))
            self.rows = sorted([*others, *figures(self.name, row, seed)], key=lambda r: order.index(r["row"]))
            return write(f"ablation-{self.name}", f"python benchmarks/ablations.py {self.name}",
                         self.about | {"rows": self.rows})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(EPS))
    parser.add_argument("--data")
    parser.add_argument("--data-name")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, help=f"images for one-step answers; by default {LIMITS}")
    parser.add_argument("--chain-limit", type=int, help="images for chains")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="do these rows only")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SEED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    limits = given.limit or LIMITS[given.name][0], given.chain_limit or LIMITS[given.name][1]
    if given.one:
        one(given.name, given.one[0], int(given.one[1]), given.data, given.data_name, limits)
        return
    if unknown := set(given.only or ()) - set(rows(given.name)):
        parser.error(f"row {min(unknown)!r}: expected one of {', '.join(rows(given.name))}")
    chosen = [r for r in rows(given.name) if r in (given.only or rows(given.name))]
    about = {"data": given.data_name or given.data or "digits", "split": SPLIT[given.name], "eps": EPS[given.name]}
    table = Table(given.name, about | {"limits": list(limits), "precision": PRECISION[given.name]})

    def run(job: tuple[str, int]) -> None:
        row, seed = job
        own = [sys.executable, __file__, *sys.argv[1:], "--one", row, str(seed)]
        log = RUNS / given.name / f"{row}-{seed}.log"
        with log.open("w") as text:
            done = subprocess.run(own, env=alone(), stdout=text, stderr=subprocess.STDOUT)
        print(f"{row}, seed {seed}: {'done' if done.returncode == 0 else f'failed, see {log}'}", flush=True)
        done.check_returncode()
        table.add(row, seed)

    (RUNS / given.name).mkdir(parents=True, exist_ok=True)
    jobs = [(row, seed) for seed in range(given.seeds) for row in chosen if not table.has(row, seed)]
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(run, jobs))


if __name__ == "__main__":
    keep_freed_memory()
    main()
