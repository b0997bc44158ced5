"""The tables and the figure of `idc compare`, from its ``compare.json``."""

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idc.errors import IDCError
from idc.report import figures
from idc.report.curves import COLOURS, flops_scale
from idc.report.labelling import label_points
from idc.report.results import read_pairs, read_rows
from idc.storage.files import whole_file, write_text
from idc.text import NORMS, csv_text, gflops_text, in_markdown, latex_row, share, table_head, table_row

# Circles, and others where there are more models than colours; their areas at matplotlib's size of 1.
MARKS = {"o": math.pi / 4, "s": 1.0, "^": 0.5}
_SMALLEST = 25  # points squared
_PUBLISHED_EPS = 8 / 255
SPARED = (
    "Not attacked at this eps: images that have survived the same attacks at a larger one; one in eight was attacked "
    "all the same, as a check. What an attack without a radius (C&W) came to is taken from there too."
)
FRESH = (
    "An image whose every draw is wrong is not attacked, and what is left is judged by fresh draws: a model right by "
    "chance may then seem more robust than accurate."
)
PAIRED = (
    "The best at each eps beside each other model, on the images that both were given: on how many one of the two is "
    "right in a larger share of its draws (of single answers: it alone survives), the difference of their means of "
    "draws with its 95% interval (Newcombe; narrower than those of the table, which take no account of how little "
    "means of draws vary), and p of the exact paired permutation test (of single answers McNemar's). It speaks of "
    "these trainings: what another seed would change is not in it, nor that the best was chosen on the same images."
)
ANYWHERE = "No eps bounds {}: each was made once, and stands in the row of the largest."
HALF = "Networks computed in bf16, their first and last layers in float32."


