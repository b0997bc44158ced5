"""The arrows of the house: who may import whom. A new module must be given its place here."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "idc"
FOUNDATION = {
    "errors",
    "types",
    "noise",
    "records",
    "files",
    "hub",
    "progress",
    "saved",
    "fraction",
    "yaml_file",
    "hardware",
    "memory",
    "precision",
    "modes",
}
METHOD = {"labels", "bridge", "unet", "config", "reverse", "prediction"}
ALLOWED = {
    "__init__": {"bridge", "classifier", "config", "errors", "labels", "prediction", "unet"},
    "errors": set(),
    "types": {"errors"},
    "noise": {"errors"},
    "files": {"errors"},
    "hub": {"errors"},
    "records": {"errors", "files"},
    "progress": set(),
    "fraction": set(),
    "yaml_file": {"errors"},
    "hardware": {"errors"},
    "memory": set(),
    "precision": set(),
    "modes": set(),
    "zoo": set(),
    "saved": {"errors", "files", "hub", "zoo"},
    "labels": FOUNDATION,
    "bridge": FOUNDATION,
    "unet": FOUNDATION,
    "config": FOUNDATION | {"bridge", "labels", "unet"},
    "reverse": FOUNDATION | {"bridge"},
    "prediction": set(),
    "surrogates": FOUNDATION | {"labels", "reverse"},
    "loss": FOUNDATION | {"bridge", "labels"},
    "classifier": FOUNDATION | METHOD | {"storage", "surrogates"},
    "storage": FOUNDATION | METHOD | {"classifier", "__init__"},
    "reference": FOUNDATION | METHOD | {"classifier"},
    "data": FOUNDATION,
    "profiling": FOUNDATION | METHOD | {"classifier"},
    "exporting": FOUNDATION | {"classifier", "__init__"},
    "training": FOUNDATION | METHOD | {"attacks", "classifier", "loss", "data", "peers"},
    "peers": FOUNDATION,
    "attacks": FOUNDATION,
    "evaluation": FOUNDATION | {"attacks"},
    "report": FOUNDATION,
    "use": FOUNDATION | METHOD | {"classifier", "data", "profiling", "zoo"},
    "opening": FOUNDATION | {"classifier", "data", "evaluation", "peers"},
    "evaluating": FOUNDATION | {"attacks", "classifier", "data", "evaluation", "opening", "training", "__init__"},
    "rejudging": FOUNDATION | {"attacks", "data", "evaluation", "opening", "__init__"},
    "sweeping": FOUNDATION | {"evaluating", "opening"},
    "certifying": FOUNDATION | {"data", "evaluating", "evaluation", "opening"},
    "comparing": FOUNDATION | {"evaluating", "evaluation", "opening", "report"},
    "demo": FOUNDATION
    | METHOD
    | {"classifier", "data", "evaluation", "profiling", "training", "attacks", "report", "__init__"}
    | {"evaluating", "opening"},
    "cli": FOUNDATION
    | {
        "demo",
        "exporting",
        "use",
        "training",
        "reference",
        "profiling",
        "evaluation",
        "report",
        "evaluating",
        "rejudging",
        "sweeping",
        "certifying",
        "comparing",
        "opening",
        "zoo",
    }
    | {"__init__"},
}


def room(module: str) -> str:
    """idc.training.recipe -> training; idc -> __init__."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(file: Path) -> set[str]:
    """Rooms of idc that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {room(alias.name) for alias in node.names if alias.name.split(".")[0] == "idc"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            if node.module == "idc":
                own = {p.stem for p in SOURCE.iterdir()}
                found |= {alias.name if alias.name in own else "__init__" for alias in node.names}
            elif node.module and node.module.startswith("idc."):
                found.add(room(node.module))
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_arrows(file):
    own = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert own in ALLOWED, f"give {own} its place in the house"
    assert imported(file) - {own} <= ALLOWED[own]


def test_every_rule_is_about_something():
    rooms = {f.relative_to(SOURCE).parts[0].removesuffix(".py") for f in FILES}
    assert set(ALLOWED) == rooms


def test_attacks_never_know_the_classifier():
    assert not {"classifier", "data", "training"} & set().union(
        *(imported(f) for f in (SOURCE / "attacks").glob("*.py"))
    )


def test_in_training_only_adversarial_knows_attacks():
    knowing = [f.name for f in (SOURCE / "training").glob("*.py") if "attacks" in imported(f)]
    assert knowing == ["adversarial.py"]


def test_nothing_needs_torchvision():
    assert not [f for f in FILES if "torchvision" in f.read_text(encoding="utf-8")]
