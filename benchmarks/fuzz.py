"""Damage inputs at random and give them to the commands that read them: one line and exit code 2, or a right result.

    python benchmarks/fuzz.py [--each 200] [--only images ...]      # about 10 minutes of a core

Kinds: images and model folders are read by `idc predict`, runs with checkpoints by `idc train --resume`, parquet by
`idc evaluate`, networks in YAML by `idc profile`, results by `idc report`. A mutation changes, removes, repeats or
inserts bytes of one file, cuts it, or swaps a value of a text for one that is often mistaken. Every attempt is a
process of its own. It holds if it ends within 20 s and 1 GB more memory than at its start, and with 0, or with 2 and
lines of 500 characters at most on stderr. After 0, a model must have answered, and a resumed run have ended, as the
undamaged one: both have checksums.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kills
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import RESULTS, read, write
from PIL import Image

from idc import IDC, cli
from idc.cli.common import UNRELIABLE
from idc.method.config import IDCConfig
from idc.method.unet import UNetSpec
from idc.storage.model_folder import WEIGHTS

EACH, SECONDS, MEMORY, LONGEST = 200, 20, 2**30, 500
VALUES = (
    "nan", "-1", "1e999", "99999999999999999999", "[]", "{}", "null", "true", '""', "*a", "&a [*a]", "'", "../../x",
    "!!python/name:os.system", "\x00", "\ufeff", "[" * 3000,
)  # fmt: skip
NETWORK = UNetSpec(base_channels=8, multipliers=(1,), groups=4, head_channels=8, patch=4, decoder=False)


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        make: writes a whole one into a folder that is there.
        args: the command that reads the one in a folder, which may write beside it.
        files: patterns of the files that are damaged.
        result: what must be as for the undamaged one after exit code 0.
    """

    make: Callable[[Path], object]
    args: Callable[[Path], list[str]]
    files: tuple[str, ...]
    result: Callable[[Path, str], Any] = lambda folder, said: None


def save_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = IDCConfig(3, (3, 16, 16), NETWORK, class_names=("0", "1", "2"))
    IDC(config).save_pretrained(folder / "model")
    save_images(folder)


def save_images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    for suffix in ("png", "jpg", "bmp", "webp", "gif", "tiff"):
        Image.fromarray(pixels).save(folder / f"image.{suffix}")


def save_parquet(folder: Path) -> None:
    rows = []
    for index in range(12):
        save_images(folder)
        rows.append({"image": {"bytes": (folder / "image.png").read_bytes(), "path": None}, "label": index % 3})
    for file in folder.glob("image.*"):
        file.unlink()
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")


def save_network(folder: Path) -> None:
    (folder / "network.yaml").write_text(kills.NETWORK)


def predicted(folder: Path, said: str) -> str:
    return re.sub(r"\s", "", said.partition("[")[2])


def weights(folder: Path, said: str) -> bytes:
    return (folder / "run" / "last" / WEIGHTS).read_bytes()


def kinds(work: Path) -> dict[str, Kind]:
    """All kinds; what they share is made in ``work``."""
    asked = kills.commands(work)
    shared = work / "shared"
    shared.mkdir()
    save_model(shared)
    for verb, name in (("train", "run"), ("evaluate", "result")):
        code, said, _ = attempt([*asked[verb], "--out", str(shared / name)], work)
        if code:
            raise SystemExit(f"idc {verb} ended with {code}: {said}")

    def copied(name: str) -> Callable[[Path], object]:
        return lambda folder: shutil.copytree(shared / name, folder / name)

    model, image = str(shared / "model"), str(shared / "image.png")
    return {
        "images": Kind(save_images, lambda f: ["predict", model, *map(str, f.glob("image.*")), "--json"], ("image.*",)),
        "models": Kind(
            copied("model"), lambda f: ["predict", str(f / "model"), image, "--json"],
            ("model/config.json", "model/*.safetensors"), predicted,
        ),
        "runs": Kind(
            copied("run"), lambda f: [*asked["train"], "--out", str(f / "run")],
            ("run/checkpoints/*/*", "run/recipe.yaml", "run/metrics.jsonl", "run/summary.json"), weights,
        ),
        "parquet": Kind(
            save_parquet,
            lambda f: ["evaluate", model, "--data", str(f / "test.parquet"), "--draws", "1", "--out", str(f / "r")],
            ("test.parquet",),
        ),
        "networks": Kind(save_network, lambda f: ["profile", str(f / "network.yaml"), "--json"], ("network.yaml",)),
        "results": Kind(
            copied("result"), lambda f: ["report", str(f / "result"), "--out", str(f / "page.html")],
            ("result/*.json", "result/*.jsonl", "result/*.safetensors"),
        ),
    }  # fmt: skip


