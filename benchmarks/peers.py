"""Train every system of the comparison on the digits, then compare them: what `make peers` runs.

    python benchmarks/peers.py [digits|cifar] [--stage train|compare]

Trainings run side by side, one thread each, into runs/peers; all of it is resumable. The comparison is that of
benchmarks/peers-NAME.yaml; its table goes to benchmarks/results/peers-NAME.json. What `cifar` compares
is trained by hand.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import CORES, alone, together, write

from idc.comparing import read_comparison
from idc.report.comparison import read_rows, write_comparison

RUNS = Path("runs/peers")
TRAININGS = {
    "ddpm": ["train-peer", "ddpm", "--conditional", "true", "--epochs", "200", "--lr", "3e-3"],
    "trades": ["train-peer", "cnn", "--width", "8", "--method", "trades"],
    "pgd-at": ["train-peer", "cnn", "--width", "8", "--method", "pgd-at"],
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
    seconds: float = json.loads((out / "summary.json").read_text())["seconds"]
    print(f"{name}: trained in {seconds:.0f} s", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["digits", "cifar"], nargs="?", default="digits")
    parser.add_argument("--stage", choices=["all", "train", "compare"], default="all")
    given = parser.parse_args()
    seconds = train_all() if given.name == "digits" and given.stage != "compare" else {}
    if given.stage != "train":
        compare(given.name, seconds)


def train_all() -> dict[str, float]:
    """Every system of the digits; seconds by name."""
    RUNS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with ThreadPoolExecutor(CORES) as pool:
        seconds = dict(zip(TRAININGS, pool.map(train, TRAININGS), strict=True))
    print(f"all trained: {sum(seconds.values()):.0f} s of one core, now {time.monotonic() - began:.0f} s", flush=True)
    return seconds


def compare(name: str, seconds: dict[str, float]) -> None:
    """The comparison of that name, one process a core."""
    file, out = Path(__file__).with_name(f"peers-{name}.yaml"), RUNS / f"compare-{name}"
    read_comparison(file)  # its mistakes are told once, not by every process
    launch, environment = together(CORES)
    command = [*launch, "idc.cli", "compare", str(file), "--out", str(out)]
    subprocess.run(command, env=environment, check=True)
    made = "make peers" if name == "digits" else f"python benchmarks/peers.py {name}"
    write(f"peers-{name}", made, {"training_seconds": seconds, "rows": read_rows(out)})
    for path in write_comparison(out):
        print(f"written: {path}")


if __name__ == "__main__":
    main()
