"""The training step of the full-size recipes on a GPU: milliseconds, share of the best bf16 rate, and its kernels.

    python benchmarks/speed_cuda.py paper-losses [--batch 256] [--data D]

adds a row to benchmarks/results/training-step-cuda.json, or takes the place of that of the same recipe, batch and card.
The rate counts three times the FLOPs of a forward pass, and twice them for each step of an attack, whose backward pass
leaves the weights out; the best rate is that of a product of two 8192 x 8192 matrices of random numbers.
"""

import argparse
import tempfile
import time
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, read
from full_size import RECIPES, prepare
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from idc.storage.files import write_json
from idc.training.trainer import Trainer

FILE = RESULTS / "training-step-cuda.json"
ROUNDS, STEPS, WARM, PROFILED = 3, 15, 6, 3
GROUPS = {  # parts of kernels' names; the first that is found says the group
    "fused by the compiler": ("triton",),
    "convolutions, weights' gradient": ("wgrad",),
    "convolutions, input's gradient": ("dgrad",),
    "convolutions, forward": ("fprop", "conv"),
    "attention": ("sdpa", "flash"),
    "copies": ("copy",),
}


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best_rate(size: int = 8192) -> float:
    """FLOP/s of one large bf16 product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one, two = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for repeats in (3, 20):
        wait()
        began = time.monotonic()
        for _ in range(repeats):
            one @ two
        wait()
    return 2 * size**3 * repeats / (time.monotonic() - began)


def forward_flops(network: Any, shape: tuple[int, int, int]) -> int:
    """FLOPs of a forward pass of one image."""
    twin = deepcopy(network).cpu().eval()
    image = torch.zeros(1, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin.forward(image, torch.zeros(1, dtype=torch.int64), image)
    return counter.get_total_flops()


def kernels(trainer: Trainer, first: int) -> dict[str, float]:
    """Milliseconds of a step by group of kernels."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for index in range(PROFILED):
            trainer.step(first + index)
        wait()
    found: Counter[str] = Counter()
    for event in seen.key_averages():
        if str(event.device_type).endswith("CUDA") and not event.key.startswith("Optimizer."):  # a range, no kernel
            name = event.key.lower()
            group = next((g for g, parts in GROUPS.items() if any(p in name for p in parts)), "other")
            found[group] += event.self_device_time_total / PROFILED / 1e3
    return dict(found)


def measure(name: str, data: str, batch: int) -> dict[str, Any]:
    """A row of the file."""
    torch.backends.cudnn.benchmark = True
    recipe, objective, about = prepare(name, data, print)
    train, validation = about.pop("splits")
    recipe = replace(recipe, epochs=1000.0, batch_size=batch)
    made = objective(recipe)
    flops = forward_flops(made.network, train.shape)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(made, recipe, train, validation, Path(folder) / "run", about=about)
        step = trainer.steps // 2
        began = time.monotonic()
        trainer.step(step)
        wait()
        first = time.monotonic() - began
        for index in range(1, WARM):
            trainer.step(step + index)
        rounds = []
        for index in range(ROUNDS):
            wait()
            began = time.monotonic()
            for more in range(STEPS):
                trainer.step(step + WARM + index * STEPS + more)
            wait()
            rounds.append((time.monotonic() - began) / STEPS)
        groups = kernels(trainer, step + WARM + ROUNDS * STEPS)
    passes = 3 + 2 * (getattr(recipe, "attack_steps", 0) if getattr(recipe, "eps", 0) else 0)
    rate, best = flops * passes * batch / min(rounds), best_rate()
    return {
        "command": f"python benchmarks/speed_cuda.py {name} --batch {batch}", "name": name, "batch": batch,
        "ms": 1e3 * min(rounds), "rounds_ms": [1e3 * r for r in rounds], "first_step_s": first,
        "gflops_forward": flops / 1e9, "passes": passes, "tflops": rate / 1e12, "best_tflops": best / 1e12,
        "share": rate / best, "kernels_ms": groups, "device": trainer._machine(), "torch": torch.__version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--data", default="runs/cifar10-jpeg")
    given = parser.parse_args()
    found = measure(given.name, given.data, given.batch)
    same = ("command", "device")
    kept = read(FILE) if FILE.exists() else {"rows": []}
    rows = [r for r in kept["rows"] if any(r.get(key) != found[key] for key in same)]
    write_json(FILE, kept | {"rows": [*rows, found]})
    print(f"{given.name}: {found['ms']:.1f} ms a step of {given.batch}, {found['share']:.0%} of the best bf16 rate")


if __name__ == "__main__":
    main()
