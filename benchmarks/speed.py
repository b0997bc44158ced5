"""Ours against the plain implementation (plain.py), side by side in one process, alternating.

    python benchmarks/speed.py [--presets paper-cifar10 paper-cifar100] [--batch 32] [--rounds 5] [--name speed-cpu]

Times are medians over rounds; `ratio` is the median over rounds of plain / ours. `of_peak` is the rate of FLOPs that
ours achieves over the best rate of a matrix product or convolution in its precision, measured in the same run; the
FLOPs are counted. Both keep the memory that they free, as the program `idc` does. Peak memory is what a call allocates
at most beyond what was there. Random weights and images; the evaluation takes idc-nano-cifar10 and its data (--data).
Writes benchmarks/results/NAME.json.
"""

import argparse
import copy
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import MODELS, write
from PIL import Image
from plain import PlainIDC, PlainTraining, class_losses
from torch import Tensor

from idc import IDC
from idc import data as datasets
from idc.attacks.objective import CrossEntropy
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.commands.profile import peak_cpu_bytes, preset_model
from idc.compute.hardware import bf16_pays, can_compile
from idc.compute.memory import keep_freed_memory
from idc.cost import flops_of, total_flops
from idc.data import ImageSet
from idc.evaluation.protocol import build_protocol
from idc.evaluation.runner import Problem, Runner
from idc.method.bridge import Bridge
from idc.method.loss import bridge_loss
from idc.noise import Streams
from idc.training.bridging import Bridging
from idc.training.recipe import RECIPES
from idc.training.trainer import Trainer
from idc.types import ClassifierDefaults

LOSS_CLASSES = (10, 100, 200, 1000)
EVALUATED = 32


@dataclass(frozen=True)
class Task:
    """Two ways to do the same work, and the FLOPs of ours, where products are most of it."""

    name: str
    images: int
    ours: Callable[[], Any]
    plain: Callable[[], Any]
    flops: int = 0
    memory: bool = True


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    if device.type != "cuda":
        return peak_cpu_bytes(work)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return int(torch.cuda.max_memory_allocated() - before)


