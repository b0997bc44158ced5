"""Ours against the plain implementation (plain.py), side by side in one process, alternating.

    python benchmarks/speed.py [--presets paper-cifar10 paper-cifar100] [--batch 32] [--rounds 5] [--name speed-cpu]

Times are medians over rounds; `ratio` is the median over rounds of plain / ours. `of_peak` is the rate of FLOPs that
ours achieves over the best rate of a matrix product or convolution in its precision, measured in the same run; the
FLOPs are counted. Both keep the memory that they free, as the program `idc` does. Peak memory is what a call allocates
at most beyond what was there. Random weights and images; the evaluation takes idc-nano-cifar10 and its data (--data).
Writes benchmarks/results/NAME.json.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import MODELS, write
from speed_tasks import Task, evaluation_task, loss_task, network_tasks, training_task

from idc import IDC
from idc import data as datasets
from idc.compute.hardware import bf16_pays
from idc.compute.memory import keep_freed_memory
from idc.cost import peak_bytes, peak_rates, seconds_of

LOSS_CLASSES = (10, 100, 200, 1000)


def best_rates(device: torch.device) -> dict[str, dict[str, float]]:
    """FLOP/s of a large matrix product and a 3x3 convolution, the best of several sizes and layouts."""
    found: dict[str, dict[str, float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        each = [
            peak_rates(device, dtype=dtype, size=size, layout=layout)
            for size in (1024, 2048)
            for layout in (torch.contiguous_format, torch.channels_last)
        ]
        found[name] = {kind: max(rates[kind] for rates in each) for kind in each[0]}
    return found


class Rates:
    """The best rates seen: measured again after each task, since a shared machine is not always at its best."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.best = device, best_rates(device)

    def update(self) -> None:
        for name, own in best_rates(self.device).items():
            self.best[name] = {kind: max(rate, self.best[name][kind]) for kind, rate in own.items()}


def measure(task: Task, device: torch.device, rounds: int) -> dict[str, Any]:
    """One row: alternating rounds."""
    task.plain()  # once each, so that what stays (moments, gradients, caches) is no part of any peak
    task.ours()
    memory = {n: peak_bytes(w, device) for n, w in (("ours", task.ours), ("plain", task.plain))} if task.memory else {}
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(seconds_of(task.plain, device))
        ours.append(seconds_of(task.ours, device))
    median = statistics.median(ours)
    found = {
        "task": task.name, "images": task.images, "ours": median, "plain": statistics.median(plain),
        "ratio": statistics.median(p / o for p, o in zip(plain, ours, strict=True)),
        "ratios": [p / o for p, o in zip(plain, ours, strict=True)],
        "flops": task.flops, "memory": memory,
    }  # fmt: skip
    rate = f", {task.flops / median / 1e9:,.0f} GFLOP/s" if task.flops else ""
    print(f"{task.name:32s} ours {median:8.4f} s, plain {found['plain']:8.4f} s, {found['ratio']:5.1f} times{rate}",
          flush=True)  # fmt: skip
    return found


def shares(preset: str, batch: int, device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """Where the time of our training step goes: the operations with the largest own time."""
    from torch.profiler import ProfilerActivity, profile

    task = training_task(preset, batch, device, folder / "profile", compile=False)
    task.ours()
    cuda = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *cuda]) as run:
        task.ours()
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    times = {event.key: getattr(event, own) for event in run.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=lambda name: -times[name])[:8]
    return [{"operation": name.removeprefix("aten::"), "share": times[name] / total} for name in largest]


def agreement(data: str, device: torch.device) -> list[dict[str, Any]]:
    """What bf16 does to answers: two models on their test images, the same noise."""
    rows = []
    for name, source in (("digits", "digits"), ("nano", data)):
        model = IDC.from_pretrained(MODELS[name]).to(device)
        channels, size, _ = model.input_shape
        images = datasets.load(source, split="test", limit=1000, image_size=size, channels=channels)
        x = images.images.float() / 255
        full, half = (model.with_precision(p).predict(x, draws=10, ids=images.ids) for p in ("fp32", "bf16"))
        right = [(p.classes.cpu() == images.labels).float().mean().item() for p in (full, half)]
        same = (full.classes == half.classes).float().mean().item()
        rows.append({"model": name, "images": len(images), "draws": 10, "same_class": same,
                     "accuracy_fp32": right[0], "accuracy_bf16": right[1]})  # fmt: skip
        print(
            f"{name}: bf16 answers as fp32 does on {same:.1%} of {len(images)} images; {right[0]:.1%}, {right[1]:.1%}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=["paper-cifar10", "paper-cifar100"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile our training step")
    parser.add_argument("--data", help="CIFAR-10 for idc-nano-cifar10: a parquet folder or hub id; none: left out")
    parser.add_argument("--name", default="speed-cpu")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rates, rows = Rates(device), []
    with tempfile.TemporaryDirectory() as folder:
        for preset in args.presets:
            for task in network_tasks(preset, args.batch, device, Path(folder), compile=args.compile):
                rows.append(measure(task, device, args.rounds))
                rates.update()
        profiled = shares(args.presets[0], args.batch, device, Path(folder)) if args.presets else []
        for classes in LOSS_CLASSES:
            rows.append(measure(loss_task(classes, 64, device), device, args.rounds))
        if args.data:
            rows.append(measure(evaluation_task(args.data, device, Path(folder)), device, args.rounds))
    same = agreement(args.data, device) if args.data else []
    given = {
        "nano": MODELS["nano"],
        "presets": args.presets,
        "batch": args.batch,
        "rounds": args.rounds,
        "compile": args.compile,
    }
    peak = max(rates.best["bf16" if bf16_pays(device) else "fp32"].values())
    for r in rows:
        r["of_peak"] = r["flops"] / r["ours"] / peak if r["flops"] else None
    figures = {"settings": given, "rates": rates.best, "peak": peak, "rows": rows, "bf16": same, "profile": profiled}
    print(write(args.name, "python benchmarks/speed.py", figures))


if __name__ == "__main__":
    keep_freed_memory()
    main()
