"""All that wants a GPU, in order of worth, in the time for which one is at hand.

    python benchmarks/gpu.py run --seconds 780 [--data D] [--out runs/gpu] [--only JOB ...]
    python benchmarks/gpu.py list [--out runs/gpu]
    python benchmarks/gpu.py keep --only TRAINING          # its weights, into OUT/TRAINING/kept
    python benchmarks/gpu.py collect [--out runs/gpu]      # to benchmarks/results/gpu.json

Each job is a command that goes on where it was stopped, and has a limit of its own. It is asked to stop when its limit
or the time of all is over. The first shows in a few seconds whether the machine can do anything at all; if it fails,
nothing else is begun. The others run several at once (`--together`): an attack on the few images that are left waits
for the processor more than for the GPU. What jobs have made lies in OUT, and after each of them in OUT.tgz, but for
files above 12 MB (kept weights are in bf16, in shards below that): unpacked on the next machine, it is gone on with.
`--rehearse` does all of them on two images with a small model, for which a CPU will do.
"""

import argparse
import json
import signal
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from common import CIFAR, RESULTS, counted_checks, outside, read
from gpu_jobs import FIRST, JOBS, KEPT, PAIRS, Job, Training

from idc.cli.common import UNRELIABLE
from idc.commands.opening import open_model
from idc.evaluation.pairing import paired, survived
from idc.evaluation.summary import LINES, read_costs
from idc.evaluation.verdict import wilson
from idc.peers.diffusion import Diffusion
from idc.storage import records
from idc.storage.fields import recorded
from idc.storage.files import write_json
from idc.storage.model_folder import split
from idc.storage.tensor_file import load_tensors

LARGEST = 12_000_000  # bytes of a file that is packed
GRACE = 15  # seconds in which a job that was asked to stop puts away what it has


def is_done(job: Job | Training, out: Path) -> bool:
    return (out / job.folder / "summary.json").exists()


def run(
    jobs: Sequence[Job | Training], data: str, out: Path, seconds: float, *, rehearsal: bool = False, together: int = 1
) -> list[dict[str, object]]:
    """Do what is not yet done, begun in order, so many at once; the rows of ``OUT/gpu.json``: job, seconds, state, last
    words."""
    end, lock, rows = time.monotonic() + seconds, Lock(), []
    wanted = [job for job in jobs if not is_done(job, out)]

    def one(job: Job | Training) -> None:
        began = time.monotonic()
        stop = min(began + job.seconds, end - GRACE)
        if stop <= began:
            return
        for command in job.commands(data, out, rehearsal=rehearsal):
            state, said = attend(command, max(1.0, stop - time.monotonic()), out / f"{job.name}.log")
            if state != "done":
                break
        with lock:
            rows.append({"job": job.name, "seconds": round(time.monotonic() - began, 1), "state": state, "said": said})
            print(rows[-1], flush=True)
            write_json(out / "gpu.json", {"rows": rows})
            pack(out)
        if job.name == FIRST and state != "done":
            raise SystemExit(f"nothing else is begun: see {out / job.name}.log")

    for job in wanted:
        if job.name == FIRST:
            one(job)
    others = [job for job in wanted if job.name != FIRST]
    with ThreadPoolExecutor(together) as pool:
        list(pool.map(one, (job for job in others if not job.after)))
        list(pool.map(one, (job for job in others if job.after and can_begin(job, out))))
    pack(out)
    return rows


def can_begin(job: Job | Training, out: Path) -> bool:
    """Whether the trainings that it needs are done."""
    return all(is_done(needed, out) for needed in JOBS if needed.name in job.after)


def keep(job: Training, out: Path) -> None:
    """The best weights of a training in bf16, in shards that are packed."""
    run, folder = out / job.name, out / job.name / KEPT
    model: Any = Diffusion.from_pretrained(run / "best") if "ddpm" in job.arguments else open_model(str(run))
    model.save_pretrained(folder, dtype="bf16")
    split(folder, LARGEST)
    write_json(folder / "summary.json", read(run / "summary.json"))


def collect(out: Path) -> None:
    """What the jobs in ``out`` have come to: ``benchmarks/results/gpu.json``; rows of jobs that it has not stay."""
    file = RESULTS / "gpu.json"
    rows = {row["job"]: row for row in read(file)["rows"]} if file.exists() else {}
    for job in JOBS:
        folder, asked = out / job.folder, job.asked()
        partial = next(iter(sorted(folder.glob("partial-*.safetensors"))), out)
        trained = out / job.name / "summary.json"
        if isinstance(job, Training) and trained.exists():
            kept = ("validation", "seconds", "steps", "images_seen", "device")
            asked["trained"] = {key: value for key, value in read(trained).items() if key in kept}
        if is_done(job, out):
            held = read(folder / "summary.json")
            keys = ("clean", "robust", "attacks", "reliable", "cost")
            failed = [f"{c['name']}: {c['figure']}" for c in held.get("sanity", []) if not c["passed"]]
            rows[job.name] = asked | {"state": "done"} | {key: held[key] for key in keys if key in held}
            rows[job.name]["failed"] = failed
        elif lines := list(records.finished(folder, LINES).values()):
            rows[job.name] = asked | {"state": "not finished", "finished": len(lines)} | _figures(lines)
            rows[job.name]["checks"] = counted_checks({"sanity": records.read(folder / "sanity.jsonl")})
            rows[job.name]["seconds"] = sum(read_costs(folder)["seconds"].values())
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
            state = "done" if process.wait(seconds) in (0, UNRELIABLE) else "failed"
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
    parser.add_argument("verb", choices=["run", "list", "keep", "collect"])
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
    if given.verb == "keep":
        for job in jobs:
            if isinstance(job, Training):
                keep(job, given.out)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    run(jobs, given.data, given.out, given.seconds, rehearsal=given.rehearse, together=given.together)


if __name__ == "__main__":
    main()
