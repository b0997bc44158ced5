"""What kind of folder a folder is, by the files that each command writes there: no command writes into another's."""

from pathlib import Path

from idc.errors import IDCError

TRAINING, COMPARISON, SWEEP = "a training run", "a comparison", "a sweep"
CERTIFICATION, EVALUATION, MODEL, DEMO = "a certification", "an evaluation", "a saved model", "a demo"
_MARKS = {  # the first of which a file is there
    TRAINING: ("recipe.yaml", "metrics.jsonl"),
    COMPARISON: ("compare.json",),
    SWEEP: ("sweep.json",),
    CERTIFICATION: ("certify.json", "certified-*.jsonl"),
    EVALUATION: ("request.json", "summary.json"),
    f"{EVALUATION} or {CERTIFICATION}": ("settings.json",),  # the first file of both
    MODEL: ("model.safetensors*", "model-*.safetensors"),
    DEMO: ("overview.png",),
}


def kind_of(folder: Path) -> str:
    """The kind of a folder, such as ``TRAINING``; "" for one that is new, empty or nobody's."""
    return next((kind for kind, marks in _MARKS.items() if any(any(folder.glob(mark)) for mark in marks)), "")


def check_kind(folder: Path, kind: str) -> None:
    """Raise IDCError if ``folder`` is of another kind than ``kind``."""
    held = kind_of(folder)
    if held and kind not in held.split(" or "):
        raise IDCError(f"{folder}, the folder of {held}", f"a new one, or that of {kind}", "give another --out")
