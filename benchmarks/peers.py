"""Train every system of the comparison on the digits, then compare them: what `make peers` runs.

    python benchmarks/peers.py [--stage train|compare]

Trainings run side by side, one thread each, into runs/peers; all of it is resumable. The comparison is that of
benchmarks/peers-digits.yaml; its table goes to benchmarks/results/peers-digits.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import write

from idc.comparing import read_comparison
from idc.report.comparison import read_rows, write_comparison

RUNS = Path("runs/peers")
FILE = Path(__file__).with_name("peers-digits.yaml")
TRAININGS = {
    "ddpm": ["train-peer", "ddpm", "--conditional", "true", "--epochs", "200", "--lr", "3e-3"],
    "trades": ["train-peer", "cnn", "--width", "8", "--method", "trades"],
    "pgd-at": ["train-peer", "cnn", "--width", "8", "--method", "pgd-at"],
    "idc-paper": ["train", "--ce-weight", "0", "--t-weights", "none"],
    "standard": ["train-peer", "cnn", "--width", "8", "--method", "standard"],
}


def _environment() -> dict[str, str]:
    """Of a program with one thread, outside of any torchrun."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    return kept | {"OMP_NUM_THREADS": "1"}


def train(name: str) -> float:
    """Train one system, or finish what was begun; its seconds."""
    out = RUNS / name
    if not (out / "summary.json").exists():
        command = [sys.executable, "-m", "idc.cli", *TRAININGS[name], "--data", "digits", "--out", str(out), "--resume"]
        with (RUNS / f"{name}.log").open("w") as log:
            subprocess.run(command, env=_environment(), check=True, stdout=log, stderr=log)
    seconds: float = json.loads((out / "summary.json").read_text())["seconds"]
    print(f"{name}: trained in {seconds:.0f} s", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["all", "train", "compare"], default="all")
    stage = parser.parse_args().stage
    RUNS.mkdir(parents=True, exist_ok=True)
    cores = os.cpu_count() or 1
    began = time.monotonic()
    with ThreadPoolExecutor(cores) as pool:
        seconds = dict(zip(TRAININGS, pool.map(train, TRAININGS), strict=True))
    print(f"all trained: {sum(seconds.values()):.0f} s of one core, now {time.monotonic() - began:.0f} s", flush=True)
    if stage == "train":
        return
    read_comparison(FILE)  # its mistakes are told once, not by every process
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(cores), "--master_port", "29631"]
    command = [*launch, "-m", "idc.cli", "compare", str(FILE), "--out", str(RUNS / "compare")]
    subprocess.run(command, env=_environment() | {"ACCELERATE_USE_CPU": "true"}, check=True)
    rows = read_rows(RUNS / "compare")
    write("peers-digits", "make peers", {"training_seconds": seconds, "rows": rows})
    for path in write_comparison(RUNS / "compare"):
        print(f"written: {path}")


if __name__ == "__main__":
    main()
