"""What a report holds, whatever its form: results, sentences, figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from idc.report import curves
from idc.report.comparison import paired_texts
from idc.report.results import Result, read_certificates, read_results, read_trainings
from idc.report.statement import doubts, statement
from idc.storage.kinds import COMPARISON, kind_of
from idc.text import NORMS, eps_text, percent, share


@dataclass(frozen=True, slots=True)
class Heading:
    """What a page is called, who made it and when; all may be empty."""

    title: str = ""
    author: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What a report holds.

    Args:
        heading: its title, and the line below.
        results, certificates: see ``idc.report.results``.
        unions: the sweeps over norms.
        readings: what they say, in sentences.
        figures: by name, each with its title.
    """

    heading: Heading
    results: list[Result]
    certificates: list[dict[str, Any]]
    unions: list[dict[str, Any]]
    readings: list[str]
    figures: dict[str, tuple[str, Figure]]

    @property
    def title(self) -> str:
        """The one that was asked for, or what it is."""
        if self.heading.title:
            return self.heading.title
        attacked = any("own" not in r.summary for r in self.results)
        if self.certificates and not self.results:
            return "Certified robustness"
        return "Robustness evaluation" if attacked or self.certificates else "Evaluation"


def read_content(folders: Sequence[Path], heading: Heading) -> Content:
    """The content of a report of these folders.

    Raises:
        IDCError: if one of them holds no result.
    """
    results, sweeps = read_results(folders)
    certificates, trainings = read_certificates(folders), read_trainings(folders)
    pairs = [text for folder in folders if kind_of(folder) == COMPARISON for text in paired_texts(folder)]
    unions = [sweep for sweep in sweeps if "union" in sweep]
    sentences = [*readings(results), *survival(sweeps), *map(_of_all_norms, unions), *pairs]
    drawn = _figures(results, sweeps, certificates, trainings)
    return Content(heading, results, certificates, unions, sentences, drawn)


def readings(results: Sequence[Result]) -> list[str]:
    """What the figures say, in sentences that follow from them."""
    found = [f"{r.name}: {statement(r.summary)}" for r in results if r.summary["attacks"] or doubts(r.summary)]
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
    """What each sweep over eps says: up to where more than half of what is right without an attack stays right, and
    from where on less, as far as the intervals are on one side of it."""
    found = []
    for sweep in (s for s in sweeps if s["setting"] == "eps"):
        rows = sorted(sweep["rows"], key=lambda row: float(row["value"]))
        half = rows[0]["clean"]["mean"]["mean"] / 2
        survived = [row for row in rows if row["robust"]["mean"]["low"] > half]
        failed = [row for row in rows if row["robust"]["mean"]["high"] < half]
        parts = []
        for words, chosen in (
            ("clearly keeps more than half of that up to", survived[-1:]),
            ("clearly less from", failed[:1]),
        ):
            for one in chosen:
                noise = f"random noise of that size leaves {percent(one['noise']['mean']['mean'])}"
                right = share(one["robust"]["mean"])
                parts.append(f"{words} eps {eps_text(one['value'])} ({right} right; {noise})")
        said = ", and ".join(parts) or "neither clearly keeps nor clearly loses half of that at these sizes"
        found.append(f"{sweep['name']} under {sweep['protocol']}, {percent(2 * half)} right without: {said}.")
    return found


def _of_all_norms(sweep: dict[str, Any]) -> str:
    """What a sweep over norms says of them together."""
    balls = ", ".join(f"{NORMS[row['text']]} {eps_text(row['eps'])}" for row in sweep["rows"])
    own, about = sweep["union"]["mean"], f"{sweep['name']} under {sweep['protocol']}"
    return f"{about}: {share(own)} of {own['n']:,} images survive in every norm (union of {balls})."


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
