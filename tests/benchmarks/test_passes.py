"""Passes before and after: read from two evaluations' records."""

import json
from pathlib import Path

import passes
import pytest


def _result(folder: Path, verdicts: dict[int, bool], forward: dict[str, float]) -> Path:
    folder.mkdir()
    lines = [{"id": i, "class": 1, "draws": 1, "robust": [int(v), 1 if v else 0]} for i, v in verdicts.items()]
    (folder / "images-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    held = {
        "protocol": "adaptive", "settings": {"protocol": {"threat": {"eps": 8 / 255}}}, "images": len(lines),
        "reliable": True, "robust": {"mean": {"mean": sum(verdicts.values()) / len(verdicts)}},
        "cost": {"forward": forward, "backward": {"answer": 2.0}},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(held))
    return folder


def test_verdicts_are_compared_image_by_image_and_passes_summed_over_functions(tmp_path: Path) -> None:
    before = _result(tmp_path / "before", {0: True, 1: True, 2: False, 3: True}, {"answer": 10.0, "products": 5.0})
    after = _result(tmp_path / "after", {0: True, 1: False, 2: True, 3: False}, {"answer": 4.0, "products": 1.5})
    found = passes.row(before, after)
    assert (found["only_before"], found["only_after"]) == (2, 1)
    assert (found["before"]["forward"], found["after"]["forward"]) == (15.0, 5.5)
    assert found["eps"] == "8/255"


def test_other_images_are_refused(tmp_path: Path) -> None:
    before = _result(tmp_path / "before", {0: True, 1: True}, {"answer": 1.0})
    fewer = _result(tmp_path / "fewer", {0: True}, {"answer": 1.0})
    others = _result(tmp_path / "others", {0: True, 7: True}, {"answer": 1.0})
    with pytest.raises(ValueError, match="2 images before, 1 after"):
        passes.row(before, fewer)
    with pytest.raises(ValueError, match="not the same"):
        passes.row(before, others)
