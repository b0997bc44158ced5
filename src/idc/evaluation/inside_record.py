"""The record in a result of what was found inside its model, so that all that attack it use the same."""

from pathlib import Path
from typing import Any

from torch import Tensor

from idc.errors import IDCError
from idc.evaluation.inside import Inner
from idc.evaluation.inside_search import Say, look_inside
from idc.evaluation.summary import LINES
from idc.storage import records
from idc.storage.fields import recorded
from idc.types import Classifier

_FILE = "inside.json"


def found_in(out: Path) -> list[Inner]:
    """What ``note_inner`` noted in ``out``.

    Raises:
        IDCError: if the note is damaged.
    """
    file, remedy = out / _FILE, "remove the folder and evaluate again"
    if not file.exists():
        return []
    try:
        found = [Inner(**row) for row in records.read_json(file, remedy, keys=("functions",))["functions"]]
        return [inner for inner in found if inner.name]
    except (AttributeError, TypeError) as error:
        raise IDCError(file, f"functions inside the model ({error})", remedy) from error


def note_inner(out: Path, classifier: Classifier, images: Tensor, ids: Tensor, *, say: Say = print, **how: Any) -> None:
    """Note in ``out`` what ``look_inside`` finds, once: all processes, and an evaluation that goes on, use it.

    Raises:
        IDCError: if the evaluation was begun without what is found.
    """
    if (out / _FILE).exists():
        return
    why: list[str] = []
    found = look_inside(classifier, images, ids, say=why.append, **how)
    if found and (records.finished(out, LINES) or any(out.glob("partial-*"))):
        expected = f"a result of attacks on {found[0].name} too, which {_FILE} names"
        raise IDCError(out, expected, "choose another --out, or remove this one")
    records.write(out / _FILE, {"functions": recorded(found), "not_looked_for": why})
    if found:
        names = ", ".join(inner.name for inner in found)
        say(f"note: found inside the model, and attacked like surrogates: {names} (docs/robustness.md)")
    for reason in why:
        say(f"note: what answers inside the model was not all looked for: {reason}")
