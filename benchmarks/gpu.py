"""All that wants a GPU, in order of worth, in the time for which one is at hand.

    python benchmarks/gpu.py run --seconds 780 [--data D] [--out runs/gpu] [--only JOB ...]
    python benchmarks/gpu.py list [--out runs/gpu]
    python benchmarks/gpu.py collect [--out runs/gpu]      # to benchmarks/results/gpu.json

Each job is a command that goes on where it was stopped, and has a limit of its own. It is asked to stop when its limit
or the time of all is over. The first shows in a few seconds whether the machine can do anything at all; if it fails,
nothing else is begun. The others run several at once (`--together`): an attack on the few images that are left waits
for the processor more than for the GPU. What jobs have made lies in OUT, and after each of them in OUT.tgz, but for
files above 12 MB: unpacked on the next machine, it is gone on with. `--rehearse` does all of them on two images with a
small model, for which a CPU will do.
"""

import argparse
import json
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from common import CIFAR, RESULTS, outside, read

from idc.evaluation.pairing import paired, survived
from idc.evaluation.summary import COSTS, LINES
from idc.evaluation.verdict import wilson
from idc.storage import records
from idc.storage.fields import recorded
from idc.storage.files import write_json
from idc.storage.tensor_file import load_tensors

LARGEST = 12_000_000  # bytes of a file that is packed
GRACE = 15  # seconds in which a job that was asked to stop puts away what it has
THIN = "models/cifar10-thin-pgd-at"
SLIM = "models/cifar10-slim-pgd-at"
PAPER = "models/idc-base-cifar10"
SMALL = "idc-nano-cifar10"
FIRST = "smoke"
PAIRS = (("nano-robust-adaptive-8", "thin-adaptive-8"),)  # compared image by image


@dataclass(frozen=True)
class Job:
    """An evaluation.

    Args:
        seconds: that it may take.
        model, protocol, eps, limit, block, batch, data: as of ``idc evaluate``; by default the data of all jobs.
        more: of its flags.
    """

    name: str
    seconds: int
    model: str
    protocol: str
    eps: str
    limit: int
    block: int
    batch: int
    data: str = ""
    more: tuple[str, ...] = ()

    def command(self, data: str, out: Path, *, rehearsal: bool = False) -> list[str]:
        """Its command line; in a rehearsal that of a small model, on two images."""
        model, limit = (SMALL if not self.data else self.model, 2) if rehearsal else (self.model, self.limit)
        given = ["--protocol", self.protocol, "--eps", self.eps, "--limit", limit, "--block", min(limit, self.block)]
        device = [] if rehearsal else ["--precision", "bf16", "--batch-size", self.batch]
        images = [self.data] if self.data else [data, "--data-name", CIFAR]
        started = [sys.executable, "-m", "idc.cli", "evaluate", model, "--data", *images]
        return [str(part) for part in (*started, *given, *device, *self.more, "--out", out / self.name)]


def paper(name: str, seconds: int, protocol: str, eps: str, block: int = 512) -> Job:
    """An evaluation of the paper's network, whose gradient takes 512 images of an H100's memory at once."""
    return Job(name, seconds, PAPER, protocol, eps, 512, block, 512)


def whole(name: str, model: str) -> Job:
    """All test images, of a network so small that only thousands of images fill a GPU."""
    return Job(name, 400, model, "adaptive", "8/255", 10_000, 5_000, 5_000)


def beside(name: str, model: str, eps: str, data: str = "") -> list[Job]:
    """The same images under our protocol and under AutoAttack's library: see ``benchmarks/parity.py``."""
    return [Job(f"{name}-{own}", 300, model, own, eps, 512, 512, 512, data) for own in ("adaptive", "autoattack")]


def figure_4() -> list[Job]:
    """The paper's figure 4 with its network: PGD over steps and over eps, along the published probabilities (with fresh
    noise in each step) and along the one-step answer's inner products; other visits. What figure 4b compares, with and
    without the inter-class loss, has to be trained first: ``full_size.py paper-losses``."""
    found = []
    for line, function in (("published", "published"), ("smooth", "one-step-inner")):
        for steps in ("10", "40", "200"):  # 20 are those of base-paper-8 and of the job below
            job = paper(f"base-{line}-steps-{steps}", 200, "pgd", "8/255")
            found.append(replace(job, more=("--steps", steps, "--surrogate", function)))
        for eps in ("1", "2", "4", "8"):
            job = paper(f"base-{line}-eps-{eps}", 100, "pgd", f"{eps}/255")
            found.append(replace(job, more=("--surrogate", function)))
    quick = [("3", "3"), ("3-0", "3,0"), ("3-2-1-0", "3,2,1,0")]
    visits = [replace(paper(f"base-visits-{n}", 150, "quick", "8/255"), more=("--visits", v)) for n, v in quick]
    return [*found, *visits]


JOBS = (
    Job(FIRST, 90, PAPER, "pgd", "8/255", 32, 32, 512),
    paper("base-adaptive-8", 400, "adaptive", "8/255"),
    # Fifty steps of fifteen draws, and a thousand of Carlini and Wagner's: in blocks, so that some are whole.
    paper("base-paper-8", 600, "paper", "8/255", 128),
    whole("nano-robust-adaptive-8", "idc-nano-cifar10-robust"),
    whole("thin-adaptive-8", THIN),
    whole("nano-adaptive-8", SMALL),
    *beside("parity-digits-robust", "idc-digits-robust", "0.1", "digits"),
    *beside("parity-nano-robust", "idc-nano-cifar10-robust", "8/255"),
    *beside("parity-slim", SLIM, "8/255"),
    *beside("parity-thin", THIN, "8/255"),
    paper("base-adaptive-4", 300, "adaptive", "4/255"),
    paper("base-adaptive-2", 300, "adaptive", "2/255"),
    *figure_4(),
)


