"""All that wants a GPU, in order of worth, in the time for which one is at hand.

    python benchmarks/gpu.py run --seconds 780 [--data D] [--out runs/gpu] [--only JOB ...]
    python benchmarks/gpu.py list [--out runs/gpu]

Each job is a command that goes on where it was stopped, and has a limit of its own. It is asked to stop when its limit
or the time of all is over. The first shows in a few seconds whether the machine can do anything at all; if it fails,
nothing else is begun. What jobs have made lies in OUT, and after each of them in OUT.tgz, but for files above 12 MB:
unpacked on the next machine, it is gone on with. `--rehearse` does all of them on two images with a small model, for
which a CPU will do.
"""

import argparse
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import CIFAR, outside

from idc.storage.files import write_json

LARGEST = 12_000_000  # bytes of a file that is packed
GRACE = 15  # seconds in which a job that was asked to stop puts away what it has
THIN = "models/cifar10-thin-pgd-at"
PAPER = "models/idc-base-cifar10"
SMALL = "idc-nano-cifar10"


@dataclass(frozen=True)
class Job:
    """An evaluation.

    Args:
        seconds: that it may take.
        model, protocol, eps, limit, block, batch, compile: as of ``idc evaluate``.
    """

    name: str
    seconds: int
    model: str
    protocol: str
    eps: str
    limit: int
    block: int
    batch: int
    compile: bool = False

    def command(self, data: str, out: Path, *, rehearsal: bool = False) -> list[str]:
        """Its command line; in a rehearsal that of a small model, on two images."""
        model, limit = (SMALL, 2) if rehearsal else (self.model, self.limit)
        given = ["--protocol", self.protocol, "--eps", self.eps, "--limit", limit, "--block", min(limit, self.block)]
        device = [] if rehearsal else ["--precision", "bf16", "--batch-size", self.batch]
        compiled = ["--compile"] if self.compile and not rehearsal else []
        started = [sys.executable, "-m", "idc.cli", "evaluate", model, "--data", data, "--data-name", CIFAR]
        return [str(part) for part in (*started, *given, *device, *compiled, "--out", out / self.name)]


def paper(name: str, seconds: int, protocol: str, eps: str, *, compile: bool = False) -> Job:
    """An evaluation of the paper's network, whose gradient takes 512 images of an H100's memory at once."""
    return Job(name, seconds, PAPER, protocol, eps, 512, 512, 512, compile)


def whole(name: str, model: str) -> Job:
    """All test images, of a network so small that only thousands of images fill a GPU."""
    return Job(name, 180, model, "adaptive", "8/255", 10_000, 5_000, 5_000)


JOBS = (
    Job("smoke", 90, PAPER, "pgd", "8/255", 32, 32, 512),
    paper("base-adaptive-8", 200, "adaptive", "8/255"),
    whole("nano-robust-adaptive-8", "idc-nano-cifar10-robust"),
    whole("thin-adaptive-8", THIN),
    whole("nano-adaptive-8", SMALL),
    paper("base-adaptive-4", 150, "adaptive", "4/255"),
    paper("base-adaptive-2", 150, "adaptive", "2/255"),
    # Fifty steps of fifteen draws, and a thousand of Carlini and Wagner's: enough to pay for compiling.
    paper("base-paper-8", 400, "paper", "8/255", compile=True),
)


def is_done(job: Job, out: Path) -> bool:
    return (out / job.name / "summary.json").exists()


def run(
    jobs: Sequence[Job], data: str, out: Path, seconds: float, *, rehearsal: bool = False
) -> list[dict[str, object]]:
    """Do what is not yet done, in order; the rows of ``OUT/gpu.json``: name, seconds, state, last words."""
    end, rows = time.monotonic() + seconds, []
    for job in jobs:
        left = min(float(job.seconds), end - time.monotonic() - GRACE)
        if is_done(job, out) or left <= 0:
            continue
        began = time.monotonic()
        state, said = attend(job.command(data, out, rehearsal=rehearsal), left, out / f"{job.name}.log")
        rows.append({"job": job.name, "seconds": round(time.monotonic() - began, 1), "state": state, "said": said})
        print(rows[-1], flush=True)
        write_json(out / "gpu.json", {"rows": rows})
        pack(out)
        if job.name == "smoke" and state != "done":
            raise SystemExit(f"nothing else is begun: see {out / job.name}.log")
    return rows


def attend(command: list[str], seconds: float, log: Path) -> tuple[str, str]:
    """Run a command for so long at most: done, stopped or failed, and the last line that it said."""
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=outside())
        try:
            state = "failed" if process.wait(seconds) else "done"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            state = "stopped"
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").split()
    return state, " ".join(lines)[-300:]


def pack(out: Path) -> None:
    """All that is small enough, into ``OUT.tgz``."""
    part = out.with_suffix(".part")
    with tarfile.open(part, "w:gz") as archive:
        for file in sorted(out.rglob("*")):
            if file.is_file() and file.stat().st_size <= LARGEST:
                archive.add(file, file.relative_to(out.parent))
    part.replace(out.with_suffix(".tgz"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "list"])
    parser.add_argument("--seconds", type=float, default=780.0)
    parser.add_argument("--data", default="runs/cifar10-jpeg")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--only", nargs="+", choices=[job.name for job in JOBS], default=[job.name for job in JOBS])
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    jobs = [job for job in JOBS if job.name in given.only]
    if given.verb == "list":
        for job in jobs:
            print(f"{job.name:24} {job.seconds:4} s  {'done' if is_done(job, given.out) else 'waits'}")
        return
    given.out.mkdir(parents=True, exist_ok=True)
    run(jobs, given.data, given.out, given.seconds, rehearsal=given.rehearse)


if __name__ == "__main__":
    main()
