"""The figures and tables of the IDC paper, from models at hand.

    python benchmarks/paper.py run --data CIFAR [--seconds 3600] [--only PART ...] [--limit N]
    python benchmarks/paper.py list
    python benchmarks/paper.py draw

`run` does the parts in order of worth, as many as fit into the time. Each is a command that goes on where it was
stopped, in OUT/PART; what it has come to so far goes to benchmarks/results/paper.json (that of `flaws-nano` to
pitfalls-nano.json). `draw` makes docs/paper-figure-*.svg of what is in benchmarks/results; `python benchmarks/pages.py`
writes the tables of docs/paper.md. What a GPU adds at full size: `python benchmarks/gpu.py list`.
CIFAR is the CIFAR-10 (JPEG-75) parquet folder.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import paper_figures
import paper_parts as parts
import pitfalls
from common import CIFAR, RESULTS, alone, hardware, read
from gpu import GRACE, attend
from gpu_jobs import PAPER
from paper_tables import NETWORK
from robust_pages import CNNS, MIRRORED, OF_PART, SHIPPED, SMALL, SMALL_MIXED

from idc.compute.memory import keep_freed_memory
from idc.storage.files import make_folder, write_json
from idc.text import fraction

NANO = "idc-nano-cifar10"
DIGITS_EPS = (0.05, 0.1, 0.2)
CIFAR_EPS = tuple(n / 255 for n in (1, 2, 4, 6, 8))
Measure = Callable[[str, int, Path], object]  # data, images, folder
Found = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """Something to measure.

    Args:
        of: the figure or table that it is for.
        seconds: about what it takes on one core of a CPU.
        limit: test images.
        measure: does it; found: what it has come to, by what lies in its folder.
        file: the results file, if it writes one of its own.
    """

    name: str
    of: str
    seconds: int
    limit: int
    measure: Measure
    found: Found = lambda out: {}
    file: str = "paper.json"


def _steps(model: str) -> Measure:
    return lambda data, limit, out: parts.measure_steps(model, data, limit, out)


def _costs(data: str, limit: int, out: Path) -> None:
    write_json(make_folder(out) / "costs.json", parts.costs())


def _flaws(data: str, limit: int, out: Path) -> None:
    given = ["--data", data, "--data-name", CIFAR, "--eps", "8/255", "--limit", str(limit), "--alone"]
    pitfalls.main([NANO, "--name", "nano", *given, "--draws", "10"])


def _flaws_found(out: Path) -> dict[str, Any]:
    """They lie in a file of their own."""
    pitfalls.keep("nano", parts.EPS, "python benchmarks/paper.py run --only flaws-nano")
    return {}


def _digits(data: str, limit: int, out: Path) -> None:
    parts.measure_trainings("digits", range(2), DIGITS_EPS, limit, out, {})


def _nano(data: str, limit: int, out: Path) -> None:
    parts.measure_trainings(data, range(1), CIFAR_EPS, limit, out, {"epochs": 18.0, "compile": True})


def _recipes(data: str, limit: int, out: Path) -> None:
    sizes = tuple(n / 255 for n in (2, 4, 8))
    parts.measure_trainings(data, range(1), sizes, limit, out, {"compile": True}, parts.RECIPES)


def _held(name: str, out: Path) -> dict[str, Any]:
    return read(out / name) if (out / name).exists() else {}


SECONDS = dict.fromkeys(CNNS, 6000) | {SMALL: 12_000, SMALL_MIXED: 12_000}  # nano's: 8000


def _all(name: str) -> Part:
    """All test images of a model that was trained against attacks, an IDC after one step, in bf16."""
    model = OF_PART[name]

    def measure(data: str, limit: int, out: Path) -> None:
        one_step, mirrored = model not in CNNS, name in MIRRORED  # a CNN's answer is one step anyway
        given = {"one_step": one_step, "mirrored": mirrored, "precision": "bf16"}
        parts.measure_adaptive(model, data, limit, out, **given)

    seconds = SECONDS.get(model, 8000) * (2 if name in MIRRORED else 1)
    return Part(name, "all test images", seconds, 10_000, measure, parts.adaptive_found)


def _network(name: str, seconds: int) -> Part:
    """The paper's network as it answers, in bf16, in batches and blocks of a CPU's size."""

    def measure(data: str, limit: int, out: Path) -> None:
        given = {"precision": "bf16", "batch_size": 16, "block": 16}
        parts.measure_adaptive(PAPER, data, limit, out, eps=fraction(NETWORK[name]), **given)

    return Part(name, "the paper's network", seconds, 64, measure, parts.adaptive_so_far)


PARTS = (
    Part("costs", "figure 1, table of pruning", 30, 1, _costs, partial(_held, "costs.json")),
    Part("all-nano", "all test images", 2400, 10_000,
         lambda data, limit, out: parts.measure_adaptive(NANO, data, limit, out, one_step=True), parts.adaptive_found),
    *map(_all, OF_PART),
    _network("network-4", 8000),
    _network("network-8", 4000),
    _network("network-2", 30_000),
    Part("steps-nano", "figure 4a", 2200, 512, _steps(NANO), parts.steps_found),
    Part("flaws-nano", "the flaws one by one", 1600, 256, _flaws, _flaws_found,
         file="pitfalls-nano.json"),
    Part("trainings-digits", "figures 4b and 4c", 2400, 64, _digits, parts.trainings_found),
    Part("steps-robust", "figure 4a", 1000, 512, _steps(SHIPPED), parts.steps_found),
    Part("visits-nano", "figure 4c, visits", 4400, 512,
         lambda data, limit, out: parts.measure_visits(NANO, data, limit, out), parts.visits_found),
    # 18 epochs four times: an hour of a core each, attacks included.
    Part("trainings-nano", "figures 4b and 4c on CIFAR-10", 15_000, 512, _nano, parts.trainings_found),
    # 100 epochs twice at 16x16.
    Part("recipes-nano-16", "the two recipes", 11_000, 512, _recipes, parts.trainings_found),
)  # fmt: skip
BY_NAME = {part.name: part for part in PARTS}


def held() -> dict[str, Any]:
    """By name, what benchmarks/results/paper.json has of each part."""
    file = RESULTS / "paper.json"
    found: dict[str, Any] = read(file)["parts"] if file.exists() else {}
    return found


def is_done(part: Part, limit: int) -> bool:
    """Whether the part was finished, on as many images."""
    own = held().get(part.name, {})
    return own.get("state") == "done" and own.get("limit") == limit


def keep(part: Part, limit: int, state: str, seconds: float, out: Path) -> None:
    """Put what a part has come to into the results, beside the others."""
    before = held()
    same = before.get(part.name, {}).get("limit") == limit
    spent = round(seconds + (before[part.name]["seconds"] if same else 0), 1)
    about = {"state": state, "limit": limit, "seconds": spent, "hardware": hardware()}
    found = {name: before[name] for name in BY_NAME if name in before}
    found[part.name] = about | part.found(out / part.name)
    whole = {"command": "python benchmarks/paper.py run", "data": CIFAR}
    write_json(make_folder(RESULTS) / "paper.json", whole | {"parts": found})


def run(wanted: Sequence[Part], data: str, out: Path, seconds: float, limit: int | None = None) -> list[str]:
    """Do what is not done, in order, within so many seconds; a line for each part that was begun."""
    end, said = time.monotonic() + seconds, []
    for part in wanted:
        images, left = limit or part.limit, end - time.monotonic() - GRACE
        if is_done(part, images) or left <= 0:
            continue
        began = time.monotonic()
        make_folder(out)
        one = ["one", part.name, "--data", data, "--out", str(out), "--limit", str(images)]
        state, words = attend([sys.executable, __file__, *one], left, out / f"{part.name}.log")
        spent = time.monotonic() - began
        keep(part, images, state, spent, out)
        said.append(f"{part.name}: {state} after {spent:.0f} s" + (f", {words[-200:]}" if state == "failed" else ""))
        print(said[-1], flush=True)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "list", "draw", "one"])
    parser.add_argument("part", nargs="?", choices=list(BY_NAME), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--data", default="runs/cifar10-jpeg")
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), default=list(BY_NAME), metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"))
    parser.add_argument("--limit", type=int, help="test images, in place of each part's own number")
    given = parser.parse_args()
    wanted = [part for part in PARTS if part.name in given.only]
    if given.verb == "one":
        part = BY_NAME[given.part]
        part.measure(given.data, given.limit or part.limit, given.out / part.name)
    elif given.verb == "run":
        os.environ |= alone()
        run(wanted, given.data, given.out, given.seconds, given.limit)
    elif given.verb == "draw":
        for path in paper_figures.write_all():
            print(f"written: {path}")
    else:
        for part in wanted:
            own = held().get(part.name, {})
            state = own.get("state", "waits") + (
                f", {own['limit']}" if own.get("limit", part.limit) != part.limit else ""
            )
            print(f"{part.name:18} {part.seconds:6} s  {part.limit:4} images  {state:12} {part.of}, {part.file}")


if __name__ == "__main__":
    keep_freed_memory()
    main()