def damage(content: bytes, random: random.Random) -> bytes:
    """Some bytes, damaged in one way."""
    size = len(content)
    at, many = random.randrange(size + 1), random.choice((1, 1, 4, 64))
    way = random.choice(("flip", "cut", "remove", "repeat", "insert", "zero", "value", "value"))
    if way == "value" and (found := list(re.finditer(rb"-?\d[\d.e+-]*|true|false|null|\"[^\"]*\"", content))):
        one = random.choice(found)
        return content[: one.start()] + random.choice(VALUES).encode() + content[one.end() :]
    flipped = bytes(byte ^ (1 << random.randrange(8)) for byte in content[at : at + many])
    return {
        "flip": lambda: content[:at] + flipped + content[at + many :],
        "cut": lambda: content[:at],
        "remove": lambda: content[:at] + content[at + many :],
        "repeat": lambda: content[: at + many] + content[at:],
        "insert": lambda: content[:at] + random.randbytes(many) + content[at:],
        "zero": lambda: content[:at] + bytes(many) + content[at + many :],
    }.get(way, lambda: random.randbytes(size))()  # fmt: skip


def attempt(args: list[str], folder: Path) -> tuple[int, str, int]:
    """Run a command in a process forked from this one: its exit code, negative if a signal ended it, what it printed,
    and how many bytes of memory it took more than at its start."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with TemporaryDirectory() as beside:
        told = [Path(beside, name) for name in ("out", "err")]
        child = os.fork()
        if not child:
            code = 70
            try:
                signal.alarm(SECONDS)
                for number, file in enumerate(told, start=1):
                    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
                os.chdir(folder)
                sys.argv = ["idc", *args]
                cli.main()
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status, used = os.wait4(child, 0)
        out, err = (file.read_text(errors="replace") for file in told)
        return os.waitstatus_to_exitcode(status), err if status else out, 1024 * max(0, used.ru_maxrss - before)


def fault(code: int, said: str, memory: int) -> str:
    """What does not hold of an attempt, if anything."""
    if memory > MEMORY:
        return f"{memory / 2**30:.1f} GB"
    if code not in (0, 2, UNRELIABLE):
        return f"exit code {code}: {said[-300:]}"
    lines = said.strip().splitlines()
    if code == 2 and (not lines or max(map(len, lines)) > LONGEST or "Traceback" in said):
        return f"no line, or too long a one: {said[-300:]}"
    return ""


def fuzz(name: str, kind: Kind, work: Path, each: int) -> dict[str, Any]:
    """Damage one kind so often: counts by exit code, and what did not hold, with the seed that makes it again."""
    counts, faults, place = {"refused": 0, "read": 0}, [], work / name
    place.mkdir()
    kind.make(place)
    code, said, _ = attempt(kind.args(place), work)
    if code:
        raise SystemExit(f"{name}: the undamaged one ends with {code}: {said}")
    right = kind.result(place, said)
    for seed in range(each):
        shutil.rmtree(place)
        place.mkdir()
        kind.make(place)
        chance = random.Random(f"{name} {seed}")
        file = chance.choice(sorted(file for pattern in kind.files for file in place.glob(pattern)))
        file.write_bytes(damage(file.read_bytes(), chance))
        code, said, memory = attempt(kind.args(place), work)
        wrong = fault(code, said, memory)
        if not wrong and code == 0 and kind.result(place, said) != right:
            wrong = "another result than that of the undamaged one"
        counts["refused" if code == 2 else "read"] += not wrong
        if wrong:
            faults.append({"seed": seed, "file": str(file.relative_to(place)), "fault": wrong})
            print(name, faults[-1], flush=True)
    print(name, counts, len(faults), flush=True)
    return {"mutations": each} | counts | {"faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=EACH)
    parser.add_argument("--only", nargs="+")
    given = parser.parse_args()
    kills.prepare()
    with TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["IDC_CACHE"] = str(work / "cache")
        held = read(RESULTS / "fuzz.json") if (RESULTS / "fuzz.json").exists() else {}
        found = held["kinds"] if held.get("each") == given.each else {}
        for name, kind in kinds(work).items():
            if not given.only or name in given.only:
                found[name] = fuzz(name, kind, work, given.each)
    total = {key: sum(row[key] for row in found.values()) for key in ("mutations", "refused", "read")}
    faults = sum(len(row["faults"]) for row in found.values())
    command = f"python benchmarks/fuzz.py --each {given.each}"
    write("fuzz", command, {"each": given.each} | total | {"faults": faults, "kinds": found})


if __name__ == "__main__":
    main()
