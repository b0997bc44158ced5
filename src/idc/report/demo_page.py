"""One self-contained HTML page from the records of a demo."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup
from safetensors import SafetensorError
from safetensors.numpy import load_file

from idc.errors import IDCError
from idc.report import figures
from idc.report.figures import Array
from idc.report.html import data_uri, difference, environment
from idc.storage.files import whole_file, write_text
from idc.text import percent, share

_PICTURES = (
    "labels", "panel_images", "panel_steps", "panel_nearest", "panel_attacked", "panel_attacked_translation",
    "panel_attacked_nearest",
)  # fmt: skip


def reading(records: dict[str, Any]) -> str:
    """What the curve says, in words that follow from its numbers."""
    points = records["attack"]["curve"]
    withstood = [p for p in points if p["attacked"]["multi_step"]["low"] > 0.5]
    failed = [p for p in points if p["attacked"]["multi_step"]["high"] < 0.5]
    parts = []
    if withstood:
        p = withstood[-1]
        parts.append(f"It withstands this attack up to eps {p['eps']} ({share(p['attacked']['multi_step'])} right)")
    if failed:
        p = failed[0]
        noise = percent(p["noise"]["multi_step"]["mean"])
        right = share(p["attacked"]["multi_step"])
        text = f"fails at eps {p['eps']} ({right} right; random noise of that size leaves {noise})"
        parts.append(text if withstood else f"It {text}")
    return ", and ".join(parts) + "." if parts else "It neither clearly withstands nor clearly fails at these sizes."


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    remedy = "run idc demo again"
    try:
        records = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
        pictures = load_file(folder / "pictures.safetensors")
    except FileNotFoundError as error:
        raise IDCError(
            folder, f"demo.json and pictures.safetensors ({Path(str(error.filename)).name} is missing)", remedy
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise IDCError(folder, "whole record files", remedy) from error
    missing = [name for name in _PICTURES if name not in pictures]
    if not isinstance(records, dict) or missing:
        raise IDCError(folder, f"the pictures {', '.join(missing)}" if missing else "a record", remedy)
    return records, pictures


def _panel(records: dict[str, Any], pictures: dict[str, Array]) -> list[dict[str, Any]]:
    """Each image's way to its label, clean and attacked, ready for the template."""
    rows = []
    for i, row in enumerate(records["pictures"]["panel"]):
        image, attacked = pictures["panel_images"][i], pictures["panel_attacked"][i]
        rows.append(
            row
            | {
                "image": data_uri(image),
                "steps": [data_uri(step) for step in pictures["panel_steps"][:, i]],
                "nearest": data_uri(pictures["panel_nearest"][i]),
                "attacked": data_uri(attacked),
                "difference": difference(image, attacked),
                "attacked_translation": data_uri(pictures["panel_attacked_translation"][i]),
                "attacked_nearest": data_uri(pictures["panel_attacked_nearest"][i]),
            }
        )
    return rows


def write_demo_page(folder: Path) -> Path:
    """Write ``report.html``, ``overview.png`` and ``curve.csv`` into ``folder`` from its ``demo.json`` and pictures.

    Raises:
        IDCError: if a record is missing or malformed, or the folder cannot be written.
    """
    records, pictures = _read(folder)
    try:
        page = (
            environment()
            .get_template("demo.html")
            .render(
                r=records,
                panel=_panel(records, pictures),
                labels=[
                    {"name": name, "image": data_uri(label)}
                    for name, label in zip(records["class_names"], pictures["labels"], strict=True)
                ],
                reading=reading(records),
                curve=Markup(figures.svg(figures.curve_figure(records["attack"]["curve"], records["clean"]))),
                learning=Markup(figures.svg(figures.learning_figure(records["training"]["history"]))),
            )
        )
        overview = figures.png(figures.overview(records, pictures))
        rows = _csv_rows(records)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise IDCError(folder / "demo.json", f"a whole record (at {error})", "run idc demo again") from error
    with whole_file(folder / "overview.png") as part:
        part.write_bytes(overview)
    write_text(folder / "curve.csv", "\n".join(rows) + "\n")
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _csv_rows(records: dict[str, Any]) -> list[str]:
    rows = ["eps,input,answer,accuracy,low,high,n"]
    for point in records["attack"]["curve"]:
        for kind in ("attacked", "noise"):
            for answer, value in point[kind].items():
                figures_ = ",".join(str(value[k]) for k in ("mean", "low", "high", "n"))
                rows.append(f"{point['eps']},{kind},{answer},{figures_}")
    return rows
