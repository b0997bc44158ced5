"""What is done to inputs, and what of an attempt counts as a fault."""

import random

import fuzz
import pytest


def test_damage_differs_and_follows_from_its_seed():
    content = b'{"a": 1, "b": [true, "text"]}'
    found = [fuzz.damage(content, random.Random(seed)) for seed in range(200)]
    assert found == [fuzz.damage(content, random.Random(seed)) for seed in range(200)]
    assert sum(own != content for own in found) > 150
    assert len({len(own) for own in found}) > 20
    assert any(b"python/name" in own for own in found)


@pytest.mark.parametrize(
    ("code", "said", "memory", "holds"),
    [
        (2, "idc: x: expected y; do z", 0, True),
        (0, "", fuzz.MEMORY, True),
        (0, "", fuzz.MEMORY + 1, False),
        (2, "", 0, False),
        (2, "x" * 501, 0, False),
        (2, "Traceback (most recent call last)", 0, False),
        (1, "idc: x", 0, False),
        (-14, "", 0, False),
    ],
)
def test_faults(code, said, memory, holds):
    assert (fuzz.fault(code, said, memory) == "") == holds


def test_every_mutation_is_counted_and_a_wrong_result_told(tmp_path, monkeypatch):
    def attempt(args, folder):
        content = (tmp_path / "texts" / "a.txt").read_bytes()
        asked.append(content)
        if len(content) < len(whole):
            return 2, "idc: too short", 0
        return (0, content.decode(errors="replace"), 0) if len(content) == len(whole) else (1, "broken", 0)

    asked, whole = [], b"0123456789" * 3
    monkeypatch.setattr(fuzz, "attempt", attempt)
    kind = fuzz.Kind(
        lambda folder: (folder / "a.txt").write_bytes(whole), lambda folder: [], ("*.txt",), lambda _, said: said
    )
    found = fuzz.fuzz("texts", kind, tmp_path, 60)
    assert asked[0] == whole
    assert len(asked) == 61
    assert found["refused"] == sum(len(own) < len(whole) for own in asked)
    assert found["read"] == sum(own == whole for own in asked[1:])
    assert found["refused"] + found["read"] + len(found["faults"]) == 60
    wrong = next(row for row in found["faults"] if "another result" in row["fault"])
    assert asked[1 + wrong["seed"]] != whole
    assert wrong["file"] == "a.txt"