def is_done(job: Job, out: Path) -> bool:
    return (out / job.name / "summary.json").exists()


def run(
    jobs: Sequence[Job], data: str, out: Path, seconds: float, *, rehearsal: bool = False, together: int = 1
) -> list[dict[str, object]]:
    """Do what is not yet done, begun in order, so many at once; the rows of ``OUT/gpu.json``: job, seconds, state, last
    words."""
    end, lock, rows = time.monotonic() + seconds, Lock(), []

    def one(job: Job) -> None:
        began = time.monotonic()
        left = min(float(job.seconds), end - began - GRACE)
        if left <= 0:
            return
        state, said = attend(job.command(data, out, rehearsal=rehearsal), left, out / f"{job.name}.log")
        with lock:
            rows.append({"job": job.name, "seconds": round(time.monotonic() - began, 1), "state": state, "said": said})
            print(rows[-1], flush=True)
            write_json(out / "gpu.json", {"rows": rows})
            pack(out)
        if job.name == FIRST and state != "done":
            raise SystemExit(f"nothing else is begun: see {out / job.name}.log")

    wanted = [job for job in jobs if not is_done(job, out)]
    for job in wanted:
        if job.name == FIRST:
            one(job)
    with ThreadPoolExecutor(together) as pool:
        list(pool.map(one, (job for job in wanted if job.name != FIRST)))
    pack(out)
    return rows


def collect(out: Path) -> None:
    """What the jobs in ``out`` have come to: ``benchmarks/results/gpu.json``; rows of jobs that it has not stay."""
    file = RESULTS / "gpu.json"
    rows = {row["job"]: row for row in read(file)["rows"]} if file.exists() else {}
    for job in JOBS:
        partial = next(iter(sorted((out / job.name).glob("partial-*.safetensors"))), out)
        asked = {"job": job.name, "model": job.model, "protocol": job.protocol, "eps": job.eps, "images": job.limit}
        if is_done(job, out):
            held = read(out / job.name / "summary.json")
            keys = ("clean", "robust", "attacks", "reliable", "cost")
            failed = [f"{c['name']}: {c['figure']}" for c in held.get("sanity", []) if not c["passed"]]
            rows[job.name] = asked | {"state": "done"} | {key: held[key] for key in keys if key in held}
            rows[job.name]["failed"] = failed
        elif lines := list(records.finished(out / job.name, LINES).values()):
            rows[job.name] = asked | {"state": "not finished", "finished": len(lines)} | _figures(lines)
            checks = records.read(out / job.name / "sanity.jsonl")
            rows[job.name]["checks"] = {"made": len(checks), "passed": sum(bool(c["passed"]) for c in checks)}
            costs = records.read_all(out / job.name, f"{COSTS}-*.jsonl", "block").values()
            rows[job.name]["seconds"] = sum(sum(block["seconds"].values()) for block in costs)
        elif partial != out:
            tensors, about = load_tensors(partial)
            values = json.loads(about["values"])
            right = wilson((tensors["right"] > 0).double().mean().item(), len(tensors["right"]))
            done = {
                "finished": 0,
                "block": int(partial.stem[-6:]),
                "attacks_done": list(values["judged"]),
                "seconds": values["seconds"],
                "some_draw_right": recorded(right),
            }
            rows[job.name] = asked | {"state": "not finished"} | done
    pairs = {r["first"]: r for r in read(file).get("pairs", [])} if file.exists() else {}
    for first, second in PAIRS:
        both = [list(records.finished(out / name, LINES).values()) for name in (first, second)]
        if all(both):
            found = recorded(paired(*(survived(lines) for lines in both)))
            pairs[first] = {"first": first, "second": second} | found
    whole = {"command": "python benchmarks/gpu.py collect", "data": CIFAR}
    write_json(file, whole | {"rows": list(rows.values()), "pairs": list(pairs.values())})


def _figures(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean share of right draws of images that are done: clean, after each attack, on the worst example."""

    def mean(pairs: Sequence[Sequence[int] | None]) -> dict[str, Any]:
        shares = [pair[0] / line["draws"] if pair else 0.0 for pair, line in zip(pairs, lines, strict=True)]
        return {"mean": recorded(wilson(sum(shares) / len(lines), len(lines)))}

    attacks = {name: mean([line["attacks"][name] for line in lines]) for name in lines[0]["attacks"]}
    return {kind: mean([line[kind] for line in lines]) for kind in ("clean", "robust")} | {"attacks": attacks}


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
            with suppress(OSError):  # of a job that goes on meanwhile
                if file.is_file() and file.name[0] != "." and file.stat().st_size <= LARGEST:
                    archive.add(file, file.relative_to(out.parent))
    part.replace(out.with_suffix(".tgz"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "list", "collect"])
    parser.add_argument("--seconds", type=float, default=780.0)
    parser.add_argument("--data", default="runs/cifar10-jpeg")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--only", nargs="+", choices=[job.name for job in JOBS], default=[job.name for job in JOBS])
    parser.add_argument("--together", type=int, default=4)
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    jobs = [job for job in JOBS if job.name in given.only]
    if given.verb == "list":
        for job in jobs:
            print(f"{job.name:24} {job.seconds:4} s  {'done' if is_done(job, given.out) else 'waits'}")
        return
    if given.verb == "collect":
        collect(given.out)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    run(jobs, given.data, given.out, given.seconds, rehearsal=given.rehearse, together=given.together)


if __name__ == "__main__":
    main()
