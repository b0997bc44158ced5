"""A folder of one's own photos: the defaults of ``idc train`` beside a CNN, in the same minutes.

    python benchmarks/photos.py run --data PHOTOS --heldout HELDOUT [--ways defaults cnn ...] [--seeds 0 1 2]
        [--minutes 9] [--out runs/photos]
    python benchmarks/photos.py collect [--out runs/photos]      # to benchmarks/results/photos.json

PHOTOS and HELDOUT hold a folder a class. Each training takes its minutes on the processors that it is given, without a
GPU, and is then judged on all images of HELDOUT. One that is done is not done again. `--cores 2` runs as many trainings
at once as there are pairs of processors, each on its own.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from common import RESULTS, cpu_name, outside, read

from idc.evaluation.summary import LINES
from idc.storage import records
from idc.storage.files import write_json

WAYS = {
    "defaults": ["train"],
    # 70.1 MFLOPs at 32 pixels; those of the defaults are 65.5.
    "cnn": ["train-peer", "cnn", "--method", "standard", "--width", "16"],
    "cnn-64": ["train-peer", "cnn", "--method", "standard", "--width", "16", "--image-size", "64"],
    "from": ["train", "--from", "idc-nano-cifar10"],
    "64": ["train", "--image-size", "64"],
}


def do(name: str, command: list[str], cores: list[int], out: Path) -> None:
    """``idc`` with these arguments on these processors; what it says goes to OUT/NAME.log."""
    environment = outside() | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(len(cores))}
    with (out / f"{name}.log").open("a", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", "idc.cli", *command], stdout=log, stderr=subprocess.STDOUT, env=environment,
            check=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip


def one(way: str, seed: int, given: argparse.Namespace, free: "Queue[list[int]]") -> None:
    """Train and judge one model, unless that is done."""
    name, cores = f"{way}-{seed}", free.get()
    trained, judged = given.out / name, given.out / f"{name}-judged"
    try:
        if not (trained / "summary.json").exists():
            asked = ["--data", given.data, "--minutes", f"{given.minutes:g}", "--seed", str(seed)]
            do(name, [*WAYS[way], *asked, "--out", str(trained)], cores, given.out)
        if not (judged / "summary.json").exists():
            asked = ["--data", given.heldout, "--protocol", "clean"]
            do(name, ["evaluate", str(trained), *asked, "--out", str(judged)], cores, given.out)
    except subprocess.CalledProcessError as error:
        print(f"{name} ended with {error.returncode}: see {given.out / name}.log", flush=True)
    finally:
        free.put(cores)


def _key(row: dict) -> tuple:
    """Only trainings of the same minutes on the same machine are set side by side."""
    return (*row["machine"].values(), row["way"], row["seed"])


def collect(out: Path) -> None:
    """What the trainings in ``out`` have come to; rows of others stay."""
    file = RESULTS / "photos.json"
    rows = {_key(r): r for r in read(file)["rows"]} if file.exists() else {}
    for summary in sorted(out.glob("*-judged/summary.json")):
        run = summary.parent.with_name(summary.parent.name.removesuffix("-judged"))
        way, _, seed = run.name.rpartition("-")
        trained, judged = read(run / "summary.json"), read(summary)
        lines = records.finished(summary.parent, LINES).values()
        row = {
            "way": way, "seed": int(seed), "seconds": trained["seconds"], "images_seen": trained["images_seen"],
            "validation": trained["validation"], "clean": judged["own"]["accuracy"],
            "right": sum(line["clean"][1] == line["class"] for line in lines), "machine": read(out / "machine.json"),
        }  # fmt: skip
        rows[_key(row)] = row
    write_json(file, {"command": "python benchmarks/photos.py collect", "rows": list(rows.values())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "collect"])
    parser.add_argument("--data")
    parser.add_argument("--heldout")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["defaults", "cnn"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    given = parser.parse_args()
    if given.verb == "collect":
        collect(given.out)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    many = max(1, len(cores) // given.cores)
    free: Queue[list[int]] = Queue()
    for index in range(many):
        free.put(cores[index * given.cores : (index + 1) * given.cores])
    write_json(given.out / "machine.json", {"cpu": cpu_name(), "cores": given.cores, "minutes": given.minutes})
    with ThreadPoolExecutor(many) as pool:
        list(pool.map(lambda job: one(*job, given, free), [(way, s) for s in given.seeds for way in given.ways]))


if __name__ == "__main__":
    main()
