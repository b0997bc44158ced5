"""Figures from records, by matplotlib without its global state."""

import io
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.float32]
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"  # told apart by colour-blind readers too


def to_rgb(image: Array) -> Array:
    """(C, H, W) in [0, 1] with 1, 3 or 4 channels -> (H, W, 3) or (H, W, 4)."""
    moved = np.clip(image, 0, 1).transpose(1, 2, 0)
    return np.repeat(moved, 3, axis=2) if moved.shape[2] == 1 else moved


def png(figure: Figure, *, dpi: int = 100) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an <svg> element, without matplotlib's XML header."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def draw_images(axes: Axes, images: Sequence[Array], *, gap: int = 2) -> None:
    """A row of images on ``axes``."""
    height = images[0].shape[1]
    spacer = np.ones((height, gap, 3), dtype=np.float32)
    parts = [part for image in images for part in (to_rgb(image)[..., :3], spacer)][:-1]
    axes.imshow(np.concatenate(parts, axis=1), interpolation="nearest")
    axes.set_axis_off()


def draw_curve(axes: Axes, curve: list[dict[str, Any]], clean: dict[str, Any]) -> None:
    """Accuracy over eps: attacked with intervals, random noise dashed; eps 0 is the clean accuracy."""
    eps = [0.0, *(p["eps"] for p in curve)]
    for name, colour, label in (("one_step", ORANGE, "one-step"), ("multi_step", BLUE, "multi-step")):
        shares = [clean[name], *(p["attacked"][name] for p in curve)]
        axes.plot(eps, [100 * s["mean"] for s in shares], "o-", color=colour, label=f"attacked, {label}")
        low, high = ([100 * s[k] for s in shares] for k in ("low", "high"))
        axes.fill_between(eps, low, high, color=colour, alpha=0.18, linewidth=0)
    noise = [clean["multi_step"], *(p["noise"]["multi_step"] for p in curve)]
    axes.plot(eps, [100 * s["mean"] for s in noise], "--", color=GREY, label="random noise, multi-step")
    axes.set(xlabel="eps (L-inf, pixels in [0, 1])", ylabel="test accuracy, %", ylim=(-2, 102))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)


def curve_figure(curve: list[dict[str, Any]], clean: dict[str, Any]) -> Figure:
    """``draw_curve`` as a figure of its own."""
    figure = Figure(figsize=(6.4, 3.6))
    draw_curve(figure.add_subplot(), curve, clean)
    return figure


def learning_figure(history: list[dict[str, Any]]) -> Figure:
    """Validation accuracy over epochs."""
    figure = Figure(figsize=(6.4, 2.8))
    axes = figure.add_subplot()
    for name, colour, label in (("one_step", ORANGE, "one-step"), ("multi_step", BLUE, "multi-step")):
        axes.plot(
            [h["epoch"] for h in history], [100 * h[name] for h in history], "o-", ms=3, color=colour, label=label
        )
    axes.set(xlabel="epoch", ylabel="validation accuracy, %", ylim=(-2, 102))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


def overview(records: dict[str, Any], pictures: dict[str, Array]) -> Figure:
    """The idea at a glance: image -> translations -> nearest label; the labels; accuracy under attack."""
    figure = Figure(figsize=(14, 7.2), layout="constrained")
    left, right = cast(Any, figure.subfigures(1, 2, width_ratios=(1.55, 1)))
    rows = 4
    columns = 2 + len(pictures["panel_steps"])
    grid = left.subplots(rows, columns)
    titles = ["image", *(f"x0_hat, t = {t}" for t in records["model"]["visits"]), "nearest label"]
    for row in range(rows):
        images = [pictures["panel_images"][row], *pictures["panel_steps"][:, row], pictures["panel_nearest"][row]]
        for column, (axes, image) in enumerate(zip(grid[row], images, strict=True)):
            axes.imshow(to_rgb(image), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(titles[column], fontsize=11)
        grid[row][-1].set_xlabel(f"answer: {records['pictures']['panel'][row]['answer']}", fontsize=11)
    left.suptitle("an image is translated into one of K fixed labels")
    top, bottom = right.subfigures(2, 1, height_ratios=(1, 2.1))
    axes = top.subplots()
    count = min(5, len(pictures["labels"]))
    draw_images(axes, list(pictures["labels"][:count]))
    axes.set_title(f"orthogonal image labels of {', '.join(records['class_names'][:count])}, ...", fontsize=11)
    draw_curve(bottom.subplots(), records["attack"]["curve"], records["clean"])
    bottom.suptitle(f"{records['attack']['name'].split(',')[0]} on {records['data']['name']}", fontsize=11)
    return figure
