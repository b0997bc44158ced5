"""Images are decoded once, and again when anything that they depend on has changed or is damaged."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from idc.data import cache, load, pixels
from pictures import SPLITS, cache_files, encoded, plain, values, write_classes, write_numbered_parquet


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    decoded: list[str] = []
    real = pixels.decode

    def decode(raw: Any, name: str, shape: tuple[int, int, int]) -> Any:
        decoded.append(name)
        return real(raw, name, shape)

    monkeypatch.setattr(pixels, "decode", decode)
    return decoded


def test_every_image_is_decoded_once_for_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path, ["a", "b"], 10)
    decoded = count_decoding(monkeypatch)
    first = [load(str(tmp_path), split=split) for split in SPLITS]
    assert len(decoded) == len(set(decoded)) == 20
    again = [load(str(tmp_path), split=split, seed=0) for split in SPLITS]
    assert len(decoded) == 20
    assert len(cache_files()) == 1
    for old, new in zip(first, again, strict=True):
        assert torch.equal(old.images, new.images)
        assert old.fingerprint == new.fingerprint
    assert len({images.fingerprint for images in first}) == 3


def test_a_limit_decodes_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path, ["a", "b"], 10)
    decoded = count_decoding(monkeypatch)
    limited = load(str(tmp_path), split="train", limit=4)
    assert len(decoded) == 4
    load(str(tmp_path), split="train", limit=4)
    assert len(decoded) == 4
    whole = load(str(tmp_path), split="train")
    assert len(decoded) == 24
    assert load(str(tmp_path), split="train", limit=6).fingerprint == whole.take(6).fingerprint
    assert len(decoded) == 24
    assert whole.take(4).fingerprint == limited.fingerprint


def test_a_changed_file_or_setting_is_noticed(tmp_path: Path) -> None:
    write_classes(tmp_path / "test", ["a", "b"], 2)
    first = tmp_path / "test" / "a" / "000.png"
    first.write_bytes(encoded(plain(50), "bmp"))  # without compression: all images have equally long files
    assert values(load(str(tmp_path), split="test")) == [50, 1, 2, 3]
    before = first.stat()
    first.write_bytes(encoded(plain(99), "bmp"))
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    assert values(load(str(tmp_path), split="test")) == [99, 1, 2, 3]
    assert first.stat().st_size == before.st_size
    assert load(str(tmp_path), split="test", image_size=7).shape == (1, 7, 7)


def test_two_folders_of_equal_names_sizes_and_times_are_two_sets(tmp_path: Path) -> None:
    for value, name in ((10, "one"), (20, "two")):
        write_classes(tmp_path / name / "test", ["a", "b"], 1)
        for file in (tmp_path / name).rglob("*.png"):
            file.write_bytes(encoded(plain(value), "bmp"))
            os.utime(file, (1, 1))
    assert values(load(str(tmp_path / "one"), split="test")) == [10, 10]
    assert values(load(str(tmp_path / "two"), split="test")) == [20, 20]


def test_parquet_is_known_by_its_content_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_numbered_parquet(tmp_path / "one" / "test.parquet", 4)
    decoded = count_decoding(monkeypatch)
    load(str(tmp_path / "one"), split="test")
    (tmp_path / "one").rename(tmp_path / "two")
    os.utime(tmp_path / "two" / "test.parquet", (1, 1))
    assert values(load(str(tmp_path / "two"), split="test")) == [0, 1, 2, 3]
    assert len(decoded) == 4
    write_numbered_parquet(tmp_path / "two" / "test.parquet", 4, start=9)
    assert values(load(str(tmp_path / "two"), split="test")) == [9, 10, 11, 12]


def flip_a_pixel(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda _: b"junk" * 100, lambda content: content[:-7], flip_a_pixel], ids=range(4)
)
def test_a_damaged_cache_file_is_rebuilt(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    write_classes(tmp_path / "test", ["a", "b"], 2)
    load(str(tmp_path), split="test")
    (file,) = cache_files()
    intact = file.read_bytes()
    file.write_bytes(damage(intact))
    with pytest.warns(UserWarning, match="damaged"):
        assert values(load(str(tmp_path), split="test")) == [0, 1, 2, 3]
    assert file.read_bytes() == intact


def test_a_cache_that_cannot_be_written_is_a_warning_only(tmp_path: Path) -> None:
    write_classes(tmp_path / "test", ["a", "b"], 2)
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="not cached"):
        images = load(str(tmp_path), split="test", cache_dir=tmp_path / "file")
    assert values(images) == [0, 1, 2, 3]


def test_a_failing_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, file: Path, **_: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "save_file", full)
    write_classes(tmp_path / "test", ["a", "b"], 2)
    with pytest.warns(UserWarning, match=r"not cached.*room on the disk"):
        assert len(load(str(tmp_path), split="test")) == 4
    assert cache_files() == []


def test_the_cache_folder_can_be_chosen(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures" / "test", ["a", "b"], 2)
    load(str(tmp_path / "pictures"), split="test", cache_dir=tmp_path / "here")
    assert len(list((tmp_path / "here").rglob("*.safetensors"))) == 1
    assert cache_files() == []
