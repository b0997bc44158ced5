"""What ``idc sweep`` does: one evaluation for each value of a setting."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from idc.commands.evaluate import Say, at_work, evaluate, processes
from idc.commands.request import Request
from idc.errors import IDCError
from idc.evaluation.summary import read_lines
from idc.evaluation.union import union
from idc.storage import records
from idc.storage.fields import rules, short
from idc.storage.kinds import SWEEP

SWEEPS = ("eps", "steps", "eot", "restarts", "draws", "visits", "eta", "norm")


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """``steps=5,10,20``, ``visits=3;3,0;3,1,0`` or ``norm=linf:8/255,l2,l1`` -> the setting and its values; of a norm
    with its radius, None for the usual one.

    Raises:
        IDCError: for another setting or values that are none.
    """
    name, _, values = text.partition("=")
    remedy = "write for example steps=5,10,20 or visits='3;3,0;3,1,0'"
    if name not in SWEEPS or not values:
        raise IDCError(f"sweep {short(text)}", f"one of {', '.join(SWEEPS)} with values", remedy)
    rule = rules(Request)[name]
    if name == "norm":
        return name, _norms(values, where=f" in the sweep {short(text)}")
    parts = values.split(";" if name == "visits" else ",")
    return name, [rule.read(name, part, where=f" in the sweep {short(text)}", remedy=remedy) for part in parts]


def _norms(values: str, *, where: str) -> list[tuple[str, float | None]]:
    own, remedy, found = rules(Request), "write norm=linf,l2,l1 or norm=linf:8/255,l2:0.5,l1:12", []
    for part in values.split(","):
        norm, _, eps = part.partition(":")
        radius = own["eps"].read("eps", eps, where=where, remedy=remedy) if eps else None
        found.append((own["norm"].read("norm", norm.strip(), where=where, remedy=remedy), radius))
    if len(dict(found)) < len(found):
        raise IDCError(f"norms {short(values)}", "each norm once", "sweep over eps for several radii")
    return found


def run_sweep(request: Request, over: str, out: Path, *, say: Say = print) -> dict[str, Any]:
    """Evaluate once for each value of one setting, each in a folder of its own below ``out``; resumable.

    Returns:
        ``setting`` and ``rows`` (``value``, ``eps``, ``clean``, ``noise``, ``robust``, ``cost``), as in
        ``out/sweep.json``; over norms also ``union``, see ``idc.evaluation.union``.

    Raises:
        IDCError: see ``parse_sweep`` and ``evaluate``.
    """
    name, values = parse_sweep(over)
    if name == "norm" and request.eps is not None:
        raise IDCError(f"--eps {request.eps:g}", "a radius for each norm", "write --over norm=linf:8/255,l2:0.5,l1:12")
    with at_work(out, processes()[0], kind=SWEEP):
        rows = list(_rows(request, name, values, out, say))
        found: dict[str, Any] = {"setting": name, "protocol": request.protocol, "model": request.model, "rows": rows}
        if rows and name == "norm":
            found["union"] = union([read_lines(out / f"norm-{row['text']}") for row in rows])
        if rows:
            found = records.write(out / "sweep.json", found)
    return found


def _rows(request: Request, name: str, values: list[Any], out: Path, say: Say) -> Iterator[dict[str, Any]]:
    for value in values:
        changes = {name: value}
        if name == "norm":
            value, changes = value[0], dict(zip(("norm", "eps"), value, strict=True))
        text = "-".join(map(str, value)) if isinstance(value, tuple) else value if name == "norm" else f"{value:g}"
        say(f"{name} = {text}")
        summary = evaluate(replace(request, **changes), out / f"{name}-{text}", say=say)
        if summary:
            eps = summary["settings"]["protocol"]["threat"]["eps"]
            kinds = ("clean", "noise", "robust", "cost", "answer")
            yield {"value": value, "text": text, "eps": eps} | {kind: summary[kind] for kind in kinds}
