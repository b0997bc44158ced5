"""Figures of results: accuracy over eps, inference FLOPs, a swept setting, a radius, epochs; confusion."""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle, groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from idc.report.labelling import label_points
from idc.report.results import Result
from idc.text import eps_text

# Told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#767676")
MEASURED = {  # what a validation may have measured, and its name
    "one_step": "one-step", "multi_step": "multi-step", "attacked_one_step": "one-step, attacked",
    "attacked_multi_step": "multi-step, attacked", "clean": "clean", "robust": "attacked",
}  # fmt: skip
_UNNAMED = "without a name"  # the validation's attack in records of before it had one
KINDS = (("mean", "o-", "mean of draws"), ("majority", "s--", "majority"), ("worst_of_n", "v:", "worst of n"))


def _drawing(width: float = 6.6, height: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _line(
    axes: Axes, x: Sequence[Any], shares: Sequence[dict[str, float]], style: str, colour: str, label: str
) -> None:
    axes.plot(x, [100 * s["mean"] for s in shares], style, color=colour, label=label, ms=5)
    axes.fill_between(x, [100 * s["low"] for s in shares], [100 * s["high"] for s in shares],
                      color=colour, alpha=0.15, linewidth=0)  # fmt: skip


def _bars(shares: Sequence[dict[str, float]]) -> np.ndarray:
    """(2, n), what an interval reaches below and above each share, in %."""
    ends = [[s["mean"] - s["low"] for s in shares], [s["high"] - s["mean"] for s in shares]]
    return 100 * np.maximum(ends, 0)


def _finish(axes: Axes, xlabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel="accuracy, %", ylim=(-2, 102))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, markerscale=0.5)


def over_eps(results: Sequence[Result]) -> Figure | None:
    """Robust accuracy (mean of draws) over eps, a line for each model and protocol, a panel for each norm; None below
    two sizes."""
    attacked = [r for r in results if r.summary["attacks"] and not r.within]
    if len({r.eps for r in attacked}) < 2:
        return None
    norms = sorted({r.threat["norm"] for r in attacked}, reverse=True)
    figure = Figure(figsize=(6.6, 3.8 * len(norms)), layout="tight" if len(norms) > 1 else None)
    for index, norm in enumerate(norms):
        axes = figure.add_subplot(len(norms), 1, index + 1)
        draw_over_eps(axes, [r for r in attacked if r.threat["norm"] == norm])
    return figure


def draw_over_eps(axes: Axes, results: Sequence[Result]) -> None:
    """The lines of ``over_eps`` on ``axes``."""
    lines = by_attack(results)
    several = Counter(_of_line(own[0]) for own in lines)
    for index, own in enumerate(lines):
        r = own[0]
        clean = r.summary["clean"]["mean"]
        eps = [0.0, *(r.eps for r in own)]
        shares = [clean, *(r.summary["robust"]["mean"] for r in own)]
        colour = COLOURS[index % len(COLOURS)]
        sure = all(r.summary["reliable"] for r in own)
        label = _of_line(r)
        if several[label] > 1:
            label += f" ({' and '.join(r.summary['attacks'])})"
        _line(axes, eps, shares, "o-" if sure else "x--", colour, label if sure else f"{label}: UNRELIABLE")
        noise = [clean, *(r.summary["noise"]["mean"] for r in own)]
        axes.plot(eps, [100 * s["mean"] for s in noise], ":", color=colour, alpha=0.6)
    _finish(axes, "eps (dotted: random noise of that size)")


def _of_line(result: Result) -> str:
    return f"{result.name}, {result.protocol}, {result.threat['norm']}"


def by_attack(results: Sequence[Result]) -> list[list[Result]]:
    """Results under attack, those of one model, protocol, norm and list of attacks together, by growing eps; of two at
    one eps, one begins a line of its own."""

    def key(r: Result) -> tuple[str, str, str, list[str]]:
        return (r.name, r.protocol, r.threat["norm"], list(r.summary["attacks"]))

    attacked = sorted((r for r in results if r.summary["attacks"] and not r.within), key=lambda r: (*key(r), r.eps))
    lines: list[list[Result]] = []
    for _, group in groupby(attacked, key):
        own: list[list[Result]] = []
        for result in group:
            line = next((line for line in own if line[-1].eps < result.eps), [])
            own += [] if line else [line]
            line.append(result)
        lines += own
    return lines