def best_rates(device: torch.device) -> dict[str, dict[str, float]]:
    """FLOP/s of a large matrix product and a 3x3 convolution, the best of several sizes and layouts."""
    found: dict[str, dict[str, float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        works: dict[str, list[tuple[float, Callable[[], Any]]]] = {"matmul": [], "conv": []}
        for size in (1024, 2048):
            a = torch.randn(size, size, device=device).to(dtype)
            works["matmul"].append((2.0 * size**3, partial(torch.matmul, a, a)))
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(32, 256, 16, 16, device=device).to(dtype, memory_format=layout)
            w = torch.randn(256, 256, 3, 3, device=device).to(dtype, memory_format=layout)
            works["conv"].append((2.0 * x.numel() * w[0].numel(), partial(torch.conv2d, x, w, padding=1)))
        with torch.no_grad():
            found[name] = {
                kind: max(flops / min(seconds(work, device) for _ in range(8)) for flops, work in own)
                for kind, own in works.items()
            }
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
        plain.append(seconds(task.plain, device))
        ours.append(seconds(task.ours, device))
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


# -- the tasks ---------------------------------------------------------------------------------------------------------


def network_tasks(preset: str, batch: int, device: torch.device, folder: Path, *, compile: bool) -> list[Task]:
    model = preset_model(preset)
    plain = PlainIDC(model).eval().to(device)
    fast = model.to(device).with_precision("auto")
    random = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *model.input_shape, generator=random).to(device)
    classes = torch.randint(model.num_classes, (batch,), generator=random).to(device)
    noise = torch.randn(3, *images.shape, generator=random).to(device)
    few = max(1, batch // 4)
    target = Target.of(fast)
    streams = Streams(torch.arange(few, device=device), 0)

    def gradient(draws: int) -> Tensor:
        return target.gradient(
            ANSWER, images[:few], classes[:few], streams, objective=CrossEntropy(), draws=draws
        )[1]  # fmt: skip

    def gradient_flops(draws: int) -> int:
        target.tally.clear()
        gradient(draws)
        return total_flops(target, images[:1], target.tally.counts())

    def plain_gradient(draws: int) -> Tensor:
        noises = [torch.randn(3, *images[:few].shape, device=device) for _ in range(draws)]
        return plain.gradient(images[:few], classes[:few], noises)

    for weights in (fast, plain):  # an attack wants no gradient of theirs
        for parameter in weights.parameters():
            parameter.requires_grad_(False)

    compiled = copy.deepcopy(fast)
    compiled.unet.compile()

    def answer(drawn: Tensor | None) -> list[Task]:
        name = f"{preset}: answer, {'one step' if drawn is None else 'multi-step'}"
        as_asked, own_code = (m.one_step if drawn is None else m for m in (fast, compiled))
        ours, theirs = quiet(lambda: as_asked(images, noise=drawn)), quiet(lambda: plain(images, noise))
        flops = flops_of(ours)
        tasks = [Task(name, batch, ours, theirs, flops)]
        if can_compile(device):
            own = quiet(lambda: own_code(images, noise=drawn))
            tasks.append(Task(f"{name}: compiled, beside ours as it is", batch, own, ours, flops))
        return tasks

    def attack(draws: int) -> Task:
        ours, theirs = partial(gradient, draws), partial(plain_gradient, draws)
        return Task(f"{preset}: gradient, EOT {draws}", few, ours, theirs, gradient_flops(draws))

    return [
        training_task(preset, batch, device, folder, compile=compile),
        *answer(None),
        *answer(noise[[0, 2]]),
        attack(1),
        attack(8),
    ]


def quiet(work: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad():
            return work()

    return run


def training_task(preset: str, batch: int, device: torch.device, folder: Path, *, compile: bool) -> Task:
    """One update each: data, forward and backward pass, optimiser, averaged weights."""
    model = preset_model(preset)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (8 * batch, *model.input_shape), dtype=torch.uint8, generator=random)
    classes = torch.randint(model.num_classes, (8 * batch,), generator=random)
    names = tuple(map(str, range(model.num_classes)))
    data = ImageSet(pixels, classes, torch.arange(8 * batch), names, "random", "train", "random")
    files = [_jpeg(image) for image in pixels]
    plain = PlainTraining(PlainIDC(model).to(device), files, classes.tolist())
    recipe = replace(
        RECIPES["paper"], batch_size=batch, accumulation=1, epochs=1e6, ema_start=0, ema_every=1, compile=compile,
        schedule="constant",
    )  # fmt: skip
    trainer = Trainer(Bridging(model.train(), recipe), recipe, data, data, folder / preset)
    steps = iter(range(10**6))

    def ours() -> None:
        trainer.step(next(steps))

    return Task(f"{preset}: training step", batch, ours, lambda: plain.step(list(range(batch))), flops_of(ours))


def _jpeg(image: Tensor) -> bytes:
    held = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(held, "JPEG", quality=90)
    return held.getvalue()


def loss_task(classes: int, batch: int, device: torch.device) -> Task:
    """The loss of one batch and its gradient by the network's output."""
    random, shape = torch.Generator().manual_seed(0), (3, 32, 32)

    def normal(count: int) -> Tensor:
        return torch.randn(count, *shape, generator=random).to(device)

    labels, y, eps, output = normal(classes), normal(batch), normal(batch), normal(batch).requires_grad_()
    true = torch.randint(classes, (batch,), generator=random).to(device)
    t = (torch.arange(batch) % 4).to(device)
    bridge = Bridge().to(device)
    sample = bridge.sample(labels[true], y, t, eps)
    m, var = bridge.m_t[t].view(-1, 1, 1, 1), bridge.var_t[t].view(-1, 1, 1, 1)

    def ours() -> None:
        bridge_loss(sample, output, labels, true).total.mean().backward()

    def plain() -> None:
        class_losses(sample.target, output, labels, sample.x0, y, m, var, eps, bridge.m_t, t, true).backward()

    return Task(f"loss alone, K = {classes}, B = {batch}", batch, ours, plain)


class PlainClassifier(PlainIDC, ClassifierDefaults):
    """The plain model as an evaluation takes it: every draw by itself, its weak spots in float32."""

    stochastic = True

    def __init__(self, model: IDC) -> None:
        super().__init__(model)
        self.input_shape, self._own = model.input_shape, (model,)

    def surrogates(self) -> dict[str, Any]:
        return dict(self._own[0].surrogates())

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        drawn = [torch.randn(images.shape, device=images.device) for _ in range(3)]
        return super().forward(images, torch.stack(drawn) if noise is None else noise)


def evaluation_task(data: str, device: torch.device, folder: Path) -> Task:
    """The protocol "quick" on some test images of idc-nano-cifar10."""
    model = IDC.from_pretrained(MODELS["nano"]).to(device).requires_grad_(False)
    images = datasets.load(data, split="test", limit=EVALUATED)
    protocol = build_protocol("quick", Threat("linf", 8 / 255))
    runs = iter(range(10**6))

    def evaluate(classifier: Any) -> None:
        problem = Problem(images.images, images.labels, images.ids, {"source": "benchmark"})
        runner = Runner(classifier, problem, protocol, folder / f"quick-{next(runs)}", device=device)
        runner.prepare()
        runner.run()

    ours, plain = model.with_precision("auto"), PlainClassifier(model).eval().to(device).requires_grad_(False)
    return Task("nano: quick evaluation", EVALUATED, lambda: evaluate(ours), lambda: evaluate(plain), memory=False)


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
