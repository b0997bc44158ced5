"""What ``idc sweep`` does: one evaluation for each value of a setting."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from idc.commands.evaluate import Say, evaluate
from idc.commands.request import Request
from idc.errors import IDCError
from idc.storage.files import make_folder, write_json
from idc.text import parse_eps

SWEEPS = ("eps", "steps", "eot", "restarts", "draws", "visits", "eta")


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """``steps=5,10,20`` or ``visits=3;3,0;3,1,0`` -> the setting and its values.

    Raises:
        IDCError: for another setting or values that are none.
    """
    name, _, values = text.partition("=")
    remedy = "write for example steps=5,10,20 or visits='3;3,0;3,1,0'"
    if name not in SWEEPS or not values:
        raise IDCError(f"sweep {text!r}", f"one of {', '.join(SWEEPS)} with values", remedy)
    try:
        if name == "visits":
            return name, [tuple(int(v) for v in part.split(",")) for part in values.split(";")]
        kind: Callable[[str], Any] = parse_eps if name == "eps" else float if name == "eta" else int
        return name, [kind(v) for v in values.split(",")]
    except ValueError as error:
        raise IDCError(f"sweep {text!r}", "numbers", remedy) from error


def run_sweep(request: Request, over: str, out: Path, *, say: Say = print) -> dict[str, Any]:
    """Evaluate once for each value of one setting, each in a folder of its own below ``out``; resumable.

    Returns:
        ``setting`` and ``rows`` (``value``, ``clean``, ``noise``, ``robust``, ``cost``), as in ``out/sweep.json``.

    Raises:
        IDCError: see ``parse_sweep`` and ``evaluate``.
    """
    name, values = parse_sweep(over)
    rows = []
    for value in values:
        text = "-".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"
        say(f"{name} = {text}")
        summary = evaluate(_changed(request, name, value), make_folder(out) / f"{name}-{text}", say=say)
        if summary:
            kinds = ("clean", "noise", "robust", "cost", "answer")
            rows.append({"value": value, "text": text} | {kind: summary[kind] for kind in kinds})
    found = {"setting": name, "protocol": request.protocol, "model": request.model, "rows": rows}
    if rows:
        write_json(out / "sweep.json", found)
    return found


def _changed(request: Request, name: str, value: Any) -> Request:
    if name in ("eps", "draws", "visits", "eta"):
        return replace(request, **{name: value})
    return replace(request, knobs=(*[k for k in request.knobs if k[0] != name], (name, value)))
