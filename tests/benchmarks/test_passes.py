"""Passes before and after: read from two evaluations' records."""

import json
from pathlib import Path

import passes
import pytest


def _result(folder: Path, verdicts: dict[int, bool], forward: dict[str, int]) -> Path:
    folder.mkdir()
    lines = [{"id": i, "class": 1, "draws": 1, "robust": [int(v), 1 if v else 0]} for i, v in verdicts.items()]
    (folder / "images-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cost = {"block": 0, "images": len(lines), "seconds": {}, "flags": [], "forward": forward, "backward": {"answer": 8}}
    (folder / "costs-0.jsonl").write_text(json.dumps(cost) + "\n")
    asked = {"protocol": {"name": "adaptive", "threat": {"eps": 8 / 255}}}
    (folder / "settings.json").write_text(json.dumps(asked))
    return folder


def test_verdicts_are_compared_image_by_image_and_passes_summed_over_functions(tmp_path: Path) -> None:
    before = _result(tmp_path / "before", {0: True, 1: True, 2: False, 3: True}, {"answer": 40, "products": 20})
    after = _result(tmp_path / "after", {0: True, 1: False, 2: True}, {"answer": 12, "products": 3})
    found = passes.row(before, after)
    assert (found["common"], found["only_before"], found["only_after"]) == (3, 1, 1)
    assert (found["before"]["forward"], found["after"]["forward"]) == (15.0, 5.0)
    assert found["before"]["robust"]["mean"] == 0.75
    assert found["eps"] == "8/255"


def test_a_file_of_rows_gives_that_of_the_same_protocol_and_radius(tmp_path: Path) -> None:
    after = _result(tmp_path / "after", {0: True}, {"answer": 1})
    rows = [
        {"protocol": p, "settings": {"protocol": {"threat": {"eps": e}}}, "images": 7, "robust": {"majority": {}},
         "cost": {"forward": {"answer": f, "chain": 0.5}, "backward": {"answer": 2.0}}}
        for p, e, f in (("paper", 8 / 255, 1.0), ("adaptive", 2 / 255, 2.0), ("adaptive", 8 / 255, 3.0))
    ]  # fmt: skip
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"rows": rows}))
    assert passes.row(file, after)["before"]["forward"] == 3.5


def test_no_image_in_common_is_refused(tmp_path: Path) -> None:
    before, other = (_result(tmp_path / str(i), {i: True}, {"answer": 1}) for i in (0, 7))
    with pytest.raises(ValueError, match="no image in common"):
        passes.row(before, other)
