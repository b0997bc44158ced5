"""The figures of the README, from benchmarks/results/*.json.

    python benchmarks/readme.py --collect   copy the newest records of runs/ into benchmarks/results/
    python benchmarks/readme.py             write the table into README.md
    python benchmarks/readme.py --check     fail if README.md differs

The records come from

    idc demo --out runs/demo
    idc train --data CIFAR --preset nano --recipe fast --epochs 36 --compile true --out runs/nano
    idc evaluate runs/nano --data CIFAR --out runs/nano-test
    python benchmarks/answers.py runs/nano --data CIFAR --limit 2000
    python benchmarks/loss_memory.py

with CIFAR the CIFAR-10 (JPEG-75) parquet folder.
"""

import json
import re
import sys
from pathlib import Path

from common import RESULTS, write

from idc.training.trainer import read_metrics

README = Path(__file__).parents[1] / "README.md"
RUNS = Path("runs")
CIFAR = "CIFAR-10 (JPEG-75)"


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def collect() -> None:
    write(
        "demo",
        "idc demo --out runs/demo",
        {k: v for k, v in read(RUNS / "demo" / "demo.json").items() if k != "hardware"},
    )
    summary, test = read(RUNS / "nano" / "summary.json"), read(RUNS / "nano-test" / "summary.json")
    summary["about"]["data"] = test["settings"]["data"] = CIFAR
    curve = [
        {
            k.removeprefix("validation/"): m[k]
            for k in ("epoch", "seconds", "validation/one_step", "validation/multi_step")
        }
        for m in read_metrics(RUNS / "nano")
        if "validation/one_step" in m
    ]
    command = "idc train --data CIFAR --preset nano --recipe fast --epochs 36 --compile true --out runs/nano"
    write("nano-train", command, {"summary": summary, "curve": curve})
    write("nano-test", "idc evaluate runs/nano --data CIFAR --out runs/nano-test", test)


def share(value: dict) -> str:
    return f"{value['mean']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def table() -> str:
    demo, train, test = (read(RESULTS / f"{name}.json") for name in ("demo", "nano-train", "nano-test"))
    memory = read(RESULTS / "loss_memory.json")["rows"][-1]
    one, many = test["accuracy"].values()
    validation = train["summary"]["validation"]
    lines = [
        row("what", "data", "one-step", f"multi-step, mean of {demo['draws']} draws", "n"),
        row(*["---"] * 5),
        row("`digits`, clean", "digits test", share(demo["clean"]["one_step"]), share(demo["clean"]["multi_step"]),
            demo["data"]["test"]),
        *(row(f"`digits`, PGD-20, eps {p['eps']}", "digits test", share(p["attacked"]["one_step"]),
              share(p["attacked"]["multi_step"]), p["attacked"]["multi_step"]["n"]) for p in demo["attack"]["curve"]),
        row("`nano`, clean", f"{CIFAR} test", share(one), share(many), one["n"]),
        row("`nano`, clean", f"{CIFAR} validation", f"{validation['one_step']:.1%}", f"{validation['multi_step']:.1%}",
            validation["images"]),
    ]  # fmt: skip
    summary = train["summary"]
    hardware = demo["hardware"]
    text = [
        "",
        f"`digits` took {demo['training']['seconds']:.0f} s to train, `nano` {summary['seconds'] / 60:.0f} minutes "
        f"({summary['recipe']['epochs']:g} epochs, {summary['images_seen']:,} images), in bf16, "
        f"on {hardware['threads']} cores of {article(hardware['cpu'])} shared with other work; one seed each. "
        "Brackets: 95% Wilson intervals over test images.",
        "",
        f"The loss step at K = {memory['classes']:,} classes, B = {memory['batch']}, 3x32x32 allocates "
        f"{memory['peak_bytes'] / 2**20:.1f} MiB, {memory['ratio']:.0f} times less than stacking (B, K, C, H, W) "
        "tensors (`python benchmarks/loss_memory.py`).",
    ]
    return "\n".join(lines + text)


def article(name: str) -> str:
    return ("an " if name[:1] in "AEIOU" else "a ") + name


def main() -> None:
    if "--collect" in sys.argv:
        collect()
        return
    text = README.read_text(encoding="utf-8")
    found = re.search(r"(<!-- results:.*?-->\n).*?(<!-- /results -->)", text, re.DOTALL)
    assert found, "README.md has no place for the results"
    new = text[: found.start()] + found.group(1) + table() + "\n" + found.group(2) + text[found.end() :]
    if "--check" not in sys.argv:
        README.write_text(new, encoding="utf-8")
    elif new != text:
        sys.exit("README.md differs from benchmarks/results: run python benchmarks/readme.py")


if __name__ == "__main__":
    main()
