"""What ``idc compare`` does: many models, the same images, the same protocols; one table."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from idc.errors import IDCError
from idc.evaluating import evaluate
from idc.files import make_folder, write_json
from idc.opening import Request, open_model, parse_eps
from idc.report.results import eps_text

_ALL = ("data", "data_name", "split", "norm", "limit", "draws", "seed", "skip_bad")
_EACH = ("model", "limit", "draws", "chunk", "one_step", "visits", "eta", "checkpointing")


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of a comparison: its name in the table, how it was trained, and what is asked of it."""

    name: str
    request: Request
    training: str | None = None

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return re.sub(r"[^\w.-]+", "-", self.name).strip("-") or "model"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models x protocols x sizes of attack."""

    entries: tuple[Entry, ...]
    protocols: tuple[str, ...]
    eps: tuple[float, ...]


def read_comparison(file: Path) -> Comparison:
    """A comparison from YAML: ``data``, ``protocols``, ``eps``, what else holds for all, and ``models``, each a name
    and a model or a mapping of its settings.

    Raises:
        IDCError: for anything that is not such a file.
    """
    import yaml

    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise IDCError(file, "a readable YAML file", "check the path") from error
    except yaml.YAMLError as error:
        raise IDCError(file, "YAML", " ".join(str(error).split())[:120]) from error
    models = given.pop("models", None) if isinstance(given, dict) else None
    if not isinstance(models, dict) or not models:
        raise IDCError(
            file, "models: with a name and a model for each", "write for example models: {IDC: models/digits}"
        )
    protocols = _listed(given.pop("protocols", given.pop("protocol", "adaptive")))
    eps = [parse_eps(value) for value in _listed(given.pop("eps", None))]
    if unknown := sorted(set(given) - set(_ALL)):
        wanted = ", ".join(("models", "protocols", "eps", *_ALL))
        raise IDCError(f"{unknown[0]!r} in {file}", f"one of {wanted}", "correct its name")
    if not eps or "data" not in given:
        raise IDCError(file, "data: and eps:", "add what is missing, such as eps: [0.1, 0.2]")
    entries = tuple(_entry(file, str(name), value, given) for name, value in models.items())
    if len({e.folder for e in entries}) < len(entries):
        raise IDCError(file, "a different name for each model", "rename one")
    return Comparison(entries, tuple(map(str, protocols)), tuple(eps))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _entry(file: Path, name: str, value: Any, common: dict[str, Any]) -> Entry:
    own = dict(value) if isinstance(value, dict) else {"model": value}
    training = own.pop("training", None)
    if unknown := sorted(set(own) - set(_EACH)):
        raise IDCError(
            f"{unknown[0]!r} of {name} in {file}", f"one of training, {', '.join(_EACH)}", "correct its name"
        )
    if not isinstance(own.get("model"), str):
        raise IDCError(f"{name} in {file}", "a model: a folder, a peer's name or package.module:factory", "add it")
    if "visits" in own:
        own["visits"] = tuple(int(v) for v in _listed(own["visits"]))
    for key in ("limit", "draws", "seed", "chunk"):
        value = own.get(key, common.get(key))
        if value is not None and (not isinstance(value, int) or value < (0 if key == "seed" else 1)):
            raise IDCError(f"{key}: {value!r} in {file}", "a whole number, at least 1", "correct it")
    return Entry(name, Request(**common | own), None if training is None else str(training))


def compare(comparison: Comparison, out: Path, *, say: Callable[[str], object] = print) -> list[dict[str, Any]]:
    """Evaluate every model under every protocol at every eps, each into a folder of its own below ``out``; what is done
    is not done again. Under ``accelerate launch`` the images of each evaluation are shared out.

    Returns:
        A row for each model and eps, as in ``out/compare.json``; none in a process other than the first.

    Raises:
        IDCError: if a model or the data cannot be opened; before anything is evaluated.
    """
    for entry in comparison.entries:
        open_model(entry.request.model)
    rows = []
    for eps in comparison.eps:
        for entry in comparison.entries:
            found = {}
            for protocol in comparison.protocols:
                where = Path(entry.folder) / f"{protocol}-{eps_text(eps).replace('/', '-')}"
                say(f"{entry.name}: {protocol}, eps {eps_text(eps)}")
                request = replace(entry.request, protocol=protocol, eps=eps)
                summary = evaluate(request, make_folder(out) / where, say=say)
                if summary:
                    found[protocol] = (str(where), summary)
            if found:
                rows.append(_row(entry, eps, found))
                write_json(out / "compare.json", {"rows": rows})
    return rows


def _row(entry: Entry, eps: float, found: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What the table says of one model at one eps, and the folder of each result."""
    folders = {protocol: folder for protocol, (folder, _) in found.items()}
    summaries: dict[str, dict[str, Any]] = {protocol: summary for protocol, (_, summary) in found.items()}
    first = next(iter(summaries.values()))
    answer, settings = first["answer"], first["settings"]
    return {
        "name": entry.name, "model": entry.request.model, "norm": entry.request.norm, "eps": eps,
        "eps_text": eps_text(eps), "data": settings["data"]["source"], "split": settings["data"]["split"],
        "images": first["images"], "training": entry.training or answer.get("training"),
        "parameters": answer["parameters"], "flops": answer["flops"], "evaluations": answer["evaluations"],
        "stochastic": answer["stochastic"], "clean": first["clean"], "device": settings["device"],
        "protocols": {
            protocol: {
                "folder": folders[protocol], "robust": s["robust"], "draws": s["draws"], "adaptive": s["adaptive"],
                "reliable": s["reliable"], "seconds": s["cost"]["seconds"],
                "attacks": {name: v["mean"] for name, v in s["attacks"].items()},
            }
            for protocol, s in summaries.items()
        },
    }  # fmt: skip
