"""The tables of docs/speed.md: time, memory, share of the peak beside the plain implementation; how cost grows."""

import math

from common import RESULTS, ROUNDED, read

from idc.evaluation import BLOCK
from idc.text import percent, seconds_text, share, size_text, table_head, table_row

LEFT_OUT = "Not measured yet."


def _found(name: str) -> dict | None:
    file = RESULTS / f"{name}.json"
    return read(file) if file.exists() else None


def _about(hardware: dict) -> str:
    threads = f"{hardware['threads']} thread{'s' if hardware['threads'] > 1 else ''}"
    return hardware["gpu"] or f"{hardware['cpu']}, {threads}"


def speed() -> list[str]:
    """docs/speed.md: every task on every device that was measured."""
    lines = []
    for name in ("speed-cpu", "speed-cuda"):
        found = _found(name)
        if found is None:
            continue
        lines += table_head(
            "task", "images", "ours", "plain", "times faster", "of peak", "memory, ours", "memory, plain"
        )
        for r in found["rows"]:
            spread = f"{r['ratio']:.1f} ({min(r['ratios']):.1f} to {max(r['ratios']):.1f})"
            memory = [size_text(r["memory"][k]) for k in ("ours", "plain")] if r["memory"] else ["", ""]
            of_peak = percent(r["of_peak"], 0) if r["of_peak"] else ""
            times = (seconds_text(r[k]) for k in ("ours", "plain"))
            lines.append(table_row(r["task"], r["images"], *times, spread, of_peak, *memory))
        rates = found["rates"]
        best = ", ".join(f"{k} {max(own.values()) / 1e9:,.0f} GFLOP/s" for k, own in rates.items())
        lines += ["", f"{_about(found['hardware'])}; medians of {found['settings']['rounds']} alternations (lowest and "
                  f"highest ratio in brackets); best rates measured: {best}.", ""]  # fmt: skip
    return lines or [LEFT_OUT]


def precision() -> list[str]:
    """docs/speed.md: what bf16 and compiling do to an attack's time, and to what it finds."""
    found = _found("precision")
    if found is None:
        return [LEFT_OUT]
    head = (
        "model",
        "network",
        "a call",
        "a gradient",
        "robust, by its own network",
        "robust, by the float32 network",
        "n",
    )
    lines = table_head(*head)
    for r in found["rows"]:
        for way, own in r["ways"].items():
            times = [r["times"][kind][way] for kind in ("call", "gradient")]
            faster = (f" ({t['times_faster']:.1f} times faster)" if way != "fp32" else "" for t in times)
            cells = (seconds_text(t["seconds"]) + text for t, text in zip(times, faster, strict=True))
            stand = (share(own["stand"][kind]) for kind in ("own", "fp32"))
            lines.append(table_row(f"`{r['model']}`", way, *cells, *stand, r["images"]))
    about = found["settings"]
    return [
        *lines,
        "",
        f"{about['data']} {about['split']}, L-inf {about['eps']}; a batch of {about['batch']}, medians of "
        f"{about['rounds']} alternations, {_about(found['hardware'])}, on a machine that did other work too.",
    ]


def bf16() -> list[str]:
    """docs/speed.md: what bf16 does to answers."""
    found = _found("speed-cpu")
    if found is None or not found["bf16"]:
        return [LEFT_OUT]
    lines = table_head("model", "accuracy, fp32", "accuracy, bf16", "the same class", "draws", "n")
    for r in found["bf16"]:
        accuracies = (f"{r[k]:.1%}" for k in ("accuracy_fp32", "accuracy_bf16"))
        lines.append(table_row(f"`{r['model']}`", *accuracies, f"{r['same_class']:.1%}", r["draws"], r["images"]))
    return lines if "nano" in found["settings"] else [*lines, "", ROUNDED]


def profiled() -> list[str]:
    """docs/speed.md: where the time of a training step goes."""
    found = _found("speed-cpu")
    if found is None or not found["profile"]:
        return [LEFT_OUT]
    lines = table_head("operation", "share of the time")
    return lines + [table_row(f"`{r['operation']}`", f"{r['share']:.0%}") for r in found["profile"]]


