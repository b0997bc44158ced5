"""The figures of docs/paper.md, from benchmarks/results alone; see paper.py."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import CIFAR, RESULTS, mark_of, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idc.errors import IDCError
from idc.report import figures
from idc.report.comparison import published
from idc.report.curves import COLOURS, flops_scale
from idc.report.labelling import label_points
from idc.storage.files import write_text
from idc.text import eps_text, fraction

DOCS = Path(__file__).parents[1] / "docs"
PROTOCOLS = {"paper": COLOURS[1], "adaptive": COLOURS[0]}
LINES = {"published": "along the published probabilities", "smooth": "along the one-step answer's inner products"}
STEPS = {"steps-nano": "idc-nano-cifar10, chain", "steps-robust": "idc-nano-cifar10-robust, one step"}
TRAININGS = {"inter-class": "T = 4", "no-inter-class": "T = 4", "timesteps-2": "T = 2", "timesteps-8": "T = 8"}
ABLATION = {"timesteps-2": "T = 2", "uniform-timesteps": "T = 4", "timesteps-8": "T = 8"}  # rows of ablation-nano
PUBLISHED_COST = {"IDC": 27.09, "DiffPure": 14_260.0}  # GFLOPs of the paper's figure 1: no accuracy goes with them
NEAR = 8.0  # points of accuracy
SMALL = f"{CIFAR} at 16x16 test"
Point = dict[str, Any]


def part(name: str) -> dict[str, Any]:
    """What benchmarks/results/paper.json has of a part; {} if nothing was measured."""
    file = RESULTS / "paper.json"
    found: dict[str, Any] = read(file)["parts"].get(name, {}) if file.exists() else {}
    return found


def measured(name: str, key: str) -> dict[str, Any]:
    """The same, of a part that has come to ``key``.

    Raises:
        IDCError: if it has not.
    """
    if not (found := part(name)).get(key):
        raise IDCError(f"a figure of {name}", "a part that was measured",
                       f"run python benchmarks/paper.py run --only {name}")  # fmt: skip
    return found


# -- figure 1 ----------------------------------------------------------------------------------------------------------


def points() -> dict[str, list[Point]]:
    """By panel, each point of figure 1: system, protocol, GFLOPs, parameters, accuracy with its interval, n."""
    found: dict[str, list[Point]] = {f"{CIFAR} test, 8/255": [], f"{SMALL}, 8/255": [], "digits test, 0.1": []}
    cifar, small, digits = found.values()
    models = measured("costs", "models")["models"]
    jobs = {row["job"]: row for row in read(RESULTS / "gpu.json")["rows"]}
    for job, system in (
        ("base-paper-8", "IDC, the paper's network"), ("base-adaptive-8", "IDC, the paper's network"),
        ("nano-robust-adaptive-8", "IDC, nano, trained against attacks"), ("thin-adaptive-8", "CNN, PGD-AT, thin"),
    ):  # fmt: skip
        row = jobs[job]
        own = {"system": system} | _robust(row["protocol"], row)
        cifar.append(own | {k: models[row["model"]][k] for k in ("flops", "parameters")})
    for row in read(RESULTS / "robustness-nano.json")["rows"]:
        if row["eps_text"] == "8/255":
            own = {"system": "IDC, nano, chain"} | _robust(row["protocol"], row)
            cifar.append(own | {k: models["idc-nano-cifar10"][k] for k in ("flops", "parameters")})
    # Those of peers-robust stand above with all test images.
    compared = {"cifar": ("8/255", cifar), "cifar-16": ("8/255", small), "digits": ("0.1", digits)}
    for name, (eps, panel) in compared.items():
        for row in (r for r in read(RESULTS / f"peers-{name}.json")["rows"] if r["eps_text"] == eps):
            for protocol, held in row["protocols"].items():
                own = {"system": row["name"]} | _robust(protocol, held)
                panel.append(own | {k: row[k] for k in ("flops", "parameters")})
    return found


def _robust(protocol: str, evaluated: dict[str, Any]) -> Point:
    return {"protocol": protocol, "robust": evaluated["robust"]["mean"], "mark": mark_of(evaluated)}


def figure_1() -> Figure:
    """Robust accuracy over the FLOPs of an answer, circles as large as these: IDC, CNNs, DiffPure, ZDC and RDC."""
    panels = points()
    drawn = Figure(figsize=(7.4, 4.8 * len(panels)))
    texts: list[tuple[Axes, list[tuple[str, float, float]]]] = []
    for index, (panel, own) in enumerate(panels.items()):
        axes = drawn.add_subplot(len(panels), 1, index + 1)
        largest = max(p["flops"] for p in own)
        for protocol, colour in PROTOCOLS.items():
            some = [p for p in own if p["protocol"] == protocol]
            x, y = [p["flops"] / 1e9 for p in some], [100 * p["robust"]["mean"] for p in some]
            axes.errorbar(x, y, yerr=_bars([p["robust"] for p in some]), fmt="none", ecolor=colour, alpha=0.5)
            areas = [25 + 400 * p["flops"] / largest for p in some]
            axes.scatter(x, y, s=areas, color=colour, alpha=0.5, label=f"under {protocol}")
        texts.append((axes, [*_labels(own), *(_published(axes) if index == 0 else [])]))
        flops_scale(axes)
        axes.set_title(f"{panel}; bars: 95%", fontsize=9, loc="left")
        axes.set(ylabel="robust accuracy, %", ylim=(-8, 108))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=7, markerscale=0.5, loc="upper center", ncols=3)
        axes.set_xlabel("GFLOPs of one answer; circles as large as these (from a smallest one on)", fontsize=9)
    drawn.tight_layout()
    for axes, labels in texts:
        label_points(axes, labels, size=5, near=6)
    return drawn


def _labels(own: Sequence[Point]) -> list[tuple[str, float, float]]:
    """A label for each point, and one for two of a system that lie together."""
    found: list[tuple[str, float, float]] = []
    for p in own:
        text, x, y = f"{p['system']}, n {p['robust']['n']:,}{p['mark']}", p["flops"] / 1e9, 100 * p["robust"]["mean"]
        if not any((text, x) == other[:2] and abs(y - other[2]) < NEAR for other in found):
            found.append((text, x, y))
    return found


def _published(axes: Axes) -> list[tuple[str, float, float]]:
    """Diamonds for published networks, lines for the published costs; the labels of both."""
    known = [p for p in published() if p["gflops"]]
    axes.scatter([p["gflops"] for p in known], [p["robust"] for p in known], marker="d", color="#999999",
                 label="published, not measured here")  # fmt: skip
    for gflops in PUBLISHED_COST.values():
        axes.axvline(gflops, color="#999999", linewidth=0.8, linestyle=":")
    costs = [(f"{name}: published cost", gflops, 92.0) for name, gflops in PUBLISHED_COST.items()]
    return [*((f"{p['system']}, published: {p['setting']}", p["gflops"], p["robust"]) for p in known), *costs]


def _bars(shares: Sequence[dict[str, float]]) -> list[list[float]]:
    return [[100 * max(0.0, s["mean"] - s["low"]) for s in shares],
            [100 * max(0.0, s["high"] - s["mean"]) for s in shares]]  # fmt: skip


# -- figure 4 ----------------------------------------------------------------------------------------------------------


def _line(
    axes: Axes, x: Sequence[float], shares: Sequence[dict[str, float]], index: int, label: str, style: str
) -> None:
    colour = COLOURS[index % len(COLOURS)]
    axes.errorbar(x, [100 * s["mean"] for s in shares], yerr=_bars(shares), fmt=style, color=colour, label=label, ms=4,
                  capsize=2, linewidth=1.2)  # fmt: skip


def _finish(axes: Axes, xlabel: str, title: str) -> None:
    axes.set(xlabel=xlabel, ylabel="accuracy, %", ylim=(-2, 102))
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=7)


def figure_4a() -> Figure:
    """Accuracy over the steps of PGD at 8/255, along two functions of each model."""
    names = [name for name in STEPS if part(name).get("published")] or list(STEPS)
    drawn = Figure(figsize=(4.4 * len(names), 3.6), layout="tight")
    for at, name in enumerate(names):
        found, axes = measured(name, "published"), drawn.add_subplot(1, len(names), at + 1)
        for index, line in enumerate(key for key in LINES if key in found):
            own = found[line]
            label = f"{LINES[line]}, n {own['images']}"
            _line(axes, [p["steps"] for p in own["points"]], own["points"], 1 - index, label, "o-")
        _finish(axes, "steps of PGD, 2/255 each", f"{STEPS[name]}\n{CIFAR} test, 8/255")
    return drawn


def _trainings(*wanted: str) -> tuple[list[dict[str, Any]], str]:
    """Rows of the short trainings, and what they are of: CIFAR-10 where any of ``wanted`` was made, else the digits."""
    nano = any(row["training"] in wanted for row in part("trainings-nano").get("rows", ()))
    found = measured("trainings-nano" if nano else "trainings-digits", "rows")
    return found["rows"], f"{CIFAR} test" if nano else "digits test"


def over_eps(row: dict[str, Any]) -> tuple[list[float], list[dict[str, float]]]:
    """Sizes and accuracies of a row under PGD-20, from clean on."""
    own = {fraction(name.split()[1]): value for name, value in row["attacks"].items() if name.startswith("pgd-20 ")}
    sizes = sorted(own)
    return [0.0, *sizes], [row["clean"], *(own[e] for e in sizes)]


def search_of(row: dict[str, Any]) -> str:
    """The name of a row's search: adaptive 4/255."""
    return next(name for name in row["attacks"] if name.startswith("adaptive "))


