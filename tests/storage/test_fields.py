"""One checker for the fields of all settings: what it takes, what it refuses, and that its words are few."""

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from idc.errors import IDCError
from idc.storage.fields import Rule, check, recorded, setting, short, take, written
from idc.storage.yaml_file import read_yaml

NAN, INF = math.nan, math.inf
HUGE = 10**5000  # more digits than Python writes
NESTED: list[Any] = ["x"]
for _ in range(60):  # 2^60 texts, as aliases of YAML make them
    NESTED = [NESTED, NESTED]
CHOICE = Literal["linf", "l2"]
RULES = {
    "bool": Rule(bool), "whole": Rule(int), "count": Rule(int, least=1), "number": Rule(float),
    "rate": Rule(float, above=0),
    "share": Rule(float, least=0, below=1), "closed": Rule(float, least=0, most=1), "text": Rule(str),
    "choice": Rule(CHOICE), "some": Rule(float | None, least=0), "numbers": Rule(tuple[float, ...], least=0),
    "levels": Rule(tuple[int, ...], least=1, filled=True), "shape": Rule(tuple[int, int, int], least=1),
    "visits": Rule(tuple[int, ...] | None, least=0, expected="timesteps such as [3, 1, 0]"), "mapping": Rule(dict),
    "names": Rule(tuple[str, ...]), "maybe": Rule(bool | None), "called": Rule(str | None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "given", "held"),
    [
        ("bool", False, False), ("whole", -3, -3), ("whole", np.int64(3), 3), ("number", 2, 2.0),
        ("number", "8/255", 8 / 255),
        ("number", np.float32(0.5), 0.5), ("number", "1e-3", 1e-3), ("share", 0, 0.0), ("closed", 1, 1.0),
        ("text", "", ""),
        ("choice", "l2", "l2"), ("some", None, None), ("some", "none", None), ("some", "1/4", 0.25),
        ("numbers", [0, "1/2"], (0.0, 0.5)), ("numbers", [], ()), ("levels", [1, 2], (1, 2)),
        ("shape", [3, 8, 8], (3, 8, 8)),
        ("visits", (3, 0), (3, 0)), ("visits", None, None), ("mapping", {}, {}), ("names", ["a"], ("a",)),
        ("maybe", None, None), ("maybe", True, True), ("called", "none", "none"),
    ],
)  # fmt: skip
def test_what_is_taken(kind, given, held):
    found = RULES[kind].value("name", given)
    assert found == held
    assert type(found) is type(held)
    assert json.loads(json.dumps(found)) == (list(held) if isinstance(held, tuple) else held)


@pytest.mark.parametrize(
    ("kind", "text", "held"),
    [
        ("bool", "yes", True), ("bool", "False", False), ("whole", "-3", -3), ("number", "8/255", 8 / 255),
        ("some", "none", None), ("some", "", None), ("numbers", "0,0,0,1", (0.0, 0.0, 0.0, 1.0)),
        ("numbers", "none", ()),
        ("levels", "1, 2", (1, 2)), ("visits", "3,0", (3, 0)), ("visits", "none", None), ("choice", "linf", "linf"),
        ("called", "none", "none"), ("text", "3", "3"),
    ],
)  # fmt: skip
def test_what_a_text_means(kind, text, held):
    assert RULES[kind].read("--name", text) == held
    assert RULES[kind].read("--name", written(held)) == held


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("bool", 1), ("bool", "no"), ("bool", None), ("whole", 1.0), ("whole", "3"), ("whole", True), ("whole", HUGE),
        ("count", 0), ("count", -HUGE), ("number", NAN), ("number", INF), ("number", "inf"), ("number", True),
        ("number", HUGE),
        ("number", "1/0"), ("number", "x" * 10_000), ("number", NESTED), ("number", [0.1, 0.2]),
        ("number", {"a": NESTED}),
        ("number", 1j), ("rate", 0), ("rate", -INF), ("share", 1), ("share", "255/255"), ("closed", 1.01), ("text", 3),
        ("text", NESTED), ("choice", "L2"), ("choice", ["l2"]), ("choice", np.zeros(3)), ("some", -1),
        ("some", "nothing"),
        ("numbers", 3), ("numbers", "0,1"), ("numbers", [NAN]), ("numbers", [0, -1]), ("numbers", NESTED),
        ("numbers", ["x"] * 10_000), ("levels", []), ("levels", [1.5]), ("levels", [0]), ("shape", [3, 8]),
        ("shape", [HUGE] * 3), ("visits", "3,0"), ("visits", [3, True]), ("mapping", NESTED), ("names", "abc"),
        ("maybe", "yes"), ("called", 5),
    ],
    ids=short,
)  # fmt: skip
def test_what_is_refused_in_few_words(kind, given):
    with pytest.raises(IDCError) as told:
        RULES[kind].value("name", given, where=" in file", remedy="correct the recipe")
    text = str(told.value)
    assert text.startswith("name = ")
    assert " in file: expected " in text
    assert text.endswith("; correct the recipe")
    assert len(text) <= 500
    assert "\n" not in text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bool", "true or false"), ("count", "a whole number, at least 1"), ("rate", "a number above 0"),
        ("share", "a number in [0, 1)"), ("closed", "a number in [0, 1]"), ("choice", "linf or l2"),
        ("some", "a number, at least 0, or none"), ("levels", "a list of 1 or more whole numbers, at least 1"),
        ("shape", "3 whole numbers, at least 1"), ("visits", "timesteps such as [3, 1, 0], or none"),
    ],
)  # fmt: skip
def test_what_is_expected_is_said(kind, words):
    with pytest.raises(IDCError) as told:
        RULES[kind].read("--name", "?")
    assert str(told.value) == f"--name = '?': expected {words}; correct it"