def flops_scale(axes: Axes) -> None:
    """A logarithmic axis of GFLOPs that can be read within a decade too, with room for circles at both ends."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.6, high * 1.6)


def over_flops(results: Sequence[Result]) -> Figure | None:
    """Robust accuracy over the FLOPs of one answer, circles as large as these; None below two results."""
    points = [r for r in results if r.summary["attacks"] and r.summary["answer"]["flops"] and not r.within]
    if len(points) < 2:
        return None
    figure, axes = _drawing()
    largest = max(r.summary["answer"]["flops"] for r in points)
    several = len({r.name for r in points}) > 1
    same = Counter((r.name, r.protocol, r.eps) for r in points)
    labels: list[tuple[str, float, float]] = []
    for index, (protocol, group) in enumerate(groupby(sorted(points, key=lambda r: r.protocol), lambda r: r.protocol)):
        own = list(group)
        x = [r.summary["answer"]["flops"] / 1e9 for r in own]
        y = [r.summary["robust"]["mean"] for r in own]
        mean = [100 * s["mean"] for s in y]
        colour = COLOURS[index % len(COLOURS)]
        axes.errorbar(x, mean, yerr=_bars(y), fmt="none", ecolor=colour, alpha=0.5)
        sizes = [40 + 400 * r.summary["answer"]["flops"] / largest for r in own]
        faces = [colour if r.summary["reliable"] else "none" for r in own]
        axes.scatter(x, mean, s=sizes, c=faces, alpha=0.5, label=protocol, edgecolors=colour)
        for r, a, b in zip(own, x, mean, strict=True):
            mark = f", {' and '.join(r.summary['attacks'])}" if same[r.name, r.protocol, r.eps] > 1 else ""
            mark += "" if r.summary["reliable"] else ": UNRELIABLE"
            labels.append(((f"{r.name}, {eps_text(r.eps)}" if several else eps_text(r.eps)) + mark, a, b))
    flops_scale(axes)
    _finish(axes, f"GFLOPs of one answer (circle area); labels: {'model, ' * several}eps")
    label_points(axes, labels, size=6 if several else 7)
    return figure


def over_distance(results: Sequence[Result]) -> Figure | None:
    """Accuracy over the radius from the smallest changes found (``--protocol curve``), with the adaptive protocol's
    points beside it; None where no result has them."""
    own = [r for r in results if "distances" in r.summary]
    if not own:
        return None
    figure, axes = _drawing()
    for index, r in enumerate(own):
        points, colour = r.summary["distances"]["curve"], COLOURS[index % len(COLOURS)]
        label = f"{r.name}, smallest changes found, {r.threat['norm']}"
        _line(axes, [p["radius"] for p in points], points, "-", colour, label)
        for other in results:
            if other.protocol == "adaptive" and (other.name, other.threat["norm"]) == (r.name, r.threat["norm"]):
                robust = other.summary["robust"]["mean"]
                mean, bars = [100 * robust["mean"]], _bars([robust])
                axes.errorbar([other.eps], mean, yerr=bars, fmt="D", color=colour, ms=5, capsize=3)
    _finish(axes, "radius (diamonds: the adaptive protocol)")
    return figure


def over_setting(sweep: dict[str, Any]) -> Figure:
    """Robust accuracy over the swept setting, as mean, majority and worst of n; clean and noise beside it. Lines join
    numbers, not names; what is unreliable is crossed out."""
    figure, axes = _drawing()
    rows = sweep["rows"]
    numeric = all(isinstance(r["value"], int | float) for r in rows)
    x = np.asarray([r["value"] for r in rows] if numeric else range(len(rows)), dtype=float)
    kinds = KINDS[:1] if all(r["robust"]["draws"] == 1 for r in rows) else KINDS
    apart = 0 if numeric else 0.1  # of marks above one name
    for index, ((kind, style, label), colour) in enumerate(zip(kinds, COLOURS, strict=False)):
        shares, at = [r["robust"][kind] for r in rows], x + apart * (index - len(kinds) // 2)
        if numeric:
            _line(axes, list(at), shares, style, colour, f"robust, {label}")
        else:
            each = [100 * s["mean"] for s in shares]
            axes.errorbar(at, each, _bars(shares), fmt=style[0], color=colour, label=f"robust, {label}", capsize=3)
    if any(unsure := np.asarray([not r.get("reliable", True) for r in rows])):
        mean = np.asarray([100 * r["robust"]["mean"]["mean"] for r in rows])
        at = x - apart * (len(kinds) // 2)
        axes.plot(at[unsure], mean[unsure], "x", color="#222222", ms=11, mew=2, label="UNRELIABLE")
    beside = {"clean": ("clean, mean of draws", "-", "_", "#222222"), "noise": ("random noise", ":", ".", "#767676")}
    for name, (label, line, mark, colour) in beside.items():
        if all(name in r for r in rows):  # no noise of corruptions, which have no radius
            mean = np.asarray([100 * r[name]["mean"]["mean"] for r in rows])
            axes.plot(x, mean, line if numeric else mark, color=colour, ms=14 if mark == "_" else 6, label=label)
    if not numeric:
        axes.set_xticks(x, [r["text"] for r in rows])
        axes.set_xlim(-0.5, len(rows) - 0.5)
    elif min(x) > 0 and max(x) / min(x) > 8:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(x, [eps_text(r["value"]) if sweep["setting"] == "eps" else r["text"] for r in rows])
    _finish(axes, sweep["setting"])
    return figure


def over_radius(certificates: Sequence[dict[str, Any]]) -> Figure | None:
    """Certified accuracy over the L2 radius, a line for each result of ``idc certify``; None without any."""
    if not certificates:
        return None
    figure, axes = _drawing()
    for index, found in enumerate(certificates):
        x = [point["radius"] for point in found["curve"]]
        label = f"{found['name']}, sigma {found['settings']['smoothing']['sigma']:g}"
        _line(axes, x, found["curve"], "o-", COLOURS[index % len(COLOURS)], label)
    _finish(axes, "L2 radius (band: 95% interval over images)")
    axes.set_ylabel("right and certified, %")
    return figure


def over_epochs(history: Sequence[dict[str, Any]]) -> Figure:
    """Validation accuracy of a training over its epochs, a line for each answer that was measured and, where a resumed
    run has changed its validation's attack, for each attack."""
    figure, axes = _drawing(height=2.8)
    attacks = {m.get("validation/attacked_by", _UNNAMED): None for m in history if "validation/eps" in m}
    for (key, label), colour in zip(MEASURED.items(), COLOURS, strict=False):
        several = len(attacks) > 1 and "attacked" in label
        for style, attack in zip(cycle(("o-", "o:", "o--")), attacks if several else (None,), strict=False):
            own = [m for m in history if f"validation/{key}" in m]
            if attack:
                own = [m for m in own if m.get("validation/attacked_by", _UNNAMED) == attack]
            if own:
                x, y = [m["epoch"] for m in own], [100 * m[f"validation/{key}"] for m in own]
                axes.plot(x, y, style, ms=3, color=colour, label=f"{label}: {attack}" if attack else label)
    _finish(axes, "epoch")
    axes.set_ylabel("validation accuracy, %")
    return figure


