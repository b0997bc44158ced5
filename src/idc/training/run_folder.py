"""The folder of a training run: its recipe.yaml, by which a resumed run is told from another, and its summary.json."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from idc.errors import IDCError
from idc.storage import records
from idc.storage.fields import recorded, short, written
from idc.storage.files import make_folder, write_text
from idc.storage.yaml_file import read_yaml
from idc.text import eps_text
from idc.training.checkpoint import RunState
from idc.training.recipe import renewed
from idc.training.settings import Settings

FOLDERS = ("best", "last", "checkpoints")  # each is written whole or not at all
_DEFAULT = "its default"  # of what is recorded of the network and the data only if it is not
_TOLD = 6  # settings that are named
_LABELS = {"labels": "qr", "label_cell": 1}  # the same, where it is known
_IDC, _CNN, _DDPM = "idc train", "idc train-peer cnn", "idc train-peer ddpm"
_KINDS = {"preset": _IDC, "arch": _CNN, "conditional": _DDPM}  # a name in recipe.yaml that the runs of one alone have


def claim(out: Path, recipe: Settings, about: dict[str, Any], *, resume: bool) -> None:
    """Make ``out`` the folder of a run with these settings: its recipe.yaml. That of one that has nothing yet, as where
    an objective failed at once, is written over.

    Raises:
        IDCError: if it cannot be written, or holds a run that is not to be resumed or has other settings.
    """
    make_folder(out)
    if not (out / "recipe.yaml").exists() and (others := _visible(out)):
        remedy = "choose another --out: a run writes over folders such as best"
        raise IDCError(f"{out}, which holds {others[0]}", "a new or empty folder", remedy)
    file, text = out / "recipe.yaml", _yaml(about | recorded(recipe))
    held = file.exists() and not _has_nothing_yet(out)
    if held and not resume:
        raise IDCError(out, "a new or empty folder", "it holds a run: give --resume to go on, or another --out")
    if held and (apart := _changed(file, text, asdict(type(recipe)()))):
        kind, other = (_kind(values) for values in (yaml.safe_load(text), read_yaml(file, remedy="use another --out")))
        if kind != other:
            raise IDCError(f"{out}, a run of {other}", f"one of {kind}", "use another --out")
        told = [name for name in apart if name != "network" or "preset" not in apart]
        more = ", ..." * (len(told) > _TOLD)
        now, then = (", ".join(f"{name} = {_said(name, apart[name][i])}" for name in told[:_TOLD]) for i in (0, 1))
        now, then = now + more, then + more
        recipe_too = f"or --recipe {file}, " if kind == _IDC else ""
        remedy = f"resume with the flags that it began with, --limit among them, {recipe_too}or use another --out"
        if set(apart) <= {"minutes", "epochs"}:
            longer = "begin anew in another --out" if kind == _DDPM else f"begin another run with --from {out}"
            remedy = f"to train it for longer, {longer}"
        raise IDCError(f"{out}: {now}", f"{then}, as the run that it holds", remedy)
    write_text(file, text)


def write_summary(
    out: Path, state: RunState, recipe: Settings, about: dict[str, Any], *, steps: int, images: int, **machine: Any
) -> None:
    """Write summary.json: what a run of ``steps`` that saw ``images`` took, on which ``machine``, and what it found."""
    values = {
        "steps": steps,
        "images_seen": images,
        "seconds": round(state.seconds, 1),
        "images_per_second": round(images / max(state.seconds, 1e-9), 1),
        "seconds_on": {name: round(seconds, 1) for name, seconds in state.seconds_on.items()},
        "best_step": state.best_step,
        "validation": state.whole,
    }
    values |= machine | {"torch": torch.__version__, "about": about, "recipe": recorded(recipe)}
    records.write(out / "summary.json", values)


def _changed(file: Path, text: str, defaults: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of which ``text`` has another value than the file; one that either lacks has its default, as one that is
    newer than the file had."""
    usual = _LABELS | yaml.safe_load(_yaml(defaults))
    now, then = usual | yaml.safe_load(text), usual | renewed(read_yaml(file, remedy="use another --out"))
    return {
        name: (now.get(name, _DEFAULT), then.get(name, _DEFAULT))
        for name in dict.fromkeys([*now, *then])
        if now.get(name, _DEFAULT) != then.get(name, _DEFAULT)
    }


def _has_nothing_yet(out: Path) -> bool:
    """Whether a run in ``out`` ended before it had done anything, and nothing else lies there."""
    metrics = out / "metrics.jsonl"
    begun = metrics.exists() and metrics.stat().st_size == 0
    return begun and {"recipe.yaml", metrics.name, "tensorboard"}.issuperset(_visible(out))


def _visible(out: Path) -> list[str]:
    """What lies in ``out``, but for locks and other hidden files, in order."""
    return sorted(p.name for p in out.iterdir() if p.name[0] != ".")


def _kind(values: dict[str, Any]) -> str:
    """Which command made a run of this recipe.yaml."""
    return next((command for name, command in _KINDS.items() if name in values), "another program")


def _said(name: str, value: Any) -> str:
    """A value of recipe.yaml as its flag has it."""
    if isinstance(value, dict):
        return short(value)
    if name == "eps" and isinstance(value, float):
        return eps_text(value)
    return written(tuple(value) if isinstance(value, list) else value)


def _yaml(values: dict[str, Any]) -> str:
    return str(yaml.safe_dump(recorded(values), sort_keys=False, allow_unicode=True))
