"""Results read from disk: evaluations, comparisons, sweeps, certificates, training runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from idc.errors import IDCError
from idc.report.figures import Array
from idc.storage import records
from idc.storage.files import parse_json
from idc.storage.kinds import CERTIFICATION, COMPARISON, SWEEP, TRAINING, kind_of

_NEEDED = (*records.SUMMARY, "confusion")


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One evaluation: its summary, its pictures where there are any, and the name that a comparison gives its model."""

    folder: Path
    summary: dict[str, Any]
    pictures: dict[str, Array]
    panel: list[dict[str, Any]]
    given: str = ""
    mistakes: Array | None = None  # pictures of the model's own wrong answers, of a clean evaluation

    @property
    def model(self) -> str:
        return str(self.summary["settings"]["model"])

    @property
    def protocol(self) -> str:
        return str(self.summary["protocol"])

    @property
    def threat(self) -> dict[str, Any]:
        found: dict[str, Any] = self.summary["settings"]["protocol"]["threat"]
        return found

    @property
    def eps(self) -> float:
        return float(self.threat["eps"])

    @property
    def within(self) -> str:
        """What the attacks kept to where that is no ball of a norm; else empty."""
        return str(self.summary["settings"]["protocol"].get("within", ""))

    @property
    def answer(self) -> str:
        """How the model answers, such as "3, 1, 0"; empty for one that has no choice."""
        return _answer(self.summary["settings"])

    @property
    def case(self) -> tuple[Any, ...]:
        """What two results must share to be compared: the model and its answer, the images, the threat."""
        data = self.summary["settings"]["data"]
        about = (data["source"], data["split"], data.get("fingerprint"), self.summary["images"])
        return (self.model, self.answer, *about, self.threat["norm"], self.eps)

    @property
    def name(self) -> str:
        """The one that it was given; else model, and the way it answers if it is not the only one of its kind."""
        return self.given or named(self.summary["settings"])


def _answer(settings: dict[str, Any]) -> str:
    visits = settings.get("visits")
    return ", ".join([*map(str, visits), *_mirrored(settings)]) if visits else ""


def _mirrored(settings: dict[str, Any]) -> list[str]:
    return ["mirrored"] if settings.get("mirrored") else []


def named(settings: dict[str, Any]) -> str:
    """The model of an evaluation, and how it answers if it has a choice."""
    visits = settings.get("visits")
    if not visits:
        return str(settings["model"])
    words = "one step" if len(visits) == 1 else f"visits {', '.join(map(str, visits))}"
    return ", ".join([settings["model"], words, *_mirrored(settings)])