def confusion(result: Result) -> Figure:
    """Rows true classes, columns answers: majority votes on the adversarial examples, or, of a clean evaluation, the
    model's own answers."""
    names, own = result.summary["class_names"], result.summary.get("own")
    counts = own["confusion"] if own else result.summary["confusion"]["robust"]
    table = np.asarray(counts, dtype=float)[:, : len(names)]
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = min(7.0, 2.2 + 0.32 * len(names))
    figure, axes = _drawing(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) <= 12:
        for (row, column), value in np.ndenumerate(shares):
            if value:
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                          color="white" if value > 0.5 else "black")  # fmt: skip
    axes.set(xlabel=f"answer{'' if own else ' under attack'}, % of the true class", ylabel="true class")
    return figure


def reliability(result: Result) -> Figure:
    """Accuracy over confidence, of the images in each tenth of it; on the diagonal is one that can be believed."""
    figure, axes = _drawing(4.2, 3.8)
    bins = result.summary["own"]["calibration"]["bins"]
    most = max((one["n"] for one in bins), default=1)
    axes.plot([0, 100], [0, 100], ":", color="#767676")
    axes.bar([100 * one["low"] + 5 for one in bins], [100 * one["accuracy"] for one in bins], width=9,
             color=[(0, 0.45, 0.7, 0.25 + 0.75 * one["n"] / most) for one in bins])  # fmt: skip
    axes.plot([100 * one["confidence"] for one in bins], [100 * one["accuracy"] for one in bins], "o", color="#D55E00")
    axes.set(
        xlabel="confidence, % (dots: its mean; darker: more images)", ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 102)
    )
    return figure
