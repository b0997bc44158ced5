"""What ``idc sweep`` does: one evaluation for each value of a setting."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from idc.commands.evaluate import Say, at_work, build, evaluate, processes
from idc.commands.opening import open_both
from idc.commands.request import Request
from idc.errors import IDCError
from idc.evaluation.summary import read_lines
from idc.evaluation.union import union
from idc.report.statement import doubts
from idc.storage import records
from idc.storage.fields import rules, short, written
from idc.storage.kinds import SWEEP
from idc.text import eps_name, eps_text

SWEEPS = ("eps", "steps", "eot", "restarts", "draws", "loss", "visits", "eta", "norm")


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
    found = [rule.read(name, part, where=f" in the sweep {short(text)}", remedy=remedy) for part in parts]
    if len({_name(name, value) for value in found}) < len(found):  # each has a folder of its own
        raise IDCError(f"sweep {short(text)}", "each value once", "leave out what stands there twice")
    return name, found


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
        ``setting``, ``data`` and ``rows`` (``value``, ``eps``, ``clean``, ``robust``, ``cost``, ``images``,
        ``reliable``, and ``noise`` where the attacks have a radius), as in ``out/sweep.json``; over norms also
        ``union``, see ``idc.evaluation.union``.

    Raises:
        IDCError: see ``parse_sweep`` and ``evaluate``; for a value that the protocol cannot have, or one that changes
            nothing of it, before anything is evaluated.
    """
    name, values = parse_sweep(over)
    if name == "norm" and request.eps is not None:
        raise IDCError(f"--eps {request.eps:g}", "a radius for each norm", "write --over norm=linf:8/255,l2:0.5,l1:12")
    values_asked = [_asked(request, name, value) for value in values]
    _, images = open_both(replace(request, compile=False), torch.device("cpu"))
    for one in values_asked:
        protocol = build(one.request, images)
        if protocol.within and name in ("eps", "norm"):
            remedy = "use --protocol adaptive, or idc evaluate"
            raise IDCError(f"a sweep of {protocol.name} over {name}", "a protocol whose attacks have a radius", remedy)
    with at_work(out, processes()[0], kind=SWEEP):
        rows = list(_rows(name, values_asked, out, say, images.summary))
        about = {"setting": name, "protocol": request.protocol, "model": request.model}
        source = f"{request.data_name or request.data} {images.split}"
        found: dict[str, Any] = about | {"data": source, "rows": rows}
        if rows and name == "norm":
            found["union"] = union([read_lines(out / f"norm-{row['text']}") for row in rows])
        if rows:
            found = records.write(out / "sweep.json", found)
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """A value of the setting, as it is written, and what is asked with it."""

    value: Any
    text: str
    request: Request


def _asked(request: Request, name: str, value: Any) -> _Asked:
    changes = {name: value}
    if name == "norm":
        value, changes = value[0], dict(zip(("norm", "eps"), value, strict=True))
    return _Asked(value, _name(name, value), replace(request, **changes))


def _name(setting: str, value: Any) -> str:
    """A value of a setting as the name of its folder has it."""
    if setting == "eps":
        return eps_name(value)
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, int | float) else written(value)


def _rows(name: str, values: Sequence[_Asked], out: Path, say: Say, data: str) -> Iterator[dict[str, Any]]:
    told: set[str] = set()

    def once(line: str) -> None:
        """What is said of the ``data``, or noted of one value, and holds of the next, is said once."""
        if line not in told or not (line == data or line.startswith("note: ")):
            say(line)
        told.add(line)

    for one in values:
        say(f"{name} = {eps_text(one.value) if name == 'eps' else one.text}")
        summary = evaluate(one.request, out / f"{name}-{one.text}", say=once)
        if summary:
            if doubt := doubts(summary):
                once(f"note:{doubt}")
            protocol = summary["settings"]["protocol"]
            kinds = ("clean", *(() if protocol.get("within") else ("noise",)), "robust", "cost", "answer")
            about = {"value": one.value, "text": one.text, "eps": protocol["threat"]["eps"]}
            yield about | {kind: summary[kind] for kind in (*kinds, "images", "reliable")}
