"""What an answer, a gradient and the loss cost as batch, draws, K and image size grow: python benchmarks/scaling.py

nano's network with random weights, in the precision that pays on this device; medians of five calls. One setting
varies, the others stay at batch 64, one draw, K = 10, 32x32. Writes benchmarks/results/scaling.json and
docs/scaling.png.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import write
from matplotlib.figure import Figure
from speed_tasks import quiet

from idc.attacks.objective import CrossEntropy
from idc.attacks.target import ANSWER, Target
from idc.commands.opening import preset_model
from idc.compute.memory import keep_freed_memory
from idc.cost import latency
from idc.method.bridge import Bridge
from idc.method.loss import bridge_loss
from idc.noise import Streams
from idc.text import seconds_text

START = {"batch": 64, "draws": 1, "K": 10, "size": 32}
CURVES = {"batch": [1, 4, 16, 64, 256], "draws": [1, 2, 4, 8, 16], "K": [10, 100, 1000], "size": [16, 32, 64, 96]}
ROOT = Path(__file__).parents[1]


def works(device: torch.device, *, batch: int, draws: int, K: int, size: int) -> dict[str, Callable[[], Any]]:  # noqa: N803
    """An answer (multi-step), an attack's gradient of it, and the loss with its gradient."""
    model = preset_model("nano", num_classes=min(K, 3 * size**2), image_size=size).to(device)
    model = model.requires_grad_(False).with_precision("auto")
    random = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, size, size, generator=random).to(device)
    classes = (torch.arange(batch) % model.num_classes).to(device)
    target, streams = Target.of(model, chunk=10**6), Streams(torch.arange(batch, device=device), 0)
    labels = 2 * model.labels - 1
    t = (torch.arange(batch) % 4).to(device)
    sample = Bridge().to(device).sample(labels[classes], 2 * images - 1, t, torch.randn_like(images))
    output = torch.randn_like(images).requires_grad_()
    return {
        "answer": quiet(lambda: model(images, draws=draws)),
        "gradient": lambda: target.gradient(
            ANSWER, images, classes, streams, objective=CrossEntropy(), draws=draws
        ),
        "loss": lambda: bridge_loss(sample, output, labels, classes).total.mean().backward(),
    }  # fmt: skip


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name, values in CURVES.items():
        for value in values:
            setting = START | {name: value}
            row: dict[str, Any] = {"varies": name, **setting}
            for kind, work in works(device, **setting).items():
                row[kind] = latency(work, device)
            rows.append(row)
            text = ", ".join(f"{kind} {seconds_text(row[kind])}" for kind in ("answer", "gradient", "loss"))
            print(f"{name} = {value}: {text}", flush=True)
    draw(rows).savefig(ROOT / "docs" / "scaling.png", dpi=110)
    print(write("scaling", "python benchmarks/scaling.py", {"start": START, "rows": rows}))


def draw(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(CURVES), sharey=True), CURVES, strict=True):
        own = [r for r in rows if r["varies"] == name]
        for kind in ("answer", "gradient", "loss"):
            axes.loglog([r[name] for r in own], [r[kind] for r in own], "o-", ms=4, label=kind)
        axes.set(xlabel={"size": "image side, pixels"}.get(name, name), xticks=CURVES[name], xticklabels=CURVES[name])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("seconds")
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    keep_freed_memory()
    main()
