"""A kill, and what is said of a run that was killed."""

import json
import os

import kills

from processes import CONTEXT


def one_kill(work):
    """In a process that may be forked."""
    kills.prepare()
    os.environ["IDC_CACHE"] = str(work / "cache")
    args = kills.commands(work)["certify"]
    code, counted, _ = kills.run(args, work / "whole" / "r", call=0)
    found = kills.killed(args, work / "killed" / "r", work / "whole" / "r", {"step": counted["step"] // 2})
    (work / "found.json").write_text(json.dumps([code, counted, found]))


def test_a_killed_run_goes_on_to_the_same_end(tmp_path):
    process = CONTEXT.Process(target=one_kill, args=(tmp_path,))
    process.start()
    process.join()
    code, counted, found = json.loads((tmp_path / "found.json").read_text())
    assert code == 0
    assert counted["step"] >= 20  # one an image
    assert counted["call"] > counted["step"] > counted["name"] >= 2
    assert found == {"at": {"step": counted["step"] // 2}, "killed": True, "differs": [], "left_over": [], "error": ""}


def test_what_is_lost_left_over_or_other_is_told(tmp_path, monkeypatch):
    def write(folder, **files):
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text)

    write(
        tmp_path / "whole",
        a_json='{"seconds": 1, "n": [{"mean": 2}]}',
        b_jsonl='{"id": 1, "n": 1}',
        c_json="[1]",
        d_md="",
    )

    def run(args, out, **kill):
        write(out, a_json='{"seconds": 9, "n": [{"mean": 2}]}', b_jsonl='{"id": 1, "n": 2}', _a_part="")
        return (-9, {}, "") if kill else (1, {}, "broken")

    monkeypatch.setattr(kills, "run", run)
    found = kills.killed([], tmp_path / "out", tmp_path / "whole", {"call": 3})
    assert found == {"at": {"call": 3}, "killed": True, "differs": ["b.jsonl", "c.json", "d.md"],
                     "left_over": [".a.part"], "error": "broken"}  # fmt: skip
    counts = kills.summary({"train": [found, found | {"differs": [], "error": ""}]})["train"]
    assert (counts["kills"], counts["identical"], counts["left_over"]) == (2, 1, 2)


def test_points_are_spread_over_the_whole_of_a_run():
    found = kills.points({"step": 100, "name": 5, "call": 10_000}, 40)
    by_kind = {kind: [point[kind] for point in found if kind in point] for kind in ("step", "name", "call")}
    assert {kind: len(own) for kind, own in by_kind.items()} == {"step": 22, "name": 5, "call": 13}
    assert by_kind["name"] == [1, 2, 3, 4, 5]
    for kind, last in (("step", 100), ("call", 10_000)):
        own = by_kind[kind]
        assert own == sorted(set(own))
        assert 1 <= own[0] <= last / 10
        assert last * 0.9 <= own[-1] <= last
