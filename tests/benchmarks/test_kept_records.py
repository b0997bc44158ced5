"""A comparison's records in one file: what is unpacked is what was packed, and the same records give the same bytes."""

import common
import pytest


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "kept")
    monkeypatch.setattr(common, "UNPACKED", tmp_path / "runs")
    (tmp_path / "kept").mkdir()


def write(folder, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_records_come_back(tmp_path):
    write(tmp_path / "runs" / "peers" / "model", images_jsonl='{"id": 1}\n', first_safetensors="pixels", page_png="x")
    common.keep_records("peers")
    first = (tmp_path / "kept" / "peers.tar.xz").read_bytes()
    common.keep_records("peers")
    assert (tmp_path / "kept" / "peers.tar.xz").read_bytes() == first
    (tmp_path / "runs").rename(tmp_path / "before")
    found = common.records_of("peers")
    assert [(file.name, file.read_text()) for file in found.rglob("*.*")] == [("images.jsonl", '{"id": 1}\n')]


def test_a_folder_that_is_there_goes_on_as_it_is(tmp_path):
    write(tmp_path / "runs" / "peers", a_json="old")
    common.keep_records("peers")
    (tmp_path / "runs" / "peers" / "a.json").write_text("newer")
    assert (common.records_of("peers") / "a.json").read_text() == "newer"
    assert not common.records_of("others").exists()
