"""The page of `idc report`: its tables (in templates/results.html), figures (PNG and SVG too), sentences and CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from markupsafe import Markup
from matplotlib.figure import Figure

from idc.errors import IDCError
from idc.report import curves, figures
from idc.report.comparison import paired_texts
from idc.report.html import environment
from idc.report.pictures import of_the_method, own_answers, panel
from idc.report.results import Result, read_certificates, read_results, read_trainings
from idc.report.statement import statement
from idc.storage.files import make_folder, whole_file, write_text
from idc.storage.kinds import COMPARISON, kind_of
from idc.text import csv_text, eps_text, percent, share


@dataclass(frozen=True, slots=True)
class Heading:
    """What a page is called, who made it and when; all may be empty."""

    title: str = ""
    author: str = ""
    date: str = ""


def readings(results: Sequence[Result]) -> list[str]:
    """What the figures say, in sentences that follow from them."""
    found = [f"{r.name}: {statement(r.summary)}" for r in results if r.summary["attacks"]]
    for paper in (r for r in results if r.protocol == "paper"):
        for own in results:
            if own.case == paper.case and own.protocol == "adaptive":
                # As published: one attack after the other, never the worst of them together.
                single = {n: v["mean"]["mean"] for n, v in paper.summary["attacks"].items() if n != "cw-l2"}
                high = max(single, key=lambda n: single[n])
                low = min(single, key=lambda n: single[n])
                robust = own.summary["robust"]["mean"]
                over = [100 * (single[n] - robust["mean"]) for n in (low, high)]
                found.append(
                    f"{own.name} at eps {eps_text(own.eps)}: the adaptive protocol leaves {share(robust)}; the paper's "
                    f"attacks, each alone, leave from {percent(single[low])} ({low}) to {percent(single[high])} "
                    f"({high})"
                    + (f": they overstate robustness by {over[0]:.1f} to {over[1]:.1f} points." if over[0] > 0 else ".")
                )
    return found


def survival(sweeps: Sequence[dict[str, Any]]) -> list[str]:
    """What each sweep over eps says: up to where more than half of the answers stay right, and from where on less."""
    found = []
    for sweep in (s for s in sweeps if s["setting"] == "eps"):
        rows = sorted(sweep["rows"], key=lambda row: float(row["value"]))
        survived = [row for row in rows if row["robust"]["mean"]["low"] > 0.5]
        failed = [row for row in rows if row["robust"]["mean"]["high"] < 0.5]
        parts = []
        for words, chosen in (("survives up to", survived[-1:]), ("fails at", failed[:1])):
            for one in chosen:
                noise = f"random noise of that size leaves {percent(one['noise']['mean']['mean'])}"
                right = share(one["robust"]["mean"])
                parts.append(f"{words} eps {eps_text(one['value'])} ({right} right; {noise})")
        said = ", and ".join(parts) or "neither clearly survives nor clearly fails at these sizes"
        found.append(f"{sweep['name']} under {sweep['protocol']} {said}.")
    return found


def _csv(results: Sequence[Result], certificates: Sequence[dict[str, Any]]) -> str:
    rows: list[list[Any]] = [["folder", "model", "protocol", "norm", "eps", "n", "draws", "points", "verdict",
                              "accuracy", "low", "high"]]  # fmt: skip
    for r in results:
        s = r.summary
        points = {"clean": s["clean"]}
        if s["attacks"]:
            points |= {"noise": s["noise"], "robust": s["robust"]}
            points |= {f"attack {name}": v for name, v in s["attacks"].items()}
        for name, verdict in points.items():
            for kind in ("mean", "majority", "worst_of_n"):
                v = verdict[kind]
                rows.append([r.folder, r.name, r.protocol, r.threat["norm"], r.eps, s["images"], s["draws"], name,
                             kind, v["mean"], v["low"], v["high"]])  # fmt: skip
        for v in s.get("distances", {}).get("curve", ()):
            rows.append([r.folder, r.name, r.protocol, r.threat["norm"], v["radius"], s["images"], s["draws"],
                         "security curve", "mean", v["mean"], v["low"], v["high"]])  # fmt: skip
        if v := s.get("own", {}).get("accuracy"):
            rows.append([r.folder, r.name, r.protocol, "", "", s["images"], "", "clean", "own answer", v["mean"],
                         v["low"], v["high"]])  # fmt: skip
    for c in certificates:
        smoothing = c["settings"]["smoothing"]
        for v in c["curve"]:
            rows.append([c["folder"], c["name"], "certify", "l2", v["radius"], c["images"], smoothing["n"],
                         "certified", f"sigma {smoothing['sigma']:g}", v["mean"], v["low"], v["high"]])  # fmt: skip
    return csv_text(rows)


def _figures(
    results: Sequence[Result], sweeps: Sequence[dict[str, Any]], certificates: Sequence[dict[str, Any]],
    trainings: Sequence[dict[str, Any]],
) -> dict[str, tuple[str, Figure]]:  # fmt: skip
    found: dict[str, tuple[str, Figure]] = {}
    for name, title, figure in (
        ("eps", "Accuracy over the size of the attack", curves.over_eps(results)),
        ("distance", "Security curve: accuracy over the radius", curves.over_distance(results)),
        ("flops", "Robust accuracy over the cost of an answer", curves.over_flops(results)),
        ("radius", "Certified accuracy of the smoothed model over the radius", curves.over_radius(certificates)),
    ):
        if figure is not None:
            found[name] = (title, figure)
    for index, sweep in enumerate(sweeps):
        name = f"sweep-{sweep['setting']}" + (f"-{index}" if f"sweep-{sweep['setting']}" in found else "")
        found[name] = (f"{sweep['name']}, {sweep['protocol']}: over {sweep['setting']}", curves.over_setting(sweep))
    for index, run in enumerate(trainings):
        title = f"{run['folder']}: training, {run['seconds']:,.0f} s, {run['images_seen']:,} images seen"
        found[f"training-{index}" if index else "training"] = (title, curves.over_epochs(run["history"]))
    return found


def _made(folders: Sequence[Path], heading: Heading) -> tuple[str, str, dict[str, tuple[str, Figure]]]:
    results, sweeps = read_results(folders)
    certificates, trainings = read_certificates(folders), read_trainings(folders)
    pairs = [text for folder in folders if kind_of(folder) == COMPARISON for text in paired_texts(folder)]
    drawn = _figures(results, sweeps, certificates, trainings)
    confusions = [curves.confusion(r) if r.summary["attacks"] or "own" in r.summary else None for r in results]
    html = environment().get_template("results.html").render(
        heading=heading,
        readings=[*readings(results), *survival(sweeps), *pairs],
        method=of_the_method(results),
        certificates=certificates,
        figures=[(title, Markup(figures.svg(figure))) for title, figure in drawn.values()],
        results=[
            {
                "r": r, "s": r.summary, "eps": eps_text(r.eps), "own": own_answers(r) if "own" in r.summary else None,
                "panel": panel(r) if r.panel and r.summary["attacks"] else None,
                "confusion": None if c is None else Markup(figures.svg(c)),
            }
            for r, c in zip(results, confusions, strict=True)
        ],
    )  # fmt: skip
    return html, _csv(results, certificates), drawn


def _page(folders: Sequence[Path], heading: Heading) -> tuple[str, str, dict[str, tuple[str, Figure]]]:
    """The page, its CSV and its figures. A folder whose records lack something is named, and what they lack."""
    try:
        return _made(folders, heading)
    except (KeyError, TypeError, ValueError, IndexError, UndefinedError) as error:
        for folder in folders if len(folders) > 1 else ():
            _page([folder], heading)  # raises for the one that is to blame
        told = f"{error} is missing" if isinstance(error, KeyError) else error
        raise IDCError(
            ", ".join(map(str, folders)), f"a whole result ({told})", "make it again with this version of idc"
        ) from error


@figures.as_written()
def write_report(folders: Sequence[Path], page: Path, heading: Heading | None = None) -> list[Path]:
    """Write ``page``, and beside it ``NAME.csv`` and each figure as ``NAME-figure.png`` and ``.svg``.

    Args:
        folders: of ``idc evaluate``, ``idc compare``, ``idc sweep``, ``idc certify`` or a training.
        page: the HTML file.
        heading: its title and the line below.

    Returns:
        The files written.

    Raises:
        IDCError: if a result is missing or malformed, or the page is no .html or cannot be written.
    """
    html, table, drawn = _page(folders, heading or Heading())
    if page.suffix.lower() not in (".html", ".htm"):
        raise IDCError(page, "the name of a page, such as report.html", "give another --out")
    make_folder(page.parent)
    written = [page, page.with_suffix(".csv")]
    write_text(page.with_suffix(".csv"), table)
    for name, (_, figure) in drawn.items():
        files = [page.with_name(f"{page.stem}-{name}.{kind}") for kind in ("png", "svg")]
        with whole_file(files[0]) as part:
            part.write_bytes(figures.png(figure, dpi=150))
        write_text(files[1], figures.svg(figure))
        written += files
    write_text(page, html)
    return written
