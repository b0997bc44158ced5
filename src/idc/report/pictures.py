"""Pictures of a result: the model's labels, the images on their way to them, clean and attacked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from markupsafe import Markup
from matplotlib.figure import Figure

from idc.errors import IDCError
from idc.report import curves, figures
from idc.report.html import data_uri, difference
from idc.report.results import Result, other_shares, read_results
from idc.storage.files import whole_file

_ROWS = 4  # images in an overview


def panel(r: Result) -> dict[str, Any]:
    """The first images of a result, clean and attacked, ready for the page of results."""
    names, p = r.summary["class_names"], r.pictures
    single = [k for k in p if k != "labels" and not k.endswith("_steps")]
    rows = []
    for i, row in enumerate(r.panel):
        cells: dict[str, Any] = {k: data_uri(p[k][i]) for k in single}
        rows.append(cells | {
            "difference": difference(p["clean"][i], p["adversarial"][i]), "truth": names[row["class"]],
            "answer": _named(names, row["clean"]), "attacked": _named(names, row["adversarial"]),
            "steps": [data_uri(step) for step in p["clean_steps"][i]] if "clean_steps" in p else [],
        })  # fmt: skip
    return {"rows": rows, "translations": "adversarial_translation" in p}


def _named(names: Sequence[str], answer: int) -> str:
    return names[answer] if answer >= 0 else "none: not finite"


def own_answers(r: Result) -> dict[str, Any]:
    """What the page of results shows of a clean evaluation: accuracies by name and by class, calibration, mistakes."""
    own, names = r.summary["own"], r.summary["class_names"]
    classes = [
        {"name": name, "right": row[k], "n": sum(row), "as": _taken_for(names, row, k)}
        for k, (name, row) in enumerate(zip(names, own["confusion"], strict=True))
        if sum(row)
    ]
    pictures = [] if r.mistakes is None else [data_uri(image) for image in r.mistakes]
    mistakes = [
        {"image": image, "truth": names[one["class"]], "answer": names[one["answer"]], "confidence": one["confidence"]}
        for image, one in zip(pictures, own["mistakes"], strict=False)
    ]
    return {
        "others": other_shares(r.summary), "classes": sorted(classes, key=lambda c: c["right"] / c["n"]),
        "mistakes": mistakes, "reliability": Markup(figures.svg(curves.reliability(r))),
    }  # fmt: skip


def _taken_for(names: Sequence[str], row: Sequence[int], own: int) -> str:
    """The class that images of a class are most often taken for, and how often; empty if none is."""
    count, other = max((n, -k) for k, n in enumerate(row[: len(names)]) if k != own) if len(names) > 1 else (0, 0)
    return f"{names[-other]} ({count})" if count else ""


def of_the_method(results: Sequence[Result]) -> dict[str, Any] | None:
    """What shows how an IDC answers: labels, and translations at each timestep; None if no result has kept them.

    Of several results, that whose answer visits most timesteps.
    """
    r = _longest(results)
    if r is None:
        return None
    names, labels = r.summary["class_names"], r.pictures["labels"]
    return {
        "name": r.name, "visits": r.summary["settings"]["visits"], "classes": len(names), "rows": panel(r)["rows"],
        "labels": [{"name": n, "image": data_uri(x)} for n, x in zip(names, labels, strict=False)],
        "apart": r.summary["labels"],
    }  # fmt: skip


def _longest(results: Sequence[Result]) -> Result | None:
    """Of the results that kept labels, the one whose answer visits most timesteps."""
    known = [r for r in results if "labels" in r.pictures]
    return max(known, key=lambda r: len(r.summary["settings"]["visits"]), default=None)


@figures.as_written()
def write_overview(folders: Sequence[Path], file: Path) -> None:
    """Write the idea at a glance as a PNG: image, translations, nearest label; the labels; accuracy over eps.

    Args:
        folders: results of an IDC, as ``write_report`` takes them.
        file: the picture.

    Raises:
        IDCError: if no result has pictures of labels, one is malformed, or the file cannot be written.
    """
    results, _ = read_results(folders)
    shown = _longest(results)
    if shown is None:
        raise IDCError(file, "a result of an IDC with pictures", "evaluate one with this version of idc")
    try:
        picture = figures.png(_overview(shown, results))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise IDCError(file, f"whole results of an IDC (at {error!r})", "evaluate again") from error
    with whole_file(file) as part:
        part.write_bytes(picture)


def _overview(r: Result, results: Sequence[Result]) -> Figure:
    p, names, settings = r.pictures, r.summary["class_names"], r.summary["settings"]
    figure = Figure(figsize=(14, 7.2), layout="constrained")
    left, right = cast(Any, figure.subfigures(1, 2, width_ratios=(1.55, 1)))
    count = min(_ROWS, len(r.panel))
    titles = ["image", *(f"x0_hat, t = {t}" for t in settings["visits"]), "nearest label"]
    grid = left.subplots(count, len(titles), squeeze=False)
    for i, line in enumerate(grid):
        for axes, image in zip(line, [p["clean"][i], *p["clean_steps"][i], p["clean_nearest"][i]], strict=True):
            axes.imshow(figures.to_rgb(image), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[-1].set_xlabel(f"answer: {_named(names, r.panel[i]['clean'])}", fontsize=11)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=11)
    left.suptitle("an image is translated into one of K fixed labels")
    top, bottom = right.subfigures(2, 1, height_ratios=(1, 2.1))
    shown = p["labels"][:5]
    for axes, label, name in zip(top.subplots(1, len(shown), squeeze=False)[0], shown, names, strict=False):
        axes.imshow(figures.to_rgb(label), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=11)
    top.suptitle("image labels", fontsize=11)
    curves.draw_over_eps(bottom.subplots(), results)
    bottom.suptitle(f"under attack: {settings['data']['source']} {settings['data']['split']}", fontsize=11)
    return figure