def figure_4b() -> Figure:
    """Accuracy under PGD-20 over eps, with and without the inter-class loss, a line for each seed; under the search at
    one of them, a triangle."""
    rows, about = _trainings("no-inter-class")
    drawn = Figure(figsize=(5.6, 3.6), layout="tight")
    axes = drawn.add_subplot()
    for index, (name, title) in enumerate((("inter-class", "inter-class loss 0.2"), ("no-inter-class", "without it"))):
        for row in (r for r in rows if r["training"] == name):
            x, shares = over_eps(row)
            label = f"{title}, seed {row['seed']}, n {row['images']}"
            _line(axes, x, shares, index, label, "o-" if not row["seed"] else "s--")
            search = search_of(row)
            at, own = fraction(search.split()[1]), row["attacks"][search]
            _line(axes, [at], [own], index, f"{title}, search in place of PGD-20", "^" if not row["seed"] else "v")
    axes.set_xticks(x, [eps_text(e) if e else "0" for e in x], fontsize=7)
    _finish(axes, "eps of PGD-20 (published probabilities)", f"{about}, trained {rows[0]['epochs']:g} epochs")
    return drawn


def figure_4c() -> Figure:
    """Accuracy over visit lists of the same weights, and over T of trainings."""
    visits = measured("visits-nano", "rows")["rows"]
    panels: list[Callable[[Axes], None]] = [partial(_visits, rows=visits)]
    if (RESULTS / "ablation-nano.json").exists():
        panels.append(_ablation)
    trained = [r["training"] for name in ("nano", "digits") for r in part(f"trainings-{name}").get("rows", ())]
    if {"timesteps-2", "timesteps-8"} & set(trained):
        panels.append(_over_t)
    drawn = Figure(figsize=(4.6 * len(panels), 3.8), layout="tight")
    for index, draw in enumerate(panels):
        draw(drawn.add_subplot(1, len(panels), index + 1))
    return drawn


