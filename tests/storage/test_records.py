"""Lines that survive a kill."""

import json
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


def changed_everywhere(text: bytes):
    """The text with each of its bytes changed in turn: another letter, a bit flipped, none."""
    for place in range(len(text)):
        for other in (b"x", bytes([text[place] ^ 1]), b""):
            if other != text[place : place + 1]:
                yield text[:place] + other + text[place + 1 :]


def test_whatever_letter_of_a_line_is_changed_it_is_left_out(tmp_path):
    """Or says the same: a key of the checksum, or a space, may be written otherwise."""
    file, row = tmp_path / "images-0.jsonl", {"id": 3, "class": 1, "clean": [3, 7], "size": 0.1, "attacks": {"é": None}}
    records.append(file, [row, row])
    first, second = file.read_bytes().splitlines(keepends=True)
    left_out = 0
    for changed in changed_everywhere(first.rstrip()):
        file.write_bytes(changed + b"\n" + second)
        found = records.read(file)
        assert [held for held in found if held != row | {k: v for k, v in held.items() if k not in row}] == []
        assert found[-1] == row
        left_out += len(found) == 1
    assert left_out > 200


def test_whatever_letter_of_a_record_is_changed_it_is_refused(tmp_path):
    file = tmp_path / "summary.json"
    values = {"clean": {"mean": 0.5}, "eps": 8 / 255, "rows": [{"1": 2}, None, "ü"]}
    written = records.write(file, values | {"by": {10: 1, 9: 2}})  # whose keys are texts once they are written
    assert records.read_json(file, "again") == json.loads(file.read_text()) == json.loads(json.dumps(written))
    refused = 0
    for changed in changed_everywhere(file.read_bytes()):
        file.write_bytes(changed)
        try:
            found = records.read_json(file, "again")
        except IDCError:
            refused += 1
        else:
            assert {k: found[k] for k in values} == values
    assert refused > 300


def test_a_record_of_before_there_were_checksums_is_read(tmp_path):
    (tmp_path / "images-0.jsonl").write_text('{"id": 1, "class": 2}\n')
    (tmp_path / "summary.json").write_text('{"clean": 1, "settings": {"data": {"images": 3}}}')
    assert records.read(tmp_path / "images-0.jsonl") == [{"id": 1, "class": 2}]
    keys = ("clean", "settings.data.images")
    assert records.read_json(tmp_path / "summary.json", "", keys=keys)["clean"] == 1
    for missing in ("noise", "clean.mean", "settings.data.split"):
        with pytest.raises(IDCError, match=f"a whole record .{missing} is missing.; again"):
            records.read_json(tmp_path / "summary.json", "again", keys=(*keys, missing))


def test_brackets_without_end_are_no_record(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + '\n{"id": 1}\n')
    assert records.read(tmp_path / "a.jsonl") == [{"id": 1}]
    (tmp_path / "a.json").write_text('{"a":' * 100_000)
    with pytest.raises(IDCError, match="a whole JSON file; again"):
        records.read_json(tmp_path / "a.json", "again")


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
