"""What ``idc profile`` does: what a model costs, or the presets from BBDM's network down to ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from idc.compute.modes import evaluation_mode
from idc.cost import answer_cost, flops_of, forward_flops, grey_image, latency, peak_bytes
from idc.method.classifier import IDC
from idc.method.presets import PRESETS
from idc.method.unet import BridgeUNet


@dataclass(frozen=True, slots=True)
class Profile:
    """FLOPs are 2 per multiply-add, counted by ``torch.utils.flop_counter`` over the operations that really ran.

    ``flops`` are those of one answer to one image, ``flops_per_evaluation`` those of one forward pass of the network,
    which is the one-step answer; ``latency_ms`` is the median time of an answer, ``peak_memory_bytes`` what it
    allocates at most beyond the weights.
    """

    parameters: int
    image_shape: tuple[int, int, int]
    label_kind: str
    label_cell: int
    visits: tuple[int, ...]
    network_evaluations: int
    flops_per_evaluation: int
    flops: int
    latency_ms: float
    latency_one_step_ms: float
    peak_memory_bytes: int
    weights_bytes: int
    device: str


def profile(model: IDC, *, repeats: int = 5) -> Profile:
    """Measure ``model`` on the device where it lies, one image at a time."""
    device = model.labels.device
    image, one_step = grey_image(model, device), model.one_step

    def answered_by(answering: IDC) -> Callable[[], object]:
        return lambda: answering.predict(image, draws=1)

    with evaluation_mode(model):
        cost = answer_cost(model, device)
        return Profile(
            parameters=cost["parameters"],
            image_shape=model.input_shape,
            label_kind=model.config.label_kind,
            label_cell=model.config.label_cell,
            visits=model.config.visits,
            network_evaluations=cost["network_evaluations"],
            flops_per_evaluation=forward_flops(one_step, image),
            flops=cost["flops"],
            latency_ms=1000 * latency(answered_by(model), device, repeats=repeats),
            latency_one_step_ms=1000 * latency(answered_by(one_step), device, repeats=repeats),
            peak_memory_bytes=peak_bytes(answered_by(model), device),
            weights_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
            device=str(device),
        )


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
    ("small-encoder (ours)", "small-encoder", (3, 32, 32), 1),
    ("base-encoder (ours)", "base-encoder", (3, 32, 32), 1),
    ("digits (ours)", "digits", (1, 32, 32), 3),
    ("digits-encoder (ours)", "digits-encoder", (1, 32, 32), 3),
)


def pruning_table() -> list[dict[str, Any]]:
    """From BBDM's network down to ours: parameters and FLOPs of one network evaluation and of one answer, counted on
    meta tensors."""
    return [_pruned(*row) for row in _PRUNING]


def _pruned(name: str, preset: str, shape: tuple[int, int, int], evaluations: int) -> dict[str, Any]:
    with torch.device("meta"):
        network = BridgeUNet(PRESETS[preset], shape).eval()
        image, t = torch.empty(1, *shape), torch.zeros((), dtype=torch.int64)
    with torch.no_grad():
        flops = flops_of(lambda: network(image, t, image))
    return {
        "network": name,
        "preset": preset,
        "image_size": shape[1],
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops_per_evaluation": flops,
        "network_evaluations": evaluations,
        "flops": flops * evaluations,
    }
