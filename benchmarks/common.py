"""What benchmarks share: processes, and figures with the hardware they were measured on."""

import argparse
import os
import platform
import socket
import sys
import tarfile
from pathlib import Path
from typing import Any

import torch

from idc import __version__
from idc.evaluation.pairing import survived
from idc.evaluation.summary import LINES, read_lines, summarise_lines
from idc.report.rows import made_checks
from idc.storage.files import make_folder, whole_file, write_json
from idc.storage.records import read_json
from idc.text import share

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
UNPACKED = ROOT / "runs" / "results"
CIFAR = "CIFAR-10 (JPEG-75)"
MODELS = {"digits": str(ROOT / "models" / "digits"), "nano": "idc-nano-cifar10"}
ROUNDED = (  # said of results that do not record a model in the package
    "`nano` was measured with its float32 weights, before they were rounded to bf16 for the package as "
    "`idc-nano-cifar10`."
)
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write(name: str, command: str, figures: dict[str, Any]) -> Path:
    """Write ``benchmarks/results/NAME.json``."""
    make_folder(RESULTS)
    write_json(RESULTS / f"{name}.json", {"hardware": {"command": command} | hardware()} | figures)
    return RESULTS / f"{name}.json"


def hardware() -> dict[str, Any]:
    """The machine that a result is of, and the versions."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "idc": __version__,
    }


def records_of(name: str) -> Path:
    """runs/results/NAME, the folder of a comparison: as it is, or with the records that benchmarks/results/NAME.tar.xz
    keeps."""
    folder, kept = UNPACKED / name, RESULTS / f"{name}.tar.xz"
    if not folder.exists() and kept.exists():
        UNPACKED.mkdir(parents=True, exist_ok=True)
        with tarfile.open(kept) as archive:
            archive.extractall(UNPACKED, filter="data")
    return folder


def keep_records(name: str) -> None:
    """Write that archive: records alone, no pictures, images or weights; the same bytes for the same records."""
    with whole_file(RESULTS / f"{name}.tar.xz") as part, tarfile.open(part, "w:xz", preset=9) as archive:
        for file in sorted((UNPACKED / name).rglob("*")):
            if file.suffix in (".json", ".jsonl", ".csv", ".md"):
                archive.add(file, file.relative_to(UNPACKED), filter=_nobodys)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def of_images(folder: Path) -> dict[str, str]:
    """For a result's file: the ids of an evaluation's images and, a character each, whether they survive the attack."""
    right = survived(read_lines(folder))
    return {"ids": " ".join(map(str, right)), "survived": "".join("01"[v] for v in right.values())}


def survivors(row: dict[str, Any]) -> dict[int, bool]:
    """What ``of_images`` put into a result's file, by image."""
    return {int(i): s == "1" for i, s in zip(row["ids"].split(), row["survived"], strict=True)}


def together(processes: int) -> tuple[list[str], dict[str, str]]:
    """The beginning of a command line that runs a module in so many processes, and its environment: one process has
    all threads, or the GPU; several have one thread each on the CPU."""
    if processes == 1:
        return [sys.executable, "-m"], outside()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", port]
    return [*launch, "-m"], alone() | {"ACCELERATE_USE_CPU": "true"}


def alone() -> dict[str, str]:
    """The environment of a program with one thread, beside others."""
    return outside() | {"OMP_NUM_THREADS": "1"}


def outside() -> dict[str, str]:
    """The environment outside of any torchrun."""
    return {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}


def model_arguments(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of a benchmark of one model on some data, described by ``doc``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--name", required=True, help="of the result")
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-name", help="what the record calls the data")
    parser.add_argument("--eps", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=512)
    return parser


def counted_checks(summary: dict[str, Any]) -> dict[str, int]:
    """How many of its sanity checks were ``made``, and how many of these ``passed``."""
    own = made_checks(summary)
    return {"made": len(own), "passed": sum(bool(check["passed"]) for check in own)}


def summary_so_far(out: Path) -> dict[str, Any]:
    """The summary of an evaluation; before that, of the images that have finished, without its checks; {} of none."""
    if (out / "summary.json").exists():
        return read(out / "summary.json")
    if not any(out.glob(f"{LINES}-*.jsonl")):
        return {}
    lines = read_lines(out)
    return summarise_lines(lines, [""] * (1 + max(line["class"] for line in lines)))


def read(path: Path) -> dict:
    found: dict = read_json(path, "run the benchmark that writes it")
    return found


def mark_of(evaluated: dict) -> str:
    """What follows the figures of an evaluation of which a sanity check failed, as `idc report` has it."""
    checks = evaluated.get("checks", {"made": 0, "passed": 0})
    believed = evaluated.get("reliable", not evaluated.get("failed")) and checks["passed"] == checks["made"]
    return "" if believed else " (unreliable)"


def share_of(evaluated: dict) -> str:
    """Robust accuracy, as the mean of draws, of what an evaluation found; with its mark."""
    return share(evaluated["robust"]["mean"]) + mark_of(evaluated)


def article(name: str) -> str:
    return ("an " if name[:1] in "AEIOU" else "a ") + name
