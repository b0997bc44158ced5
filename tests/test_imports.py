"""The arrows of the house: imports run down, never up and never in a circle."""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "idc"
# From the ground up: a room may import what stands before it, itself, and nothing else.
FLOORS = (
    "errors", "text", "types", "noise", "progress", "storage", "zoo", "compute", "data", "method", "attacks",
    "accuracy", "peers", "training", "cost", "evaluation", "exporting", "report", "serving", "commands", "cli",
)  # fmt: skip
GROUND = {"errors", "text", "types", "noise", "progress", "storage", "compute"}
NARROW = {  # rooms that may know less than all below them
    "data": {"errors", "text", "progress", "storage"},
    "attacks": {"errors", "text", "types", "noise"},
    "evaluation": GROUND | {"attacks", "cost"},
    "report": GROUND - {"compute"},
}
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {".".join(("idc", *f.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): f for f in FILES}


def room(module: str) -> str:
    """idc.training.recipe -> training; idc -> idc."""
    return module.split(".")[1] if "." in module else module


def imported(module: str) -> set[str]:
    """Modules of idc that a module imports anywhere: inside functions and for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "idc"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "idc":
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in MODULES else node.module for part in parts}
    return found


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"idc"}))
def test_imports_run_down(module):
    own = room(module)
    assert own in FLOORS, f"give {own} its place in FLOORS"
    below = NARROW.get(own, set(FLOORS[: FLOORS.index(own)]))
    assert {room(m) for m in imported(module)} - {own, "idc"} <= below


def test_no_two_modules_import_each_other():
    """Not over a detour either."""
    order = TopologicalSorter({m: imported(m) - {m, "idc"} for m in MODULES if m != "idc"})
    assert set(order.static_order()) == MODULES.keys() - {"idc"}  # a circle is an error that names it


def test_the_top_is_a_page():
    top = [p for p in SOURCE.iterdir() if p.name not in ("__pycache__", "py.typed")]
    assert len(top) <= 22
    assert {p.stem for p in top} == {*FLOORS, "__init__"}


def test_a_public_class_has_a_name_of_its_own():
    """Also beside those of ``typing`` that the house uses: ``Protocol`` is an evaluation's."""
    trees = {f: ast.parse(f.read_text(encoding="utf-8")) for f in FILES}
    names = [node.name for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [name for name, count in Counter(names).items() if count > 1 and not name.startswith("_")] == []
    taken = {
        (alias.name, f.name)
        for f, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "typing"
        for alias in node.names
    }
    assert {(name, file) for name, file in taken if name in names} == set()


def test_nothing_needs_torchvision():
    assert not [f for f in FILES if "torchvision" in f.read_text(encoding="utf-8")]