def _visits(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    _kinds(axes, rows, [", ".join(map(str, r["visits"])) for r in rows])
    _finish(axes, "timesteps visited", f"idc-nano-cifar10, {CIFAR} test, n {rows[0]['images']}")


def _ablation(axes: Axes) -> None:
    """Trainings against attacks with other T, from benchmarks/ablations.py."""
    found = read(RESULTS / "ablation-nano.json")
    rows = {(r["row"], r["answer_name"]): r for r in found["rows"]}
    for index, (answer, style) in enumerate((("one step", "-"), ("chain", "--"))):
        own = [rows[name, answer] for name in ABLATION if (name, answer) in rows]
        for kind, mark in (("clean", "o"), ("robust", "^")):
            label = f"{answer}, {'clean' if kind == 'clean' else 'quick'}, n {own[0]['images']}"
            _line(axes, range(len(own)), [r[kind]["majority"] for r in own], index, label, mark + style)
    axes.set_xticks(range(len(ABLATION)), list(ABLATION.values()))
    title = f"nano-patch4, trained against attacks\n{CIFAR} validation, {found['eps']}"
    _finish(axes, "trained with", title)


def _over_t(axes: Axes) -> None:
    rows, about = _trainings("timesteps-2", "timesteps-8")
    some = [r for r in rows if r["training"] != "no-inter-class"]
    own = sorted(some, key=lambda r: (TRAININGS[r["training"]], r["seed"]))
    _kinds(axes, own, [f"{TRAININGS[r['training']]}\nseed {r['seed']}" for r in own])
    _finish(axes, "trained with", f"the paper's losses, {about}, n {own[0]['images']}")


def _kinds(axes: Axes, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Clean, PGD-20 and adaptive accuracy of each row, side by side."""
    search = next(name for name in rows[0]["attacks"] if name.startswith("adaptive "))
    eps = search.split()[1]
    kinds = {"clean": [r["clean"] for r in rows]}
    for name, label in ((f"pgd-20 {eps}", f"PGD-20, {eps}"), (search, f"adaptive search, {eps}")):
        kinds[label] = [r["attacks"][name] for r in rows]
    for index, (label, shares) in enumerate(kinds.items()):
        _line(axes, range(len(rows)), shares, (6, 1, 0)[index], label, "os^"[index])
    axes.set_xticks(range(len(rows)), names, fontsize=7)


FIGURES: dict[str, Callable[[], Figure]] = {"1": figure_1, "4a": figure_4a, "4b": figure_4b, "4c": figure_4c}


def write_all(folder: Path = DOCS) -> list[Path]:
    """Each figure of which something was measured; of the others a line is said."""
    written = []
    for name, draw in FIGURES.items():
        try:
            drawn = draw()
        except IDCError as error:
            print(f"figure {name}: {error}")
            continue
        write_text(folder / f"paper-figure-{name}.svg", figures.svg(drawn) + "\n")
        written.append(folder / f"paper-figure-{name}.svg")
    return written
