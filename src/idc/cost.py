"""What an answer and an evaluation cost, counted: FLOPs, forward and backward passes, and the floor of the time."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
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
        if not function(image.clone().requires_grad_(True)).requires_grad:
            return forward_flops(function, image)
        return flops_of(work)


def evaluations(classifier: Classifier, image: Tensor) -> int:
    """Network evaluations (NFE) of one answer to one image, counted as they run: of the classifier's
    ``networks``."""
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


def answer_cost(classifier: Classifier, device: torch.device) -> dict[str, Any]:
    """Parameters, and the FLOPs and network evaluations of one answer to one image."""
    image = torch.full((1, *classifier.input_shape), 0.5, device=device)
    return {
        "parameters": sum(p.numel() for p in classifier.parameters()) if isinstance(classifier, nn.Module) else None,
        "flops": forward_flops(classifier, image),
        "evaluations": evaluations(classifier, image),
        "stochastic": classifier.stochastic,
        "training": str(classifier.card["Training"]) if "Training" in classifier.card else None,
    }


def peak_rate(
    device: torch.device, *, dtype: torch.dtype = torch.float32, size: int = 2048, seconds: float = 0.5
) -> float:
    """The best rate of a matrix product or a 3x3 convolution measured here and now, FLOP/s."""
    random = torch.Generator(device).manual_seed(0)
    shapes = (size, size), (16, size // 8, 16, 16), (size // 8, size // 8, 3, 3)
    a, images, weight = (torch.randn(s, device=device, generator=random).to(dtype) for s in shapes)
    works: list[tuple[int, Callable[[], Tensor]]] = [
        (2 * size**3, partial(torch.matmul, a, a)),
        (2 * images.numel() * weight[0].numel(), partial(nn.functional.conv2d, images, weight, padding=1)),
    ]
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for flops, work in works:  # on many a CPU different libraries do the two, at very different rates
            began = time.perf_counter()
            work()
            if a.is_cuda:
                torch.cuda.synchronize()
            best = max(best, flops / (time.perf_counter() - began))
    return best


def _shared(count: Callable[[Logits, Tensor], int], function: Logits, image: Tensor) -> int:
    """FLOPs that two draws share: what ``count`` finds for one draw twice, less what it finds for two."""
    return 2 * count(function, image) - count(lambda x: function(x, draws=2), image)  # type: ignore[call-arg]


def total_flops(target: Target, image: Tensor, counts: Mapping[str, Mapping[str, int]]) -> int:
    """FLOPs of the calls that a ``Tally`` counted, each on one image like ``image`` (1, C, H, W)."""
    flops = 0
    for name, calls in counts["forward"].items():
        function = target.function(name)
        back, spared_back = counts["backward"].get(name, 0), counts["spared_backward"].get(name, 0)
        spared = counts["spared"].get(name, 0) - spared_back
        flops += (calls - back) * forward_flops(function, image)
        flops += back * gradient_flops(function, image) if back else 0
        flops -= spared * _shared(forward_flops, function, image) if spared else 0
        flops -= spared_back * _shared(gradient_flops, function, image) if spared_back else 0
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
    rate, per = peak_rate(image.device, dtype=dtype), max(1, counts["images"])
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
