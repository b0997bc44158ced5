import errno
import os
import time

import pytest

from idc.errors import IDCError
from idc.storage.files import (
    alone_in,
    make_folder,
    remove_left_over,
    sha256,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)  # fmt: skip


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def write_half():
        with whole_file(target) as part:
            part.write_text("ne")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(IDCError, match="room on the disk"):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "d"
    for name in ("one", "two"):
        with whole_folder(target) as part:
            (part / name).write_text(name)
    assert os.listdir(target) == ["two"]
    assert os.listdir(tmp_path) == ["d"]

    def write_half():
        with whole_folder(target) as part:
            (part / "three").write_text("3")
            raise RuntimeError("No space left on device (os error 28)")  # as safetensors says it

    with pytest.raises(IDCError, match="room on the disk"):
        write_half()
    assert os.listdir(target) == ["two"]
    assert os.listdir(tmp_path) == ["d"]


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with whole_file(tmp_path / "a") as part:
        part.unlink()
        part.touch(mode=0o600)
    assert (tmp_path / "a").stat().st_mode == plain.stat().st_mode


def test_one_at_a_time_in_a_folder(tmp_path):
    with alone_in(tmp_path):
        with pytest.raises(IDCError, match="no other process"), alone_in(tmp_path):
            pass
        with pytest.raises(IDCError, match="no other process"), alone_in(tmp_path):  # the refused one took nothing away
            pass
    with alone_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_in_which_nothing_is_written_goes_again(tmp_path):
    with pytest.raises(ValueError, match="early"), alone_in(tmp_path / "a" / "b"):
        raise ValueError("early")
    assert list((tmp_path / "a").iterdir()) == []
    with alone_in(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_nothing_but_what_killed_writers_left_is_removed(tmp_path):
    """Files of nearly such names are somebody's; folders that were not asked for are looked into by nobody."""
    others = {".part", ".x.part", ".x-012.part", ".x-0123abcg.part", ".x-0123abcd.parts", ".x.old", "x-0123abcd.part"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    for name in (*others, "mine/.x-0123abcd.part", "other/.x-0123abcd.part", ".x.json-0123abcd.part"):
        (tmp_path / name).touch()
    with alone_in(tmp_path, "mine", "not there"):
        pass
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == others | {"other/.x-0123abcd.part"}


def test_a_folder_is_there_whenever_its_writer_is_killed(tmp_path, monkeypatch):
    """Before, between and after the two renames that replace it."""

    class Killed(BaseException):
        pass

    for renames, expected in enumerate(("old", "old", "new")):
        place, target, count = tmp_path / str(renames), tmp_path / str(renames) / "best", []
        target.mkdir(parents=True)
        (target / "text").write_text("old")

        def rename(source, to, plain=os.rename, allowed=renames, count=count):
            if len(count) == allowed:
                raise Killed
            count.append(plain(source, to))

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", rename)
            patch.setattr("shutil.rmtree", lambda *_, **__: None)  # a killed process cleans nothing up
            try:
                with whole_folder(target) as part:
                    (part / "text").write_text("new")
            except Killed:
                pass
        remove_left_over(place)
        assert [file.name for file in place.iterdir()] == ["best"]
        assert (target / "text").read_text() == expected


def test_what_others_may_still_be_writing_is_left(tmp_path):
    for name, age in ((".a-0123abcd.part", 50), (".b-0123abcd.part", 150)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    remove_left_over(tmp_path, idle=100)
    assert [file.name for file in tmp_path.iterdir()] == [".a-0123abcd.part"]


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(IDCError, match="folder"):
            make_folder(path)


def test_sha256_and_json(tmp_path):
    write_json(tmp_path / "a.json", {"ü": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ü": 1\n}\n'
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
