"""What ``idc sweep`` does: one evaluation for each value of a setting."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from idc.commands.evaluate import Say, at_work, evaluate, processes
from idc.commands.request import Request
from idc.errors import IDCError
from idc.storage import records
from idc.storage.fields import rules, short
from idc.storage.kinds import SWEEP

SWEEPS = ("eps", "steps", "eot", "restarts", "draws", "visits", "eta")


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """``steps=5,10,20`` or ``visits=3;3,0;3,1,0`` -> the setting and its values.

    Raises:
        IDCError: for another setting or values that are none.
    """
    name, _, values = text.partition("=")
    remedy = "write for example steps=5,10,20 or visits='3;3,0;3,1,0'"
    if name not in SWEEPS or not values:
        raise IDCError(f"sweep {short(text)}", f"one of {', '.join(SWEEPS)} with values", remedy)
    rule = rules(Request)[name]
    parts = values.split(";" if name == "visits" else ",")
    return name, [rule.read(name, part, where=f" in the sweep {short(text)}", remedy=remedy) for part in parts]


def run_sweep(request: Request, over: str, out: Path, *, say: Say = print) -> dict[str, Any]:
    """Evaluate once for each value of one setting, each in a folder of its own below ``out``; resumable.

    Returns:
        ``setting`` and ``rows`` (``value``, ``clean``, ``noise``, ``robust``, ``cost``), as in ``out/sweep.json``.

    Raises:
        IDCError: see ``parse_sweep`` and ``evaluate``.
    """
    name, values = parse_sweep(over)
    with at_work(out, processes()[0], kind=SWEEP):
        rows = list(_rows(request, name, values, out, say))
        found = {"setting": name, "protocol": request.protocol, "model": request.model, "rows": rows}
        if rows:
            found = records.write(out / "sweep.json", found)
    return found


def _rows(request: Request, name: str, values: list[Any], out: Path, say: Say) -> Iterator[dict[str, Any]]:
    for value in values:
        text = "-".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"
        say(f"{name} = {text}")
        summary = evaluate(replace(request, **{name: value}), out / f"{name}-{text}", say=say)
        if summary:
            kinds = ("clean", "noise", "robust", "cost", "answer")
            yield {"value": value, "text": text} | {kind: summary[kind] for kind in kinds}
