"""Train every system of a comparison, then compare them; on the digits it is what `make peers` runs.

    python benchmarks/peers.py [digits|digits-robust|cifar|cifar-16|robust|full-size]
                              [--stage train|compare|table] [--only MODEL PROTOCOL]

Trainings run side by side, one thread each, into runs/peers; so do evaluations, a process for each model and protocol.
All of it is resumable. The records of the comparison, a line an image, are in runs/results/peers-NAME, and kept in
benchmarks/results/peers-NAME.tar.xz; what was trained on CIFAR-10 is in models/: its comparisons go on in another clone
too. The comparison is that of
benchmarks/peers-NAME.yaml; its table goes to benchmarks/results/peers-NAME.json, its figure to docs/peers-NAME.png.
`--stage table` makes both of what has finished.
CIFAR-10 is read from runs/cifar10-jpeg, the CIFAR-10 (JPEG-75) parquet folder.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, cast

from common import CIFAR, CORES, RESULTS, alone, keep_records, read, records_of, write

from idc import IDC
from idc.commands.compare import Comparison, evaluate_one, finished_rows, read_comparison, write_rows
from idc.commands.opening import open_model
from idc.compute.memory import keep_freed_memory
from idc.peers.cnn import CNN
from idc.peers.diffusion import Diffusion
from idc.report.comparison import write_comparison
from idc.storage.model_folder import CONFIG
from idc.text import eps_text

RUNS = Path("runs/peers")
ROOT = Path(__file__).parents[1]
CIFAR_DATA = "runs/cifar10-jpeg"
_CNN = ["train-peer", "cnn", "--method"]
_PLAIN = [*_CNN, "pgd-at", "--width", "8"]
# As idc-digits-robust: its eps, its attack, its epochs, shifts and validations.
_AS_LONG = ["--eps", "0.125", "--attack-steps", "5", "--attack-step", "0.0625", "--epochs", "150", "--crop", "4",
            "--validate-every", "50"]  # fmt: skip
_SMALL = ["--image-size", "16"]
_SLIM = ["pgd-at", "--attack-steps", "2", "--attack-step", "5/255", "--validation-limit", "1000"]
_MUON = ["--optimizer", "muon", "--lr", "0.004", "--weight-decay", "0.05", "--warmup", "0.1", "--clip-norm", "1",
         "--ema-decay", "0.998"]  # fmt: skip
# As recipes/idc-nano-cifar10-distilled.yaml.
_TAUGHT = ["--rectify", "1,1", "--rectify-temperature", "2,2", "--teachers",
           "idc-nano-cifar10-robust-v2,models/cifar10-thin-muon-pgd-at,models/idc-small-cifar10-robust"]  # fmt: skip
# As recipes/idc-nano-cifar10-mixed.yaml.
_MIXED = ["--rectify", "1,1", "--rectify-temperature", "2,2", "--mix", "cutmix", "--mix-rate", "0.5", "--teachers",
          "idc-nano-cifar10-distilled,models/cifar10-thin-distilled,models/idc-small-cifar10-robust"]  # fmt: skip
_ON = ["--from", "models/cifar10-thin-distilled", "--epochs", "32", "--validate-every", "2"]
TRAININGS = {
    "digits": {
        "ddpm": ["train-peer", "ddpm", "--conditional", "--epochs", "200", "--lr", "3e-3"],
        "trades": [*_CNN, "trades", "--width", "8"],
        "pgd-at": _PLAIN,
        "idc-robust": ["train", "--recipe", str(ROOT / "recipes" / "idc-digits-robust.yaml")],
        "idc-paper": ["train", "--ce-weight", "0", "--t-weights", "none"],
        "standard": [*_CNN, "standard", "--width", "8"],
    },
    "digits-robust": {
        "pgd-at-long": [*_PLAIN, *_AS_LONG],
        "pgd-at": _PLAIN,
    },
    # About the FLOPs of nano's chain of three passes, and more than its training time (2,107 s on two cores).
    "cifar": {"slim": [*_CNN, *_SLIM, "--width", "32", "--epochs", "11.5", "--ema-decay", "0.98"]},
    # At 16x16, where a CPU trains a diffusion model. The IDC as recipes/idc-nano-cifar10.yaml, for 24 epochs; and by
    # the published recipe, which is also what `paper.py run --only recipes-nano-16` trains.
    "cifar-16": {
        "ddpm-16": ["train-peer", "ddpm", *_SMALL, "--network", "nano", "--conditional", "--epochs", "35", "--compile"],
        "standard-16": [*_CNN, "standard", *_SMALL, "--width", "16"],
        "idc-16": ["train", *_SMALL, "--recipe", "fast", "--preset", "nano", "--epochs", "24", "--compile"],
        "idc-16-published": ["train", "--recipe", str(ROOT / "recipes" / "paper" / "published.yaml"), "--compile"],
    },
    # Both are trained by benchmarks/full_size.py, on a GPU.
    "full-size": {},
    # About the FLOPs of idc-nano-cifar10-robust (7% more) and its seconds of training, beside it: 35 epochs, not 24.
    # The second by the optimiser, rate and average of idc-nano-cifar10-robust-v2, of whose 44 epochs the 20th was kept.
    "robust": {
        "thin": [*_CNN, *_SLIM, "--width", "16", "--epochs", "35", "--validate-every", "4"],
        "thin-muon": [*_CNN, *_SLIM, "--width", "16", "--epochs", "24", "--validate-every", "4", *_MUON],
        "thin-distilled": [*_CNN, *_SLIM, "--width", "16", "--epochs", "24", "--validate-every", "3", *_MUON, *_TAUGHT],
        "thin-mixed": [*_CNN, *_SLIM, *_ON, *_MUON, *_MIXED],
    },
}
KEPT = {
    "slim": ROOT / "models" / "cifar10-slim-pgd-at",
    "thin": ROOT / "models" / "cifar10-thin-pgd-at",
    "thin-muon": ROOT / "models" / "cifar10-thin-muon-pgd-at",
    "thin-distilled": ROOT / "models" / "cifar10-thin-distilled",
    "thin-mixed": ROOT / "models" / "cifar10-thin-mixed",
    "ddpm-16": ROOT / "models" / "cifar10-16-ddpm",
    "standard-16": ROOT / "models" / "cifar10-16-standard",
    "idc-16": ROOT / "models" / "cifar10-16-idc",
    "idc-16-published": ROOT / "models" / "cifar10-16-idc-published",
}


def train(name: str, run: str) -> float:
    """Train one system of a comparison, or finish what was begun; its seconds."""
    out = RUNS / run
    if not (out / "summary.json").exists():
        data = "digits" if name.startswith("digits") else CIFAR_DATA
        own = [*TRAININGS[name][run], "--data", data, "--out", str(out), "--resume"]
        with (RUNS / f"{run}.log").open("w") as log:
            subprocess.run([sys.executable, "-m", "idc.cli", *own], env=alone(), check=True, stdout=log, stderr=log)
    if run in KEPT:
        keep(out, KEPT[run])
    print(f"{run}: trained in {trained_in(run):.0f} s", flush=True)
    return trained_in(run)


def keep(run: Path, folder: Path) -> None:
    """What was trained on CIFAR-10, half the size, where a clone has it."""
    diffusion = "ddpm" in run.name  # no classifier: not opened by its run
    model = Diffusion.from_pretrained(run / "best") if diffusion else cast(CNN | IDC, open_model(str(run)))
    model.card = model.card | {"Data": CIFAR}
    model.save_pretrained(folder, dtype="bf16")


def trained_in(run: str) -> float:
    """Seconds of a training that is done."""
    seconds: float = json.loads((RUNS / run / "summary.json").read_text())["seconds"]
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(TRAININGS), nargs="?", default="digits")
    parser.add_argument("--stage", choices=["all", "train", "compare", "table"], default="all")
    parser.add_argument("--only", nargs=2, metavar=("MODEL", "PROTOCOL"), help="evaluate this part in this process")
    given = parser.parse_args()
    if given.only:
        evaluate_part(given.name, *given.only)
        return
    if given.stage in ("all", "train"):
        train_all(given.name)
    if given.stage in ("all", "compare"):
        compare(given.name)
    if given.stage != "train":
        tabulate(given.name)


def train_all(name: str) -> None:
    """Every system of a comparison that is not there."""
    RUNS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    wanted = [run for run in TRAININGS[name] if run not in KEPT or not (KEPT[run] / CONFIG).exists()]
    with ThreadPoolExecutor(CORES) as pool:
        seconds = sum(pool.map(partial(train, name), wanted))
    print(f"all trained: {seconds:.0f} s of one core, now {time.monotonic() - began:.0f} s", flush=True)


def compare(name: str) -> None:
    """Every cell of the comparison of that name."""
    file, _ = plan(name)
    comparison = read_comparison(file)  # its mistakes are told once, not by every process
    # The dearest are the last of the file; begun first, they do not keep the others waiting.
    parts = [(entry, p) for entry in reversed(comparison.entries) for p in comparison.protocols_of(entry)]
    with ThreadPoolExecutor(CORES) as pool:
        begun = [pool.submit(start_part, name, entry.name, protocol) for entry, protocol in parts]
        for part in as_completed(begun):
            if part.exception():
                pool.shutdown(wait=False, cancel_futures=True)
            part.result()


def tabulate(name: str) -> None:
    """The table and the figure of what has finished."""
    file, out = plan(name)
    comparison = read_comparison(file)
    rows = finished_rows(comparison, out)
    if not rows:
        print(f"nothing of {file.name} has finished")
        return
    pairs = write_rows(rows, out)
    made = "make peers" if name == "digits" else f"python benchmarks/peers.py {name}"
    known = RESULTS / f"peers-{name}.json"  # trainings may have been another clone's
    trained = read(known)["training_seconds"] if known.exists() else {}
    trained |= {run: trained_in(run) for run in TRAININGS[name] if (RUNS / run / "summary.json").exists()}
    write(f"peers-{name}", made, {"training_seconds": trained, "lacking": lacking(comparison, rows), "rows": rows,
                                "pairs": pairs})  # fmt: skip
    for path in write_comparison(out):
        print(f"written: {path}")
    shutil.copyfile(out / "figure.png", ROOT / "docs" / f"peers-{name}.png")
    keep_records(out.name)


def lacking(comparison: Comparison, rows: list[dict[str, Any]]) -> list[str]:
    """What has not finished: a text for each model and protocol."""
    done = {(r["name"], protocol, r["eps"]) for r in rows for protocol in r["protocols"]}
    found = []
    for entry in comparison.entries:
        for protocol in comparison.protocols_of(entry):
            if left := [eps_text(eps) for eps in comparison.eps if (entry.name, protocol, eps) not in done]:
                found.append(f"{entry.name} under {protocol} at {', '.join(left)}")
    return found


def plan(name: str) -> tuple[Path, Path]:
    """The comparison's file and the folder of its results."""
    return Path(__file__).with_name(f"peers-{name}.yaml"), records_of(f"peers-{name}")


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
