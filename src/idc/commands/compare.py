"""What ``idc compare`` does: many models, the same images, the same protocols; one table."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import torch

from idc.commands.evaluate import at_work, build, evaluate, processes
from idc.commands.opening import open_both
from idc.commands.request import Request, read_request
from idc.compute.compiled import check_compiler, check_networks
from idc.errors import IDCError
from idc.evaluation.pairing import paired, right_shares
from idc.evaluation.protocol import WITHOUT_RADIUS
from idc.evaluation.summary import read_lines
from idc.report.comparison import write_tables
from idc.report.statement import doubts
from idc.storage import records
from idc.storage.fields import check, recorded, setting, short, take
from idc.storage.kinds import COMPARISON
from idc.storage.yaml_file import read_yaml
from idc.text import eps_name, eps_text

_FIELDS = {f.name: f.metadata for f in fields(Request)}
# What may be asked of all models, or of each; protocols and eps are the comparison's own.
_ALL = _FIELDS.keys() - {"model", "protocol", "eps"}
_EACH = {name for name, about in _FIELDS.items() if not about.get("shared")}
_DECIDING = [name for name, about in _FIELDS.items() if about.get("decides", True)]
# A folder within that of the comparison, on any system, beside its own files.
_FOLDER = re.compile(
    r"(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$)|(compare|table|figure)\.)[^.].{0,99}(?<!\.)", re.IGNORECASE
)
_EXAMPLES = {"data": "digits", "eps": "[0.1, 0.2]", "protocols": "[adaptive]"}  # of what must be there


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of a comparison.

    Args:
        name: in the table.
        request: what is asked of it.
        training: a remark on how it was trained.
        protocols: its own, if they are not those of all.
    """

    name: str
    request: Request
    training: str | None = None
    protocols: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if not _FOLDER.fullmatch(self.folder) or len(self.folder.encode()) > 200:
            expected = "1 to 100 characters, no point first, and no name that a system or the comparison has for a file"
            raise IDCError(f"model {short(self.name)}", expected, "rename it")

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return re.sub(r"[^\w.-]+", "-", self.name).strip("-") or ("model" if self.name.strip() else "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models x protocols x sizes of attack.

    Args:
        nested: what survives a protocol's every attack at one radius is not attacked again at smaller ones; see
            ``idc.evaluation.nested``.
    """

    entries: tuple[Entry, ...]
    protocols: tuple[str, ...]
    eps: tuple[float, ...] = setting(least=0)
    nested: bool = False

    def __post_init__(self) -> None:
        check(self)
        for name in ("eps", "protocols"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise IDCError(f"{name} = {short(given)}", "each value once", "remove the second")
        if len({e.folder for e in self.entries}) < len(self.entries):
            names = short([e.name for e in self.entries])
            raise IDCError(f"models {names}", "a different name for each model", "rename one")

    def protocols_of(self, entry: Entry, eps: float | None = None) -> tuple[str, ...]:
        """By which protocols a model is evaluated; at an ``eps``: those that are the same at each, at the largest
        alone."""
        names = entry.protocols or self.protocols
        return tuple(p for p in names if eps in (None, max(self.eps)) or p not in WITHOUT_RADIUS)


def read_comparison(file: Path) -> Comparison:
    """A comparison from YAML: ``data``, ``protocols``, ``eps``, what else holds for all, and ``models``, each a name
    and a model or a mapping of its settings.

    Raises:
        IDCError: for anything that is not such a file.
    """
    given = read_yaml(file, holds="models and what holds for all", remedy="write models: {IDC: idc-nano-cifar10}")
    models = given.pop("models", None)
    if not isinstance(models, dict) or not models:
        raise IDCError(file, "models: with a name and a model for each", "write models: {IDC: idc-nano-cifar10}")
    own = {"protocols": _protocols(given), "eps": _listed(given.pop("eps", None)), "nested": given.pop("nested", False)}
    common = take(Request, given, names=_ALL, besides=("models", *own), where=f" in {file}")
    for name, example in _EXAMPLES.items():
        if not (common | own).get(name):
            raise IDCError(f"{file} without {name}", "data, eps and protocols", f"add {name}: {example}, say")
    entries = tuple(_entry(file, str(name), value, common) for name, value in models.items())
    return Comparison(entries, **own)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _protocols(given: dict[str, Any]) -> list[Any]:
    """Take them out of ``given``, under either name."""
    return [p for name in ("protocols", "protocol") for p in _listed(given.pop(name, None))]


def _entry(file: Path, name: str, value: Any, common: dict[str, Any]) -> Entry:
    where = f"{name[:60]} in {file}"
    if not isinstance(value, str | dict):
        given = f"{name[:60]}: {short(value)} in {file}"
        raise IDCError(given, "a model, or a mapping of its settings", "write a model's name after it")
    own = dict(value) if isinstance(value, dict) else {"model": value}
    protocols, training = tuple(_protocols(own)), own.pop("training", None)
    asked = take(Request, own, names=_EACH, besides=("protocols", "training"), where=f" of {where}")
    if "model" not in asked:
        raise IDCError(where, "a model: a folder, a peer's name or package.module:factory", "add it")
    return Entry(name, Request(**common | asked), training, protocols)


def compare(comparison: Comparison, out: Path, *, say: Callable[[str], object] = print) -> list[dict[str, Any]]:
    """Evaluate every model under every protocol at every eps, each into a folder of its own below ``out``; what is done
    is not done again. Under ``accelerate launch`` the images of each evaluation are shared out.

    Returns:
        A row for each model and eps, as in ``out/compare.json``; none in a process other than the first.

    Raises:
        IDCError: if a model or the data cannot be opened; before anything is evaluated.
    """
    shapes = set()
    for entry in comparison.entries:
        classifier, images = open_both(replace(entry.request, compile=False), torch.device("cpu"))
        if entry.request.compile:
            check_compiler(processes()[1])
            check_networks(classifier)
        for eps in comparison.eps:
            for protocol in comparison.protocols_of(entry, eps):
                build(replace(entry.request, protocol=protocol, eps=eps), images)
        shapes.add(images.shape)
        if len(shapes) > 1:  # an eps is another threat on other pixels
            own, others = ("x".join(map(str, shape)) for shape in (images.shape, (shapes - {images.shape}).pop()))
            raise IDCError(f"{entry.name}: images of {own}", f"{others}, as for the others", "compare it by itself")
    rows: list[dict[str, Any]] = []
    known: dict[str, dict[int, Fraction]] = {}
    # The largest radius comes first: a nested comparison builds on it.
    with at_work(out, processes()[0], kind=COMPARISON):
        for eps, entry in product(sorted(comparison.eps, reverse=True), comparison.entries):
            names = comparison.protocols_of(entry, eps)
            done = [evaluate_one(comparison, entry, p, eps, out, say=say) for p in names]
            if any(done):  # not in a process other than the first
                rows = finished_rows(comparison, out)
                write_rows(rows, out, known)
    return rows


def write_rows(
    rows: list[dict[str, Any]], out: Path, known: dict[str, dict[int, Fraction]] | None = None
) -> list[dict[str, Any]]:
    """Write ``compare.json``, with how far the best is ahead of the others, and the tables.

    Args:
        rows, out, known: see ``beside_the_best``.

    Returns:
        The pairs, see there.
    """
    pairs = beside_the_best(rows, out, {} if known is None else known)
    records.write(out / "compare.json", {"rows": rows, "pairs": pairs})
    write_tables(out)
    return pairs


def beside_the_best(
    rows: Sequence[dict[str, Any]], out: Path, known: dict[str, dict[int, Fraction]]
) -> list[dict[str, Any]]:
    """Under each protocol with attacks, at each eps: the model that survives most, with each other one on the images
    that both were given. An image counts by the share of its draws that are right, as in the table's *mean of draws*.

    Args:
        rows: of ``finished_rows``. out: the folder of their results.
        known: ``right_shares`` of each result, by its folder, as far as they have been read; more is added.

    Returns:
        For each pair ``eps``, ``eps_text``, ``protocol``, ``best``, ``other`` (names) and the fields of ``Paired``.
    """
    found = []
    cells = [(r["eps"], p) for r in rows for p, own in r["protocols"].items() if own["attacks"]]
    for eps, protocol in dict.fromkeys(cells):
        here = [r for r in rows if r["eps"] == eps and protocol in r["protocols"]]
        here.sort(key=lambda r: -r["protocols"][protocol]["robust"]["mean"]["mean"])
        places = [r["protocols"][protocol]["folder"] for r in here]
        for place in (p for p in places if p not in known):
            known[place] = right_shares(read_lines(out / place))
        text = "any" if here[0]["protocols"][protocol].get("within") else here[0]["eps_text"]
        about = {"eps": eps, "eps_text": text, "protocol": protocol, "best": here[0]["name"]}
        best = known[places[0]]
        for row, own in zip(here[1:], (known[place] for place in places[1:]), strict=True):
            if best.keys() & own.keys():
                found.append(about | {"other": row["name"]} | recorded(paired(best, own)))
    return found


def finished_rows(comparison: Comparison, out: Path) -> list[dict[str, Any]]:
    """A row for each model and eps of which an evaluation below ``out`` has finished, by any protocol, if it was asked
    for as it is now."""
    rows, again = [], "remove it, to have it made again"
    for eps, entry in product(comparison.eps, comparison.entries):
        found = {}
        for protocol in comparison.protocols_of(entry, eps):
            place = _place(entry, protocol, eps)
            if (file := out / place / "summary.json").exists():
                held = read_request(file.with_name("request.json"), "evaluate again")
                asked = replace(entry.request, protocol=protocol, eps=eps)
                if all(getattr(held, name) == getattr(asked, name) for name in _DECIDING):
                    found[protocol] = (str(place), records.read_json(file, again, keys=records.SUMMARY))
        if found:
            rows.append(_row(entry, eps, found))
    return rows


def evaluate_one(
    comparison: Comparison, entry: Entry, protocol: str, eps: float, out: Path, *, say: Callable[[str], object] = print
) -> dict[str, Any]:
    """One cell of the table, as ``compare`` makes it; in a nested comparison the larger radii must be done.

    Returns:
        The summary, as in the folder's ``summary.json``; see ``idc.commands.evaluate.evaluate``.
    """
    say(f"{entry.name}: {protocol}, eps {eps_text(eps)}")
    request = replace(entry.request, protocol=protocol, eps=eps)
    larger = None
    if comparison.nested and eps < max(comparison.eps):
        larger = out / _place(entry, protocol, min(e for e in comparison.eps if e > eps))
    summary = evaluate(request, out / _place(entry, protocol, eps), larger=larger, say=say)
    if told := doubts(summary) if summary else "":
        say(f"note:{told}")
    return summary


def _place(entry: Entry, protocol: str, eps: float) -> Path:
    """The folder of a cell, within that of the comparison."""
    return Path(entry.folder) / f"{protocol.replace(':', '-')}-{eps_name(eps)}"


def _row(entry: Entry, eps: float, found: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What the table says of one model at one eps, and the folder of each result."""
    _, first = next(iter(found.values()))
    answer, settings = first["answer"], first["settings"]
    asked = {key: getattr(entry.request, key) for key in ("one_step", "visits", "eta", "mirrored")}
    asked |= {key: settings["classifier"].get(key) for key in ("precision", "compiled")}
    return {
        "name": entry.name, "model": entry.request.model,
        "answer": {key: value for key, value in asked.items() if value not in (None, False)},
        "norm": entry.request.norm, "eps": eps,
        "eps_text": eps_text(eps), "data": settings["data"]["source"], "split": settings["data"]["split"],
        "images": first["images"], "training": entry.training or answer.get("training"),
        "parameters": answer["parameters"], "flops": answer["flops"],
        "network_evaluations": answer["network_evaluations"],
        "stochastic": answer["stochastic"], "clean": first["clean"], "device": settings["device"],
        "protocols": {
            protocol: {
                "folder": folder, "robust": s["robust"], "draws": s["draws"], "adaptive": s["adaptive"],
                "images_spared": s.get("images_spared", 0), "within": s["settings"]["protocol"].get("within", ""),
                "reliable": s["reliable"], "seconds": s["cost"]["seconds"],
                "attacks": {name: v["mean"] for name, v in s["attacks"].items()},
            }
            for protocol, (folder, s) in found.items()
        },
    }  # fmt: skip
