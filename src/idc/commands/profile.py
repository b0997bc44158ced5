"""What a model costs: parameters, counted FLOPs, passes, memory, latency."""

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.presets import PRESETS, network_fields, resolve_spec
from idc.method.unet import BridgeUNet, UNetSpec


@dataclass(frozen=True, slots=True)
class Profile:
    """FLOPs are 2 per multiply-add, counted by ``torch.utils.flop_counter`` over the operations that really ran.

    ``latency_ms`` is the median time of one answer to one image in float32; ``peak_memory_bytes`` what that answer
    allocates at most beyond the weights.
    """

    parameters: int
    image_shape: tuple[int, int, int]
    label_kind: str
    label_cell: int
    visits: tuple[int, ...]
    passes: int
    flops_per_pass: int
    flops_per_answer: int
    flops_one_step: int
    latency_ms: float
    latency_one_step_ms: float
    peak_memory_bytes: int
    weights_bytes: int
    device: str

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        return asdict(self)


def count_flops(model: IDC, visits: tuple[int, ...]) -> int:
    """FLOPs of one answer to one image."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.full((1, *model.input_shape), 0.5, device=model.labels.device)
    counter = FlopCounterMode(display=False)
    # The counter does not know the CPU's fused attention; the plain one multiplies as much, and is counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.with_answer(visits=visits).predict(image, draws=1)
    return int(counter.get_total_flops())


def count_passes(model: IDC, visits: tuple[int, ...]) -> int:
    """Network evaluations of one answer, counted as they run."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = model.unet.register_forward_hook(count)
    try:
        image = torch.full((1, *model.input_shape), 0.5, device=model.labels.device)
        model.with_answer(visits=visits).predict(image, draws=1)
    finally:
        hook.remove()
    return calls


def profile(model: IDC, *, repeats: int = 5) -> Profile:
    """Measure ``model`` on the device where it lies, one image at a time."""
    visits, first = model.config.visits, model.one_step_visits
    passes, flops = count_passes(model, visits), count_flops(model, visits)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    one_step = count_flops(model, first)
    return Profile(
        parameters=sum(p.numel() for p in model.parameters()),
        image_shape=model.input_shape,
        label_kind=model.config.label_kind,
        label_cell=model.config.label_cell,
        visits=visits,
        passes=passes,
        flops_per_pass=one_step,
        flops_per_answer=flops,
        flops_one_step=one_step,
        latency_ms=_latency(model, visits, repeats),
        latency_one_step_ms=_latency(model, first, repeats),
        peak_memory_bytes=_peak_memory(model),
        weights_bytes=weights,
        device=str(model.labels.device),
    )


def _latency(model: IDC, visits: tuple[int, ...], repeats: int) -> float:
    image = torch.full((1, *model.input_shape), 0.5, device=model.labels.device)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        model.with_answer(visits=visits).predict(image, draws=1)
        if image.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 1000 * sorted(times[1:])[repeats // 2]


def _peak_memory(model: IDC) -> int:
    """Bytes that one answer holds at most: the allocator's own count on CUDA, the profiler's running sum on the CPU."""
    image = torch.full((1, *model.input_shape), 0.5, device=model.labels.device)
    if image.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model.predict(image, draws=1)
        return int(torch.cuda.max_memory_allocated() - before)
    return peak_cpu_bytes(lambda: model.predict(image, draws=1))


def peak_cpu_bytes(work: Any) -> int:
    """Largest sum of bytes that ``work()`` has allocated and not yet freed on the CPU, by torch's own records."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler prints where it starts and stops
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        work()
    held = peak = 0
    memory = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(memory, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def preset_model(
    preset: str, *, num_classes: int | None = None, image_size: int | None = None, channels: int | None = None
) -> IDC:
    """A model of a preset, or of a YAML file of a network's fields, with fresh weights, for the data that the preset is
    made for, or the one that the file starts from, unless told otherwise.

    Raises:
        IDCError: for an unknown preset, a file that cannot be used, or data that the network cannot take.
    """
    given = network_fields(preset)
    spec, preset = resolve_spec(given), str(given.get("preset", ""))
    depth, size = (1, 32) if preset.startswith("digits") else (3, 64) if preset == "bbdm" else (3, 32)
    shape = (channels or depth, image_size or size, image_size or size)
    classes = num_classes or (100 if preset == "paper-cifar100" else 10)
    return IDC(IDCConfig(classes, shape, spec)).eval()


_PRUNING = (
    ("BBDM pixel-space template", "bbdm", (3, 64, 64), 200),
    ("the same at 32x32", "bbdm", (3, 32, 32), 200),
    ("IDC, CIFAR-100", "paper-cifar100", (3, 32, 32), 3),
    ("IDC, CIFAR-10", "paper-cifar10", (3, 32, 32), 3),
    ("nano (ours)", "nano", (3, 32, 32), 3),
    ("nano-patch4 (ours)", "nano-patch4", (3, 32, 32), 3),
    ("nano-encoder (ours)", "nano-encoder", (3, 32, 32), 3),
    ("nano-encoder-bn (ours)", "nano-encoder-bn", (3, 32, 32), 1),
    ("nano-encoder-patch2 (ours)", "nano-encoder-patch2", (3, 32, 32), 1),
    ("base-encoder (ours)", "base-encoder", (3, 32, 32), 1),
    ("digits (ours)", "digits", (1, 32, 32), 3),
    ("digits-encoder (ours)", "digits-encoder", (1, 32, 32), 3),
)


def pruning_table() -> list[dict[str, Any]]:
    """From BBDM's network down to ours: parameters and FLOPs of one pass and of one answer, counted on meta tensors."""
    from torch.utils.flop_counter import FlopCounterMode

    rows = []
    for name, preset, shape, passes in _PRUNING:
        spec: UNetSpec = PRESETS[preset]
        with torch.device("meta"):
            network = BridgeUNet(spec, shape).eval()
            image, t = torch.empty(1, *shape), torch.zeros((), dtype=torch.int64)
            counter = FlopCounterMode(display=False)
            with torch.no_grad(), counter:
                network(image, t, image)
        flops = int(counter.get_total_flops())
        rows.append(
            {
                "network": name,
                "preset": preset,
                "image_size": shape[1],
                "parameters": sum(p.numel() for p in network.parameters()),
                "flops_per_pass": flops,
                "passes": passes,
                "flops_per_answer": flops * passes,
            }
        )
    return rows
