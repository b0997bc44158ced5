"""Kill train, evaluate, certify, sweep and compare many times each, let each go on, and hold it to one never killed.

    python benchmarks/kills.py [--each 40] [--only train ...]      # about 10 minutes; goes on where it stopped

A kill (SIGKILL) comes at a counted point, not by the clock. A third of them come at a step on the disk (a file opened,
renamed or removed, a folder made), spread over all such steps; a third, at most each once, at a step that would give a
finished file or folder its name, which is cut in half first, as a kill while it was written would have left it; a third
at a call of a function, spread over all calls since the first step. Then the same command runs to its end, and every
file of its folder must be that of the run that was never killed: same names, none left over, the same content but for
times. The networks are tiny, the images the digits.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import RESULTS, read, write

from idc import cli, cost
from idc.storage import records
from idc.storage.files import parse_json
from idc.storage.tensor_file import load_tensors, read_tensors

EACH = 40
STEPS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")  # audit events, each told before it happens
NETWORK = "base_channels: 8\nmultipliers: [1]\ngroups: 4\nhead_channels: 8\npatch: 4\ndecoder: false\n"
MODEL = """import torch


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10))


def other():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
"""
COMPARED = "data: digits\nlimit: 8\nprotocols: [pgd]\neps: [0.1, 0.2]\nmodels: {one: mine:model, other: mine:other}\n"
DIGITS = ("--data", "digits", "--limit")
# Of a file's values, those that tell of times, and checksums, which are of these too.
_TIMES = re.compile(r"second|^(ratio|record_sha256|config_sha256|Training)$")


def commands(work: Path) -> dict[str, list[str]]:
    """The arguments of each command but for its ``--out``; their models and settings are written to ``work``."""
    (work / "mine.py").write_text(MODEL)
    (work / "network.yaml").write_text(NETWORK)
    (work / "compare.yaml").write_text(COMPARED)
    pgd = ("--protocol", "pgd", "--steps", "2", "--eps", "0.1")
    found: dict[str, tuple[str, ...]] = {
        "train": (*DIGITS, "96", "--image-size", "16", "--preset", "network.yaml", "--epochs", "1", "--batch-size",
                  "16", "--validate-every", "0.5", "--checkpoint-every", "0.34", "--validation-limit", "10",
                  "--final-limit", "10", "--precision", "fp32", "--visits", "3", "--resume"),
        "evaluate": ("mine:model", *DIGITS, "40", *pgd, "--block", "8", "--keep"),
        "certify": ("mine:model", *DIGITS, "20", "--sigma", "0.25", "--n0", "10", "--n", "100"),
        "sweep": ("mine:model", *DIGITS, "16", *pgd, "--block", "8", "--over", "eps=0.1,0.2,0.3"),
        "compare": ("compare.yaml",),
    }  # fmt: skip
    return {verb: [verb, *args] for verb, args in found.items()}


class Counter:
    """Counts the steps on the disk below ``out``, those of them that name a file just written, and, from the first step
    on, calls of functions; kills this process at one of them if it is told to.

    Args:
        step, name, call: the number at which. What is to be named is cut in half before. Calls are counted, which takes
            time, only if ``call`` is a number.
    """

    def __init__(self, out: Path, *, step: int = 0, name: int = 0, call: int | None = None) -> None:
        self.out, self.step, self.name, self.call = str(out), step, name, call
        self.steps, self.names, self.calls, self.main = 0, 0, 0, threading.main_thread()

    def start(self) -> None:
        """For the rest of this process's life."""
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in STEPS or threading.current_thread() is not self.main or not self._is_ours(args[0]):
            return
        self.steps += 1
        if self.steps == 1 and self.call is not None:
            sys.setprofile(self._profile)
        if event == "os.rename" and str(args[0]).endswith(".part"):
            self.names += 1
            if self.names == self.name:
                _cut_in_half(Path(args[0]))
                os.kill(os.getpid(), signal.SIGKILL)
        if self.steps == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, path: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.out)

    def _profile(self, frame: object, event: str, arg: object) -> None:
        if event != "call":
            return
        self.calls += 1
        if self.calls == self.call:
            os.kill(os.getpid(), signal.SIGKILL)