@pytest.mark.parametrize(
    "value", [NESTED, HUGE, -HUGE, {"a": NESTED}, "x" * 10**6, dict.fromkeys(range(1000), NESTED), {HUGE}], ids=range(7)
)
def test_a_value_is_told_shortly(value):
    assert len(short(value)) <= 100


def test_aliases_of_a_file_are_not_walked(tmp_path):
    """A billion laughs: 9^18 texts in 18 lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 18)]
    (tmp_path / "f.yaml").write_text("\n".join([*lines, "epochs: *a17", ""]))
    given = read_yaml(tmp_path / "f.yaml")
    for kind in RULES:
        with pytest.raises(IDCError, match="epochs = ") as told:
            RULES[kind].value("epochs", given["epochs"])
        assert len(str(told.value)) <= 500


@dataclass(frozen=True, slots=True)
class Inner:
    depth: int = setting(2, "how deep", least=1)
    newer: str = setting("as ever", omit_default=True)


@dataclass(frozen=True, slots=True)
class Outer:
    lr: float = setting(help="a rate", above=0, remedy="use 0.1")
    inner: Inner = field(default_factory=Inner)
    parts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check(self, remedy="correct the file")


def test_every_field_of_a_dataclass_is_checked_and_kept_plain():
    made = Outer("1/4", parts=[1, 2])
    assert (made.lr, made.parts) == (0.25, (1, 2))
    with pytest.raises(IDCError, match=r"lr = -1: expected a number above 0; use 0.1"):
        Outer(-1)
    with pytest.raises(IDCError, match=r"parts = \[0.5\]: expected a list of whole numbers; correct the file"):
        Outer(1, parts=[0.5])
    with pytest.raises(IDCError, match="inner = 3: expected a Inner"):
        Outer(1, inner=3)
    with pytest.raises(TypeError):
        Outer()  # lr has no default


def test_a_mapping_is_taken_by_its_names():
    assert take(Outer, {"parts": [3]}) == {"parts": (3,)}
    with pytest.raises(IDCError, match=r"'part' in f.yaml: expected one of models, lr, inner, parts; correct its name"):
        take(Outer, {"part": 3}, besides=("models",), where=" in f.yaml")
    with pytest.raises(IDCError, match="expected one of lr;"):
        take(Outer, {"parts": [3]}, names=("lr",))
    many = dataclass(type("Many", (), {"__annotations__": {f"setting_{i}": int for i in range(100)}}))
    with pytest.raises(IDCError) as told:
        take(many, {"seting_17": 3})
    assert "setting_17" in str(told.value)
    with pytest.raises(IDCError) as told:
        take(many, {"x" * 10_000: 3})
    assert len(str(told.value)) <= 500


def test_what_a_record_says_of_settings():
    """A field newer than records says nothing at its default, so that these keep their hash."""
    made = Outer(1.0, Inner(newer="new"), (1, 2))
    assert recorded(made) == {"lr": 1.0, "inner": {"depth": 2, "newer": "new"}, "parts": [1, 2]}
    assert recorded(Outer(1.0)) == {"lr": 1.0, "inner": {"depth": 2}, "parts": []}
    assert recorded({"a": (made, None)})["a"] == [recorded(made), None]
    assert recorded(Inner(), kinds=True) == {"kind": "Inner", "depth": 2}
    assert recorded((len, 3), kinds=True) == [{"kind": "builtin_function_or_method"}, 3]
