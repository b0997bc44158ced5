"""Lines that survive a kill."""

from dataclasses import replace

import pytest

from idc import IDC
from idc.errors import IDCError
from idc.evaluation.identity import describe_model
from idc.storage import records
from tiny import tiny_model


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


def test_a_config_within_a_config_leaves_the_same_out():
    """The network's newer fields are not in an evaluation's settings unless they say something."""
    model = tiny_model()
    assert not {"norm", "middle_attention", "decoder"} & describe_model(model, "m")["config"]["unet"].keys()
    other = IDC(replace(model.config, unet=replace(model.config.unet, norm="batch")))
    found = describe_model(other, "m")["config"]
    assert (found["unet"]["norm"], found["unet"]["multipliers"]) == ("batch", list(model.config.unet.multipliers))


def test_a_key_of_an_older_record_has_its_name_of_now(tmp_path):
    """``benchmarks/results`` holds records of both."""
    (tmp_path / "old.json").write_text('{"rows": [{"evaluations": 3, "flops": 1}, {"network_evaluations": 1}]}')
    rows = records.read_json(tmp_path / "old.json", "")["rows"]
    assert rows == [{"network_evaluations": 3, "flops": 1}, {"network_evaluations": 1}]
