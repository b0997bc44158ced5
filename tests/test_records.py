"""Lines that survive a kill."""

import pytest

from idc import records
from idc.errors import IDCError


def test_a_line_cut_short_is_left_out_and_spoils_no_other(tmp_path):
    file = tmp_path / "images-0.jsonl"
    records.append(file, [{"id": 1}, {"id": 2}])
    file.write_bytes(file.read_bytes() + b'{"id": 3, "cl')
    records.append(file, [{"id": 4}])
    assert [row["id"] for row in records.read(file)] == [1, 2, 4]


def test_files_of_several_processes_are_one_and_the_first_of_two_counts(tmp_path):
    records.append(tmp_path / "images-1.jsonl", [{"id": 1, "by": 1}, {"id": 0, "by": 1}])
    records.append(tmp_path / "images-0.jsonl", [{"id": 1, "by": 0}])
    assert records.read_all(tmp_path, "images-*.jsonl", "id") == {0: {"id": 0, "by": 1}, 1: {"id": 1, "by": 0}}
    assert records.read(tmp_path / "none.jsonl") == []


def test_damaged_json_is_one_clear_error(tmp_path):
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "none.json"):
        with pytest.raises(IDCError, match="do this"):
            records.read_json(tmp_path / name, "do this")
