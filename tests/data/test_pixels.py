"""The default shape, and what becomes of images that cannot be read."""

import os
from pathlib import Path

import pytest
from PIL import Image

from idc.data import load
from idc.errors import IDCError
from pictures import SPLITS, plain, values, write_classes


def test_default_size_and_channels(tmp_path: Path) -> None:
    write_classes(tmp_path, ["a", "b"], 4)
    assert load(str(tmp_path), split="train").shape == (1, 4, 4)
    assert load(str(tmp_path), split="train", image_size=6, channels=3).shape == (3, 6, 6)
    plain(9, size=5).save(tmp_path / "a" / "other.png")
    assert load(str(tmp_path), split="train").shape == (1, 32, 32)
    plain(9, mode="RGB").save(tmp_path / "a" / "other.png")
    for split in SPLITS:  # one colour image in one split: every split has three channels
        assert load(str(tmp_path), split=split).shape == (3, 4, 4)


def test_oblong_images_have_a_default_size_of_32(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("L", (6, 4), number).save(tmp_path / name / f"{number}.png")
    assert load(str(tmp_path), split="train").shape == (1, 32, 32)


def test_images_of_which_no_size_follows_can_be_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, ["a", "b"], 2)
    assert load(str(tmp_path), split="all", mixed_sizes=False).shape == (1, 4, 4)
    plain(9, size=5).save(tmp_path / "a" / "other.png")
    assert load(str(tmp_path), split="all", image_size=6, mixed_sizes=False).shape == (1, 6, 6)
    with pytest.raises(IDCError, match=r"of 4 to 5 pixels a side: expected squares of one size .* input_shape"):
        load(str(tmp_path), split="all", mixed_sizes=False)


def spoil(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"bad{number}.png").write_text("text")


def test_unreadable_files_stop_the_run_or_are_skipped_by_name(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ["a", "b"], 4)
    write_classes(tmp_path / "test", ["a", "b"], 4, start=50)
    spoil(tmp_path / "test" / "a", 7)
    for _ in range(2):  # decoded, then from the cache
        with pytest.raises(IDCError, match=r"7 of 15 images.*bad0\.png.*bad4\.png \(not an image\); \.\.\.") as caught:
            load(str(tmp_path), split="test")
        assert "bad5" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(load(str(tmp_path), split="train", validation_fraction=0)) == 8
    for _ in range(2):
        test = load(str(tmp_path), split="test", skip_bad=True)
        assert values(test) == list(range(50, 58))
        assert test.skipped == tuple(f"test/a/bad{number}.png" for number in range(7))
        assert test.ids.tolist() == [0, 1, 2, 3, 11, 12, 13, 14]
        assert test.labels.tolist() == [0] * 4 + [1] * 4


def test_nothing_but_unreadable_files_is_an_error_even_if_they_may_be_skipped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        spoil(tmp_path / "test" / name, 2)
    with pytest.raises(IDCError, match="4 of 4 images"):
        load(str(tmp_path), split="test", skip_bad=True)


def test_a_file_that_becomes_readable_again_is_read(tmp_path: Path) -> None:
    write_classes(tmp_path / "test", ["a", "b"], 2)
    file = tmp_path / "test" / "a" / "000.png"
    good, stamp = file.read_bytes(), file.stat()
    file.write_bytes(b"x" * len(good))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert values(load(str(tmp_path), split="test", skip_bad=True)) == [1, 2, 3]
    file.write_bytes(good)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert values(load(str(tmp_path), split="test")) == [0, 1, 2, 3]
    assert values(load(str(tmp_path), split="test")) == [0, 1, 2, 3]
