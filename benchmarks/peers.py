"""Train every system of the comparison on the digits, then compare them: what `make peers` runs.

    python benchmarks/peers.py [digits|cifar|robust] [--stage train|compare]

Trainings run side by side, one thread each, into runs/peers; so do the digits' evaluations, a process for each model
and protocol. The images of the others, which are more, are shared out over the processes instead; what they compare
is trained by hand. All of it is resumable. The comparison is that of benchmarks/peers-NAME.yaml; its table goes to
benchmarks/results/peers-NAME.json, its figure to docs/peers-NAME.png.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from common import CORES, RESULTS, alone, together, write

from idc.comparing import evaluate_one, read_comparison
from idc.memory import keep_freed_memory
from idc.report.comparison import write_comparison
from idc.report.results import read_rows

RUNS = Path("runs/peers")
ROOT = Path(__file__).parents[1]
TRAININGS = {
    "ddpm": ["train-peer", "ddpm", "--conditional", "true", "--epochs", "200", "--lr", "3e-3"],
    "trades": ["train-peer", "cnn", "--width", "8", "--method", "trades"],
    "pgd-at": ["train-peer", "cnn", "--width", "8", "--method", "pgd-at"],
    "idc-robust": ["train", "--recipe", str(ROOT / "recipes" / "idc-digits-robust.yaml")],
    "idc-paper": ["train", "--ce-weight", "0", "--t-weights", "none"],
    "standard": ["train-peer", "cnn", "--width", "8", "--method", "standard"],
}


def train(name: str) -> float:
    """Train one system, or finish what was begun; its seconds."""
    out = RUNS / name
    if not (out / "summary.json").exists():
        command = [sys.executable, "-m", "idc.cli", *TRAININGS[name], "--data", "digits", "--out", str(out), "--resume"]
        with (RUNS / f"{name}.log").open("w") as log:
            subprocess.run(command, env=alone(), check=True, stdout=log, stderr=log)
    print(f"{name}: trained in {trained_in(name):.0f} s", flush=True)
    return trained_in(name)


def trained_in(name: str) -> float:
    """Seconds of a training that is done."""
    seconds: float = json.loads((RUNS / name / "summary.json").read_text())["seconds"]
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["digits", "cifar", "robust"], nargs="?", default="digits")
    parser.add_argument("--stage", choices=["all", "train", "compare"], default="all")
    parser.add_argument("--only", nargs=2, metavar=("MODEL", "PROTOCOL"), help="evaluate this part in this process")
    given = parser.parse_args()
    if given.only:
        evaluate_part(given.name, *given.only)
        return
    if given.name == "digits" and given.stage != "compare":
        train_all()
    if given.stage != "train":
        compare(given.name)


def train_all() -> None:
    """Every system of the digits."""
    RUNS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with ThreadPoolExecutor(CORES) as pool:
        seconds = sum(pool.map(train, TRAININGS))
    print(f"all trained: {seconds:.0f} s of one core, now {time.monotonic() - began:.0f} s", flush=True)


def compare(name: str) -> None:
    """The comparison of that name; its table."""
    file, out = plan(name)
    comparison = read_comparison(file)  # its mistakes are told once, not by every process
    if name == "digits":
        # The dearest are the last of the file; begun first, they do not keep the others waiting.
        parts = [(entry, p) for entry in reversed(comparison.entries) for p in comparison.protocols_of(entry)]
        with ThreadPoolExecutor(CORES) as pool:
            begun = [pool.submit(start_part, name, entry.name, protocol) for entry, protocol in parts]
            for part in as_completed(begun):
                if part.exception():
                    pool.shutdown(wait=False, cancel_futures=True)
                part.result()
    launch, environment = together(1 if name == "digits" else CORES)
    subprocess.run([*launch, "idc.cli", "compare", str(file), "--out", str(out)], env=environment, check=True)
    made = "make peers" if name == "digits" else f"python benchmarks/peers.py {name}"
    trained = {run: trained_in(run) for run in TRAININGS} if name == "digits" else {}
    write(f"peers-{name}", made, {"training_seconds": trained, "rows": read_rows(out)})
    for path in write_comparison(out):
        print(f"written: {path}")
    shutil.copyfile(out / "figure.png", ROOT / "docs" / f"peers-{name}.png")


def plan(name: str) -> tuple[Path, Path]:
    """The comparison's file and the folder of its results."""
    return Path(__file__).with_name(f"peers-{name}.yaml"), RESULTS / f"peers-{name}"


def start_part(name: str, model: str, protocol: str) -> None:
    """A process for ``evaluate_part``."""
    environment = alone() | {"ACCELERATE_USE_CPU": "true"}
    subprocess.run([sys.executable, __file__, name, "--only", model, protocol], env=environment, check=True)
    print(f"{model}: {protocol} done", flush=True)


def evaluate_part(name: str, model: str, protocol: str) -> None:
    """One model under one protocol, at every radius."""
    file, out = plan(name)
    comparison = read_comparison(file)
    entry = next(entry for entry in comparison.entries if entry.name == model)
    for eps in sorted(comparison.eps, reverse=True):
        evaluate_one(comparison, entry, protocol, eps, out)


if __name__ == "__main__":
    keep_freed_memory()
    main()