def loss_memory() -> str:
    """README: one sentence on the loss."""
    found = _found("speed-cpu")
    if found is None:
        return ""
    last = [r for r in found["rows"] if r["task"].startswith("loss alone")][-1]
    times = last["memory"]["plain"] / last["memory"]["ours"]
    return (
        f"The {last['task'].replace(' alone', '')}, 3x32x32, takes {size_text(last['memory']['ours'])} and "
        f"{seconds_text(last['ours'])}: {times:,.0f} times less memory and {last['ratio']:.0f} times less time than "
        "stacking (B, K, C, H, W) tensors ([speed](speed.md))."
    )


def scaling() -> list[str]:
    """docs/speed.md: how cost grows."""
    found = _found("scaling")
    if found is None:
        return [LEFT_OUT]
    lines = table_head("varies", "to", "answer", "gradient", "loss")
    names = {"size": "image side"}
    for r in found["rows"]:
        times = (seconds_text(r[kind]) for kind in ("answer", "gradient", "loss"))
        lines.append(table_row(names.get(r["varies"], r["varies"]), r[r["varies"]], *times))
    start = ", ".join(f"{names.get(k, k)} {v}" for k, v in found["start"].items())
    return [*lines, "", f"`nano`'s network; the others stay at {start}. {_about(found['hardware'])}."]


PLANNED = (  # what, images, FLOPs of one pass of the network (idc profile); four times the pixels for 64x64
    ("CIFAR-10 test, `nano`", 10_000, 9.34e7),
    ("CIFAR-10 test, `paper-cifar10`", 10_000, 6.84e9),
    ("ImageNet-1k validation at 64x64, `paper-cifar100`'s network", 50_000, 4 * 11.94e9),
)


def _for_a_night(images: int, hours: float) -> str:
    """How many devices have done in 8 hours what one does in ``hours``: each takes whole blocks of images."""
    blocks = math.ceil(images / BLOCK)
    each = int(8 / (hours / blocks))
    if each == 0:
        return f"none: {blocks:,} take {hours / blocks:,.0f} h"
    return f"{math.ceil(blocks / each):,}"


def plan() -> list[str]:
    """docs/speed.md: device-hours of a full ``adaptive`` evaluation, from measured passes and measured rates."""
    found = {name: _found(f"speed-{name}") for name in ("cpu", "cuda")}
    attacked = _found("robustness-nano")
    rows = [r for r in (attacked or {"rows": []})["rows"] if r["protocol"] == "adaptive"]
    if not rows or found["cpu"] is None:
        return [LEFT_OUT]
    dearest = max(rows, key=lambda r: r["cost"]["flops"])
    passes = dearest["cost"]["flops"] / PLANNED[0][2]
    lines = table_head("evaluation", "PFLOP", "device", "device-hours", "images an hour", "devices for one night (8 h)")
    for what, images, one in PLANNED:
        for held in (f for f in found.values() if f):
            (attack,) = [r for r in held["rows"] if r["task"] == "paper-cifar10: gradient, EOT 8"]
            total = images * passes * one
            hours = total / (attack["flops"] / attack["ours"]) / 3600
            cells = (f"{total / 1e15:,.0f}", _about(held["hardware"]), f"{hours:,.0f}", f"{images / hours:,.0f}")
            lines.append(table_row(what, *cells, _for_a_night(images, hours)))
    robust = percent(dearest["robust"]["mean"]["mean"])
    before = "" if "spared" in dearest["cost"] else " (before draws shared an evaluation)"
    return [*lines, "", f"An image takes {passes:,.0f} passes' worth of FLOPs, measured{before} on `nano` at eps "
            f"{dearest['eps_text']}, where {robust} survive. The rate is that of the attack gradient "
            "(EOT 8) of `paper-cifar10` above; small networks reach less of it. Images an hour over the price of a "
            "device-hour are images per dollar."]  # fmt: skip
