"""The tables of docs/labels.md: image labels beside K logits; see pages.py."""

import math
from itertools import groupby

import numpy as np
from common import RESULTS, read
from label_sides import OWN, REFERENCES, SIDES
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from idc.evaluation.verdict import wilson
from idc.storage.fields import recorded
from idc.text import eps_text, gflops_text, share, table_head, table_row

Interval = tuple[float, float, float]  # mean, low, high


def interval(values: NDArray[np.float64]) -> Interval:
    """The mean of independent values with Student's 95% interval; nothing is known of a single one's spread."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -math.inf, math.inf
    if not values.std():
        return mean, mean, mean
    found = ttest_1samp(values, 0.0).confidence_interval(0.95)
    return mean, float(found.low), float(found.high)


def verdicts(rows: list[dict], key: str, seeds: list[int]) -> NDArray[np.float64]:
    """(seeds, images) of 0 and 1."""
    own = {r["seed"]: r[key] for r in rows}
    return np.array([[float(c) for c in own[seed]] for seed in seeds])


def differences(rows: list[dict], others: list[dict], key: str = "survived") -> tuple[Interval, Interval] | None:
    """By how much the first are ahead of the others with the same seeds, on the same images: with the interval over
    seeds, of which each gives the mean over images, and over images, of which each gives the mean over seeds. None if
    they have no seed in common, or other images."""
    seeds = sorted({r["seed"] for r in rows} & {r["seed"] for r in others})
    if not seeds or len({r["ids"] for r in (*rows, *others)}) > 1:
        return None
    ahead = verdicts(rows, key, seeds) - verdicts(others, key, seeds)
    return interval(ahead.mean(1)), interval(ahead.mean(0))


def points(found: tuple[Interval, Interval] | None) -> str:
    """In points: +1.2, seeds [-0.3, +2.7], images [-0.1, +2.5]."""
    if found is None:
        return ""
    (mean, *seeds), (_, *images) = found
    told = [f"{name} [{100 * low:+.1f}, {100 * high:+.1f}]" if math.isfinite(low) else "one seed"
            for name, (low, high) in (("seeds", seeds), ("images", images))]  # fmt: skip
    return ", ".join([f"{100 * mean:+.1f}", *told])


def _share(rows: list[dict], kind: str) -> str:
    """The mean over seeds, with Wilson's interval over the images."""
    mean = sum(r[kind]["majority"]["mean"] for r in rows) / len(rows)
    return share(recorded(wilson(mean, rows[0]["images"])))


def _named(row: dict) -> str:
    words = SIDES[row["side"]].answers.get(row["answer"], row["answer"])
    return f"`{row['side']}`" + (f": {words}" if row["answer"] != OWN else "")


def _table(rows: list[dict]) -> list[str]:
    references = [[r for r in rows if r["side"] == name] for name in REFERENCES]
    beside = [f"beside `{name}`" for name in REFERENCES]
    lines = table_head("side", "seeds", "clean", "robust", *beside, "GFLOPs an answer", "of training, an image",
                       "seconds")  # fmt: skip
    for _, group in groupby(sorted(rows, key=_place), key=_place):
        own = list(group)
        cells = [points(differences(own, others)) if own[0]["side"] != name else ""
                 for name, others in zip(REFERENCES, references, strict=True)]  # fmt: skip
        cost = [gflops_text(own[0]["flops"]), gflops_text(own[0]["training_flops"])]
        seconds = sum(r["seconds"] for r in own) / len(own)
        lines.append(
            table_row(_named(own[0]), len(own), _share(own, "clean"), _share(own, "robust"), *cells, *cost,
                      f"{seconds:,.0f}")
        )  # fmt: skip
    return lines


def _place(row: dict) -> tuple[int, int]:
    side = SIDES[row["side"]]
    return list(SIDES).index(row["side"]), list(side.answers).index(row["answer"])


def _about(rows: list[dict], data: str) -> list[str]:
    one = rows[0]
    several = {key: sorted({r[key] for r in rows}) for key in ("updates", "epochs", "images", "training_images")}
    words = {key: " or ".join(f"{value:,g}" for value in values) for key, values in several.items()}
    machines = " or ".join(sorted({r["hardware"]["gpu"] or r["hardware"]["cpu"] for r in rows}))
    epochs = "epoch" if words["epochs"] == "1" else "epochs"
    noisy = [r for r in rows if r["draws"] > 1 and r["answer"] == "random half"]
    parts = [
        f"{words['images']} validation images of {data}, protocol `quick`, L-inf {eps_text(one['eps'])}; trained for "
        f"{words['updates']} updates ({words['epochs']} {epochs} of {words['training_images']} images); the last "
        "weights are judged. Clean and robust: means over the seeds, brackets: 95% Wilson intervals over images. "
        "*Beside*: points of what is robust, with Student's 95% intervals: over seeds, for these images, and over "
        "images, for these networks. "
        f"Seconds of training are those of one thread of {machines} among others at work."
    ]
    if noisy:
        mean, worst = (sum(r["robust"][k]["mean"] for r in noisy) / len(noisy) for k in ("mean", "worst_of_n"))
        parts.append(
            f" The random half is judged by the majority of {noisy[0]['draws']} draws; under attack {mean:.1%} of "
            f"single draws are right, and all {noisy[0]['draws']} of {worst:.1%} of images."
        )
    if doubtful := sorted({_named(r) for r in rows if not r["reliable"]}):
        parts.append(f" Sanity checks failed for {', '.join(doubtful)}.")
    return ["".join(parts)]


def image_labels() -> list[str]:
    """docs/labels.md: every side, by data."""
    file = RESULTS / "image-labels.json"
    found = read(file)["rows"] if file.exists() else []
    if not found:
        return ["Not measured yet."]
    shown = [name for name in SIDES if any(r["side"] == name for r in found)]
    lines = [*table_head("side", "what it is"), *(table_row(f"`{name}`", SIDES[name].meaning) for name in shown), ""]
    for data, group in groupby(sorted(found, key=lambda r: r["data"] != "digits"), key=lambda r: r["data"]):
        rows = list(group)
        lines += [f"### {'The digits' if data == 'digits' else data}", "", *_table(rows), "", *_about(rows, data), ""]
    return lines