def _cut_in_half(path: Path) -> None:
    for file in [path] if path.is_file() else path.iterdir():
        os.truncate(file, file.stat().st_size // 2)


def run(args: list[str], out: Path, **kill: Any) -> tuple[int, dict[str, int], str]:
    """Run a command in a process of its own, forked from this one, which has imported all that takes long.

    Args:
        kill: see ``Counter``.

    Returns:
        Its exit code, negative if a signal ended it; how many of each it counted; and what it printed.
    """
    with TemporaryDirectory() as folder:
        told, counted = Path(folder, "told"), Path(folder, "counted")
        child = os.fork()
        if not child:
            code = 70
            try:
                handle = os.open(told, os.O_WRONLY | os.O_CREAT)
                os.dup2(handle, 1)
                os.dup2(handle, 2)
                os.chdir(out.parents[1])
                sys.argv = ["idc", *args, "--out", str(out)]
                counter = Counter(out, **kill)
                counter.start()
                cli.main()
            except SystemExit as ended:
                code = int(ended.code or 0)
                sys.setprofile(None)
                counts = {"step": counter.steps, "name": counter.names, "call": counter.calls}
                counted.write_text(json.dumps(counts))
            finally:
                sys.stdout.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        counts = json.loads(counted.read_text()) if counted.exists() else {}
        return code, counts, told.read_text(errors="replace")


def points(counted: dict[str, int], each: int) -> list[dict[str, int]]:
    """Where to kill a command that counted so many steps, names and calls, evenly."""
    names, calls = min(each // 3, counted["name"]), each // 3
    found = []
    for kind, share in (("step", each - names - calls), ("name", names), ("call", calls)):
        found += [{kind: 1 + (2 * i + 1) * counted[kind] // (2 * share)} for i in range(share)]
    return found


def killed(args: list[str], out: Path, whole: Path, at: dict[str, Any]) -> dict[str, Any]:
    """Kill a command at a point, run it to its end, and compare its folder with that of one that was never killed.

    Returns:
        ``at``; ``killed``, whether it came so far; ``differs``, files that are not the same; ``left_over``, files that
        the other has not; ``error``, what the second run said if it failed.
    """
    shutil.rmtree(out, ignore_errors=True)
    first, _, _ = run(args, out, **at)
    second, _, said = run(args, out)
    names, expected = (set(_files(folder)) for folder in (out, whole))
    differs = [name for name in sorted(names & expected) if _content(out / name) != _content(whole / name)]
    return {"at": at, "killed": first == -signal.SIGKILL, "differs": differs + sorted(expected - names),
            "left_over": sorted(names - expected), "error": said[-500:] if second else ""}  # fmt: skip


def _files(folder: Path) -> Iterator[str]:
    """The files below a folder; TensorBoard begins another one with each start, and they count as one."""
    for file in folder.rglob("*"):
        if not file.is_dir():
            yield "tensorboard" if file.parent.name == "tensorboard" else str(file.relative_to(folder))


def _content(file: Path) -> Any:
    """What a file says but for times; of tables and cards, which have times in their text, the number of lines."""
    if file.suffix == ".jsonl":
        rows = [timeless(row) for row in records.read(file)]
        key = next((name for name in ("id", "block") if rows and name in rows[0]), "")
        return {row[key]: row for row in reversed(rows)} if key else rows  # of equal ones the first counts
    if file.suffix == ".json":
        return timeless(parse_json(file.read_text()))
    if file.suffix == ".safetensors":
        tensors, about = load_tensors(file)
        return {name: (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for name, t in tensors.items()} | about
    if file.suffix == ".pt":
        return repr(_plain(read_tensors(file)))
    return len(file.read_bytes().splitlines()) if file.is_file() else None


def timeless(value: Any) -> Any:
    """JSON-ready values without those that tell of times."""
    if isinstance(value, dict):
        return {name: timeless(own) for name, own in value.items() if not _TIMES.search(name)}
    return [timeless(own) for own in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """State dicts with the bytes of their tensors."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {name: _plain(own) for name, own in value.items()}
    return [_plain(own) for own in value] if isinstance(value, list | tuple) else value


def kill_each(
    work: Path, verbs: list[str], each: int, known: dict[str, list[dict[str, Any]]],
    keep: Callable[[dict[str, list[dict[str, Any]]]], object],
) -> None:  # fmt: skip
    """Kill each command so often, but for what is ``known``; ``keep`` is handed all that is known after each time."""
    asked = commands(work)
    for verb in verbs:
        whole, out, own = work / "whole" / verb, work / "killed" / verb, known.setdefault(verb, [])
        code, counted, said = run(asked[verb], whole, call=0)
        if code:
            raise SystemExit(f"idc {verb} ended with {code}: {said}")
        for at in points(counted, each)[len(own) :]:
            own.append(killed(asked[verb], out, whole, at))
            keep(known)
            print(f"{verb} {len(own)} of {each}: {own[-1]}", flush=True)


def summary(known: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """For the file of results: counts of each command, and all that went wrong."""
    return {
        verb: {
            "kills": sum(one["killed"] for one in own),
            "identical": sum(one["killed"] and not (one["differs"] or one["error"]) for one in own),
            "left_over": sum(len(one["left_over"]) for one in own),
            "rounds": own,
        }
        for verb, own in known.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=EACH)
    parser.add_argument("--only", nargs="+")
    given = parser.parse_args()
    prepare()
    file, command = RESULTS / "kills.json", f"python benchmarks/kills.py --each {given.each}"
    held = read(file) if file.exists() else {}
    known = {}
    if held.get("each") == given.each:
        known = {verb: own["rounds"] for verb, own in held["commands"].items()}

    def keep(known: dict[str, list[dict[str, Any]]]) -> None:
        found = summary(known)
        total = {name: sum(own[name] for own in found.values()) for name in ("kills", "identical", "left_over")}
        write("kills", command, {"each": given.each, **total, "commands": found})

    with TemporaryDirectory() as work:
        os.environ["IDC_CACHE"] = str(Path(work, "cache"))
        kill_each(
            Path(work), given.only or ["train", "evaluate", "certify", "sweep", "compare"], given.each, known, keep
        )


def prepare() -> None:
    """Import what takes long, and have nothing measured for long, in this process and those forked from it."""
    import accelerate  # noqa: F401
    import diffusers.models.unets.unet_2d  # noqa: F401
    import sklearn.datasets
    import torch.utils.tensorboard

    import idc.commands.certify
    import idc.commands.compare
    import idc.commands.sweep
    import idc.commands.train  # noqa: F401

    torch.set_num_threads(1)
    rates: Any = cost.peak_rates
    rates.__kwdefaults__.update(size=256, seconds=0.01)
    sklearn.datasets.load_digits()


if __name__ == "__main__":
    main()