def other_shares(summary: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of a clean evaluation, what else may be called accuracy beside that of the model's own answer, by names that tell
    them apart."""
    own, clean, draws = summary["own"], summary["clean"], summary["draws"]
    found = {name: value for name, value in summary.get("accuracy", {}).items() if own["answer"] not in name}
    if draws == 1:
        return {name: value for name, value in found.items() if len(summary["accuracy"]) > 1}
    return found | {
        f"a single draw, on average over {draws}": clean["mean"],
        f"majority vote of {draws} draws": clean["majority"],
        f"all of {draws} draws right": clean["worst_of_n"],
    }


def read_result(folder: Path, *, given: str = "") -> Result:
    """A finished evaluation, of a model that was ``given`` a name.

    Raises:
        IDCError: if its summary is missing, damaged or of another kind.
    """
    remedy = "give folders of finished runs of idc evaluate, compare, sweep or certify"
    summary = records.read_json(folder / "summary.json", remedy)
    missing = [k for k in _NEEDED if not isinstance(summary, dict) or k not in summary]
    if missing:
        raise IDCError(folder / "summary.json", f"a summary of idc evaluate ({missing[0]} is missing)", remedy)
    try:
        pictures = load_file(folder / "panel.safetensors") if (folder / "panel.safetensors").exists() else {}
        panel = parse_json((folder / "panel.json").read_text(encoding="utf-8")) if pictures else []
        file = folder / "mistakes.safetensors"
        mistakes = load_file(file)["images"] if "own" in summary and file.exists() else None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise IDCError(folder, "whole pictures", "remove its .safetensors files, or evaluate again") from error
    return Result(folder, summary, pictures, panel, given, mistakes)


def read_certificates(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The summaries of ``idc certify`` among ``folders``, each with its ``folder`` and, as ``name``, the model's, with
    the folder where two would be called the same.

    Raises:
        IDCError: if one is damaged.
    """
    found = []
    for folder in folders:
        if kind_of(folder) == CERTIFICATION:
            held = records.read_json(folder / "certify.json", "run idc certify again")
            if not isinstance(held, dict) or held.get("kind") != "certify":
                raise IDCError(folder / "certify.json", "a summary of idc certify", "run idc certify again")
            found.append(held | {"folder": str(folder), "name": named(held["settings"])})
    called = [(f["name"], f["settings"]["smoothing"]["sigma"]) for f in found]
    return [f | ({"name": f"{f['name']}, {f['folder']}"} if called.count(c) > 1 else {})
            for f, c in zip(found, called, strict=True)]  # fmt: skip


def _below(folder: Path, place: str) -> Path:
    """A folder of a result that a comparison or sweep names: within its own, wherever the file says that it is."""
    if not (folder / place).resolve().is_relative_to(folder.resolve()):
        raise IDCError(folder, f"results within it, not {place!r}", "compare or sweep again")
    return folder / place


def read_trainings(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What the finished training runs among ``folders`` say: their ``summary.json``, ``folder`` and, as ``history``,
    their validations.

    Raises:
        IDCError: if one is damaged or has not finished.
    """
    found = []
    for folder in (f for f in folders if kind_of(f) == TRAINING):
        history = [m for m in records.read(folder / "metrics.jsonl") if any(k.startswith("validation/") for k in m)]
        summary = records.read_json(folder / "summary.json", "finish the training, with --resume")
        found.append(summary | {"folder": str(folder), "history": history})
    return found


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``idc compare``'s result.

    Raises:
        IDCError: if there are none.
    """
    held = records.read_json(folder / "compare.json", "give a folder of idc compare")
    rows: list[dict[str, Any]] = held.get("rows", []) if isinstance(held, dict) else []
    if not rows:
        raise IDCError(folder, "a comparison with results", "run idc compare")
    return rows


def read_pairs(folder: Path) -> list[dict[str, Any]]:
    """What ``idc compare``'s result says of models on the same images; nothing in one of before."""
    held = records.read_json(folder / "compare.json", "give a folder of idc compare")
    pairs: list[dict[str, Any]] = held.get("pairs", []) if isinstance(held, dict) else []
    return [pair for pair in pairs if "ahead_first" in pair]  # before, they went by the vote of the draws


def read_results(folders: Sequence[Path]) -> tuple[list[Result], list[dict[str, Any]]]:
    """Evaluations, those of comparisons and sweeps too, and the sweeps, from folders of any of them. Others are left:
    folders of ``idc certify`` to ``read_certificates``, training runs to ``read_trainings``."""
    results: list[Result] = []
    sweeps: list[dict[str, Any]] = []
    for folder in folders:
        if not folder.is_dir():
            raise IDCError(folder, "a folder of a result", "check the path")
        kind = kind_of(folder)
        if kind == COMPARISON:
            held = [(own["folder"], row["name"]) for row in read_rows(folder) for own in row["protocols"].values()]
            results += [read_result(_below(folder, place), given=name) for place, name in held]
        elif kind == SWEEP:
            sweep = records.read_json(folder / "sweep.json", "run idc sweep again")
            own = [read_result(_below(folder, f"{sweep['setting']}-{row['text']}")) for row in sweep["rows"]]
            sweeps.append(
                sweep | {"folder": str(folder), "name": sweep["model"] if sweep["setting"] == "visits" else own[0].name}
            )
            results += own
        elif kind not in (CERTIFICATION, TRAINING):
            results.append(read_result(folder))
    return results, sweeps
