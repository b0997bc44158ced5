"""What an answer or an evaluation costs: FLOPs and network evaluations counted, seconds and bytes measured."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import accumulate
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from idc.attacks.target import ANSWER, Target
from idc.types import Classifier, Logits


def _eager() -> AbstractContextManager[object]:
    """No compiled code: counters do not see into it, and for one image it is not worth the making."""
    return cast(AbstractContextManager[object], torch.compiler.set_stance("force_eager"))


def flops_of(work: Callable[[], object]) -> int:
    """FLOPs (2 per multiply-add) of what ``work()`` runs; the global generator is left as found."""
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH), _eager(), counter:
        work()
    return int(counter.get_total_flops())


def forward_flops(function: Logits, image: Tensor) -> int:
    """FLOPs (2 per multiply-add) of one call on one image (1, C, H, W)."""
    with torch.no_grad():
        return flops_of(lambda: function(image))


def gradient_flops(function: Logits, image: Tensor) -> int:
    """FLOPs of one call and the gradient of its sum by the image; that of the call where there is no gradient."""

    def work() -> None:
        x = image.clone().requires_grad_(True)
        value = function(x.clone()).sum()  # the counter's hooks cannot stand a leaf
        torch.autograd.grad(value, x, allow_unused=True)

    with torch.enable_grad(), torch.random.fork_rng(devices=[]), _eager():
        if not function(image.clone().requires_grad_(True).clone()).requires_grad:
            return forward_flops(function, image)
        return flops_of(work)


def network_evaluations(classifier: Classifier, image: Tensor) -> int:
    """NFE of one answer to one image, counted as they run: calls of the classifier's ``networks``."""
    rows = 0

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal rows
        given = args[0] if args else next(iter(kwargs.values()))
        rows += len(given)

    hooks = [network.register_forward_hook(count, with_kwargs=True) for network in classifier.networks]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _eager():
            classifier(image)
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def grey_image(classifier: Classifier, device: torch.device) -> Tensor:
    """(1, C, H, W), one image to answer: what is in it does not change the cost."""
    return torch.full((1, *classifier.input_shape), 0.5, device=device)


def answer_cost(classifier: Classifier, device: torch.device) -> dict[str, Any]:
    """Parameters, and the FLOPs and network evaluations of one answer to one image."""
    image = grey_image(classifier, device)
    return {
        "parameters": sum(p.numel() for p in classifier.parameters()) if isinstance(classifier, nn.Module) else None,
        "flops": forward_flops(classifier, image),
        "network_evaluations": network_evaluations(classifier, image),
        "stochastic": classifier.stochastic,
        "training": str(classifier.card["Training"]) if "Training" in classifier.card else None,
    }


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work()`` takes, until the device has done it."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def latency(work: Callable[[], object], device: torch.device, *, repeats: int = 5) -> float:
    """Median seconds of ``work()`` once it is warm."""
    return median([seconds_of(work, device) for _ in range(repeats + 1)][1:])


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that ``work()`` holds at most beyond what was there: the allocator's own count on CUDA, else the largest
    sum that torch records as allocated and not yet freed on the CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return int(torch.cuda.max_memory_allocated() - before)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler prints where it starts and stops
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        work()
    memory = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate((e.nbytes() for e in sorted(memory, key=lambda e: e.start_ns())), initial=0))


def peak_rates(
    device: torch.device, *, dtype: torch.dtype = torch.float32, size: int = 2048, seconds: float = 0.5,
    layout: torch.memory_format = torch.contiguous_format,
) -> dict[str, float]:  # fmt: skip
    """The best rates of a matrix product ("matmul") and a 3x3 convolution ("conv") measured here and now, FLOP/s: on
    many a CPU different libraries do the two, at very different rates."""
    random = torch.Generator(device).manual_seed(0)
    shapes = (size, size), (16, size // 8, 16, 16), (size // 8, size // 8, 3, 3)
    a, images, weight = (torch.randn(s, device=device, generator=random).to(dtype) for s in shapes)
    images, weight = images.to(memory_format=layout), weight.to(memory_format=layout)
    works: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "matmul": (2 * size**3, partial(torch.matmul, a, a)),
        "conv": (2 * images.numel() * weight[0].numel(), partial(nn.functional.conv2d, images, weight, padding=1)),
    }
    best, end = dict.fromkeys(works, 0.0), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for kind, (flops, work) in works.items():
            best[kind] = max(best[kind], flops / seconds_of(work, device))
    return best


def _flops_of_calls(
    count: Callable[[Logits, Tensor], int], function: Logits, image: Tensor, calls: int, spared: int
) -> int:
    """FLOPs of so many calls, ``count`` for one, without those that ``spared`` draws share with others: what ``count``
    finds for one draw twice, less what it finds for two."""
    one = count(function, image) if calls or spared else 0
    two = count(lambda x: function(x, draws=2), image) if spared else 0  # type: ignore[call-arg]
    return calls * one - spared * (2 * one - two)


def total_flops(target: Target, image: Tensor, counts: Mapping[str, Mapping[str, int]]) -> int:
    """FLOPs of the calls that a ``Tally`` counted, each on one image like ``image`` (1, C, H, W)."""
    flops = 0
    for name, calls in counts["forward"].items():
        function = target.function(name)
        back, spared_back = counts["backward"].get(name, 0), counts["spared_backward"].get(name, 0)
        spared = counts["spared"].get(name, 0) - spared_back
        flops += _flops_of_calls(forward_flops, function, image, calls - back, spared)
        flops += _flops_of_calls(gradient_flops, function, image, back, spared_back)
    return flops


def evaluation_cost(
    target: Target, image: Tensor, counts: Mapping[str, Any], seconds: float, *, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Counts of an evaluation turned into FLOPs and compared with the floor.

    Args:
        target: whose functions were called.
        image: (1, C, H, W), for counting.
        counts: what ``Tally`` counted, and ``images``, as many as were evaluated.
        seconds: they took in all.
        dtype: in which the model multiplies.

    Returns:
        Per image: ``forward``, ``backward``, ``spared``, ``flops``, ``seconds``; and ``floor_seconds``, the FLOPs
        at the best rate measured here, with ``ratio``, seconds over floor.
    """
    forward, backward = counts["forward"], counts["backward"]
    flops = total_flops(target, image, counts)
    rate, per = max(peak_rates(image.device, dtype=dtype).values()), max(1, counts["images"])
    floor = flops / rate / per
    return {
        "forward": {k: v / per for k, v in forward.items()},
        "backward": {k: v / per for k, v in backward.items()},
        "spared": sum(counts["spared"].values()) / per,
        "flops": flops / per,
        "answers": forward.get(ANSWER, 0) / per,
        "seconds": seconds / per,
        "peak_flops_per_second": rate,
        "floor_seconds": floor,
        "ratio": seconds / per / floor if floor else None,
    }