def protocols(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The protocols that any row has, in their order."""
    return list(dict.fromkeys(p for row in rows for p in row["protocols"]))


def published() -> list[dict[str, Any]]:
    """Published figures for CIFAR-10, L-inf 8/255: system, extra data, clean and robust %, GFLOPs, source. None was
    measured here."""
    found: list[dict[str, Any]] = json.loads((files("idc.report") / "published.json").read_text(encoding="utf-8"))
    return found


def _text(row: dict[str, Any], protocol: str) -> list[str]:
    """Robust accuracy (mean of draws, worst of n) and seconds an image, as cells."""
    own = row["protocols"].get(protocol)
    if own is None:
        return ["", "", ""]
    mark = "" if own["reliable"] else " (unreliable)"
    if own.get("images_spared"):
        mark += f" ({own['images_spared']} not attacked)"
    worst = share(own["robust"]["worst_of_n"]) if row["stochastic"] else ""
    return [share(own["robust"]["mean"]) + mark, worst, f"{own['seconds']:.3g}"]


def _columns(names: Sequence[str]) -> list[str]:
    """The names of ``_cells``."""
    kinds = ("mean of draws", "worst of n", "s to attack an image")
    each = [f"{p}: {kind}" for p in names for kind in kinds]
    return ["model", "eps", "parameters", "GFLOPs", "NFE", "clean", *each, "n"]


def _cells(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    """A model at an eps, as a line of any table: texts as they are, for the table to escape."""
    size = "" if row["parameters"] is None else f"{row['parameters']:,}"
    own = [cell for p in names for cell in _text(row, p)]
    return [row["name"], row["eps_text"], size, gflops_text(row["flops"]), f"{row['network_evaluations']:,}",
            share(row["clean"]["mean"]), *own, str(row["images"])]  # fmt: skip


def latex(rows: Sequence[dict[str, Any]]) -> str:
    """The table in LaTeX, for a paper with the package booktabs."""
    names = protocols(rows)
    head, kinds = _columns(names), ["l", "l"]
    lines = [
        "% \\usepackage{booktabs}; shares with their 95% Wilson intervals",
        f"\\begin{{tabular}}{{{''.join([*kinds, *'r' * (len(head) - len(kinds))])}}}",
        "\\toprule", latex_row(*head), "\\midrule", *(latex_row(*_cells(row, names)) for row in rows),
        "\\bottomrule", "\\end{tabular}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def markdown(rows: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]] = ()) -> str:
    """The table, a row for each model and eps, and how far the best is ahead."""
    names = protocols(rows)
    lines = table_head(*_columns(names), "training", "results")
    for row in rows:
        where = ", ".join(own["folder"] for own in row["protocols"].values())
        lines.append(table_row(*map(in_markdown, [*_cells(row, names), row["training"] or "", where])))
    if free := dict.fromkeys(p for row in rows for p, own in row["protocols"].items() if own.get("within")):
        lines += ["", ANYWHERE.format(", ".join(free))]
    if any(own.get("images_spared") for row in rows for own in row["protocols"].values()):
        lines += ["", SPARED]
    attacked = [(r["clean"], o["robust"]) for r in rows for o in r["protocols"].values() if o["attacks"]]
    if any(robust["mean"]["mean"] > clean["mean"]["mean"] for clean, robust in attacked):
        lines += ["", FRESH]
    if half := [in_markdown(row["name"]) for row in rows if row.get("answer", {}).get("precision") == "bf16"]:
        names_of_half = dict.fromkeys(half)
        lines += ["", HALF if len(half) == len(rows) else f"{HALF[:-1]}: {', '.join(names_of_half)}."]
    if pairs:
        lines += ["", PAIRED, "", *_paired(pairs)]
    return "\n".join(lines) + "\n"


def _points(pair: dict[str, Any]) -> str:
    """How far the best is ahead, in points, with its interval."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * pair[k] for k in ("difference", "low", "high")))


def _p(pair: dict[str, Any]) -> str:
    """Its p, with the sign before it; 0 is what a float holds of less than 1e-300."""
    return f"= {pair['p']:.2g}" if pair["p"] else "< 1e-300"


def paired_texts(folder: Path) -> list[str]:
    """A sentence for each pair of a comparison, see ``idc.commands.compare.beside_the_best``."""
    return [
        f"{p['protocol']} at eps {p['eps_text']}: of {p['images']} images {p['best']} is ahead on "
        f"{p['ahead_first']}, {p['other']} on {p['ahead_second']}: {_points(p)} points, "
        f"p {_p(p)} (permutation, exact)."
        for p in read_pairs(folder)
    ]


def _paired(pairs: Sequence[dict[str, Any]]) -> list[str]:
    """A table of ``idc.commands.compare.beside_the_best``."""
    head = ("eps", "protocol", "best", "other", "best ahead", "other ahead", "best - other, points", "p", "n")
    lines = table_head(*head)
    for pair in pairs:
        names = (in_markdown(pair[which]) for which in ("best", "other"))
        counts = (pair["ahead_first"], pair["ahead_second"], _points(pair), _p(pair).removeprefix("= "), pair["images"])
        lines.append(table_row(pair["eps_text"], pair["protocol"], *names, *counts))
    return lines


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table as CSV, numbers as they are; a line for each model, eps and protocol."""
    kinds = [f"robust_{k}{end}" for k in ("mean", "majority", "worst_of_n") for end in ("", "_low", "_high")]
    head = ["name", "model", "answer", "precision", "data", "split", "norm", "eps", "protocol", "images", "draws",
            "parameters", "flops", "network_evaluations", "clean", "clean_low", "clean_high", *kinds, "seconds",
            "reliable", "spared", "training", "folder"]  # fmt: skip
    lines: list[list[Any]] = [head]
    for row in rows:
        clean = row["clean"]["mean"]
        for protocol, own in row["protocols"].items():
            shares = [
                own["robust"][k][end] for k in ("mean", "majority", "worst_of_n") for end in ("mean", "low", "high")
            ]
            ball = ("", "") if own.get("within") else (row["norm"], row["eps"])
            lines.append([
                row["name"], row["model"], _answer(row), row.get("answer", {}).get("precision", "fp32"), row["data"],
                row["split"], *ball, protocol, row["images"], own["draws"], row["parameters"],
                row["flops"], row["network_evaluations"], clean["mean"], clean["low"], clean["high"], *shares,
                own["seconds"], own["reliable"], own.get("images_spared", 0), row["training"], own["folder"],
            ])  # fmt: skip
    return csv_text(lines)


def _answer(row: dict[str, Any]) -> str:
    """How the model was asked to answer, where it was: "one step", or visits and eta."""
    asked = row.get("answer", {})
    visits = "one step" if asked.get("one_step") else ", ".join(map(str, asked.get("visits") or ()))
    mirrored = "mirrored" if asked.get("mirrored") else ""
    return "; ".join(filter(None, (visits, mirrored, f"eta {asked['eta']:g}" if "eta" in asked else "")))


def figure(rows: Sequence[dict[str, Any]], *, with_published: bool = False) -> Figure:
    """Robust accuracy over the FLOPs of an answer, a panel for each eps, marks as large as the FLOPs (down to what can
    be seen): full under the strongest protocol, hollow under the others. Protocols without an eps are left to the
    tables, if there are attacks with one."""
    if any(own.get("attacks") and not own.get("within") for row in rows for own in row["protocols"].values()):
        rows = [row | {"protocols": _bounded(row)} for row in rows if _bounded(row)]
    sizes = sorted({row["eps"] for row in rows})
    names = protocols(rows)
    strongest = "adaptive" if "adaptive" in names else names[-1]
    columns = 1 if len(sizes) < 3 else 2
    lines = math.ceil(len(sizes) / columns)
    drawn = Figure(figsize=(6.6 * columns, 0.6 + 3.9 * lines))
    models = dict.fromkeys(row["name"] for row in rows)
    looks = {n: (COLOURS[i % len(COLOURS)], list(MARKS)[i // len(COLOURS) % len(MARKS)]) for i, n in enumerate(models)}
    largest = max(row["flops"] for row in rows) or 1
    counts = {row["images"] for row in rows}
    labels: dict[Axes, list[tuple[str, float, float]]] = {}
    for index, eps in enumerate(sizes):
        axes = drawn.add_subplot(lines, columns, index + 1)
        for row in (r for r in rows if r["eps"] == eps):
            for protocol, own in row["protocols"].items():
                named = protocol == (strongest if strongest in row["protocols"] else next(iter(row["protocols"])))
                name = row["name"] if len(counts) == 1 else f"{row['name']}, n = {row['images']}"
                full = protocol == strongest
                _mark(axes, row, own, looks[row["name"]], largest, name if named else None, full=full)
        if with_published and comparable(rows, eps):
            labels[axes] = _published(axes)
        flops_scale(axes)
        axes.set(ylabel="robust accuracy, %", ylim=(-8, 104))
        own = [r for r in rows if r["eps"] == eps]
        images = ", ".join(map(str, sorted({r["images"] for r in own})))
        free = next(iter(own[0]["protocols"].values())).get("within")
        radius = free or f"{NORMS[own[0]['norm']]} eps {own[0]['eps_text']}"
        title = f"{own[0]['data']} {own[0]['split']}, {radius}, n = {images}; bars: 95%"
        axes.set_title(title, fontsize=9, loc="left")
        axes.grid(alpha=0.25)
        axes.legend(
            frameon=False, fontsize=7, markerscale=0.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3
        )
    others = ", ".join(p for p in names if p != strongest)
    marks = f"; full: {strongest}, hollow: {others}" if others else f", under {strongest}"
    axes.set_xlabel(f"GFLOPs of one answer; the area of a mark grows with them{marks}", fontsize=9)
    drawn.tight_layout()
    for axes, texts in labels.items():
        label_points(axes, texts, size=5, colour="#666666", near=6)
    return drawn


def _bounded(row: dict[str, Any]) -> dict[str, Any]:
    """What it holds by protocol, without those that no eps bounds."""
    return {name: own for name, own in row["protocols"].items() if not own.get("within")}


def comparable(rows: Sequence[dict[str, Any]], eps: float) -> bool:
    """Whether the published figures are of the same data, norm and eps."""
    same = all("cifar10" in row["data"].lower().replace("-", "") and row["norm"] == "linf" for row in rows)
    return same and abs(eps - _PUBLISHED_EPS) < 1e-9


def _published(axes: Axes) -> list[tuple[str, float, float]]:
    """Diamonds, and for each its system with its place; sources are in the table of ``published``."""
    known = [entry for entry in published() if entry["gflops"]]
    axes.scatter([p["gflops"] for p in known], [p["robust"] for p in known], marker="d", color="#999999")
    return [
        (f"{p['system']}, published: {p['source']}" + (f", {p['extra']}" if p["extra"] else ""), p["gflops"],
         p["robust"]) for p in known
    ]  # fmt: skip


def _mark(
    axes: Axes, row: dict[str, Any], own: dict[str, Any], look: tuple[str, str], largest: float, name: str | None, *,
    full: bool,
) -> None:  # fmt: skip
    colour, mark = look
    x, y = row["flops"] / 1e9, own["robust"]["mean"]
    mean = 100 * y["mean"]
    bars = [[max(0.0, mean - 100 * y["low"])], [max(0.0, 100 * y["high"] - mean)]]
    axes.errorbar([x], [mean], yerr=bars, fmt="none", ecolor=colour, alpha=0.6)
    area = max(_SMALLEST, 360 * row["flops"] / largest)
    axes.scatter([x], [mean], s=area / MARKS[mark], facecolors=colour if full else "none", edgecolors=colour, alpha=0.7,
                 marker=mark, label=name)  # fmt: skip


@figures.as_written()
def write_comparison(folder: Path, *, with_published: bool = False) -> list[Path]:
    """Write ``table.md``, ``table.csv``, ``table.tex``, ``figure.png`` and ``figure.svg`` beside ``compare.json``.

    Raises:
        IDCError: if the comparison is missing or malformed.
    """
    try:
        written = write_tables(folder)
        drawn = figure(read_rows(folder), with_published=with_published)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise IDCError(folder / "compare.json", f"a whole comparison (at {error!r})", "compare again") from error
    write_text(folder / "figure.svg", figures.svg(drawn))
    with whole_file(folder / "figure.png") as part:
        part.write_bytes(figures.png(drawn, dpi=150))
    return [*written, folder / "figure.svg", folder / "figure.png"]


def write_tables(folder: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv`` and ``table.tex`` of the rows that ``compare.json`` has so far."""
    rows = read_rows(folder)
    texts = {"table.md": markdown(rows, read_pairs(folder)), "table.csv": table(rows), "table.tex": latex(rows)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
