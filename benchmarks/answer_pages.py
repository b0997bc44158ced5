"""The tables of docs/answers.md: what visits, eta, draws and training do to answers; see pages.py."""

from common import CIFAR, RESULTS, read

from idc.text import share, table_head, table_row

SHORT = {
    "paper": ("the paper's loss, t uniform", "--t-weights none --ce-weight 0"),
    "uniform": ("with the cross-entropy term, t uniform", "--t-weights none"),
    "fast": ("with the cross-entropy term, t as `fast` draws it", ""),
}


def answers() -> list[str]:
    """docs/answers.md: accuracy by visit list, eta and draws."""
    found = read(RESULTS / "answers.json")
    lines = table_head("visits", "passes", "eta", "mean of 10 draws", "one draw")
    for r in found["rows"]:
        stochastic = r["draws"] > 1
        lines.append(
            table_row(
                ", ".join(map(str, r["visits"])),
                len(set(r["visits"])),
                f"{r['eta']:g}" if len(r["visits"]) > 1 else "any",
                share(r) if stochastic else "the same",
                f"{r['single_draw']:.1%}" if stochastic else share(r),
            )
        )
    return [*lines, "", f"`nano`, {found['settings']['images']:,} validation images of {CIFAR}, one seed."]


def timesteps() -> list[str]:
    """docs/answers.md: what the network can do from the true x_t."""
    rows = read(RESULTS / "answers.json")["true_x_t"]
    return [
        *table_head("t", *(r["t"] for r in rows)),
        table_row("nearest label right", *(f"{r['accuracy']:.1%}" for r in rows)),
    ]


def learning() -> list[str]:
    """docs/answers.md: accuracy over images seen."""
    curve = read(RESULTS / "nano-train.json")["curve"]
    summary = read(RESULTS / "nano-train.json")["summary"]
    each = summary["images_seen"] / summary["recipe"]["epochs"]
    lines = table_head("epoch", "images seen", "one-step", "multi-step, one draw")
    for r in [c for c in curve if c["epoch"] in (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 35)]:
        values = (f"{r[k]:.1%}" for k in ("one_step", "multi_step"))
        lines.append(table_row(f"{r['epoch']:g}", f"{r['epoch'] * each:,.0f}", *values))
    return lines


def short() -> list[str]:
    """docs/answers.md: what the loss and the choice of t do in four epochs."""
    runs = read(RESULTS / "nano-short.json")["runs"]
    lines = table_head("training", "flags", "one-step", "multi-step, mean of 10 draws")
    for name, (what, flags) in SHORT.items():
        found = runs[name]["validation"]
        cells = (f"{found[k]:.1%}" for k in ("one_step", "multi_step"))
        lines.append(table_row(what, f"`{flags}`" if flags else "", *cells))
    first = runs["fast"]
    return [
        *lines,
        "",
        f"`nano`, {first['recipe']['epochs']:g} epochs ({first['images_seen']:,} images), "
        f"{first['validation']['images']:,} validation images of {CIFAR}, one seed.",
    ]
