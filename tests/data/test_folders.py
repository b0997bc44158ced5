"""Class folders: which files, which labels, which split, which error."""

import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from idc.data import load
from idc.data.decoding import image_suffixes
from idc.storage import hub
from pictures import SPLITS, complaint, plain, values, write_classes


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path, ["dog", "cat"], 20)  # dog: 0..19, cat: 20..39
    sets = {split: load(str(tmp_path), split=split) for split in SPLITS}
    assert sets["train"].class_names == ("cat", "dog")
    assert [len(sets[split]) for split in SPLITS] == [28, 4, 8]
    seen = {split: values(images) for split, images in sets.items()}
    assert sorted(chain(*seen.values())) == list(range(40))
    for split, images in sets.items():
        assert [sets[split].class_names[label] for label in images.labels] == [
            "dog" if value < 20 else "cat" for value in seen[split]
        ]
        # ids count the sorted files: cat/000 is 0, dog/000 is 20
        assert images.ids.tolist() == [value + 20 if value < 20 else value - 20 for value in seen[split]]


def test_a_folder_one_too_high_is_told(tmp_path: Path) -> None:
    for part in ("mine", "yours"):
        write_classes(tmp_path / part, ["cat", "dog"], 10)
    found = load(str(tmp_path), split="train")
    assert found.class_names == ("mine", "yours")
    told = "all of these hold folders of the same names (cat, dog): if they are the classes, give "
    told += f"{tmp_path / 'mine'} or {tmp_path / 'yours'}"
    assert found.summary.endswith(told)
    assert "same names" not in load(str(tmp_path / "mine"), split="train").summary
    (tmp_path / "mine" / "000.png").write_bytes(next((tmp_path / "mine" / "cat").iterdir()).read_bytes())
    assert "same names" not in load(str(tmp_path), split="train").summary


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_split_folders_are_taken_as_they_are(tmp_path: Path, validation: str) -> None:
    write_classes(tmp_path / "Train", ["a", "b"], 3)
    write_classes(tmp_path / validation, ["a", "b"], 1, start=50)
    write_classes(tmp_path / "test", ["b"], 2, start=100)
    assert sorted(values(load(str(tmp_path), split="train"))) == [0, 1, 2, 3, 4, 5]
    assert sorted(values(load(str(tmp_path), split="validation"))) == [50, 51]
    test = load(str(tmp_path), split="test")
    assert values(test) == [100, 101]
    assert test.labels.tolist() == [1, 1]
    assert test.class_names == ("a", "b")
    assert test.summary.endswith("\nnote: no image of a is among these")
    assert "no image of" not in load(str(tmp_path), split="train").summary


def test_hidden_files_other_files_and_deep_folders(tmp_path: Path) -> None:
    write_classes(tmp_path, ["a", "b"], 5)
    write_classes(tmp_path / "a", ["deeper"], 1, start=77)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._000.png"):
        (tmp_path / "a" / name).write_bytes(b"junk")
    write_classes(tmp_path, [".cache"], 1, start=99)
    (tmp_path / "README.md").write_text("about")
    images = load(str(tmp_path), split="train", validation_fraction=0)
    found = values(images) + values(load(str(tmp_path), split="test"))
    assert sorted(found) == [*range(10), 77]
    assert images.class_names == ("a", "b")


def empty(root: Path) -> None:
    """Leave the folder as it is."""


def loose_images(root: Path) -> None:
    plain(0).save(root / "a.png")


def split_folders_without_classes(root: Path) -> None:
    for name in ("train", "test"):
        (root / name).mkdir()
        plain(0).save(root / name / "a.png")


def one_class(root: Path) -> None:
    write_classes(root, ["only"], 5)


def an_empty_class(root: Path) -> None:
    write_classes(root, ["a", "b"], 5)
    (root / "hollow").mkdir()


def too_few(root: Path) -> None:
    write_classes(root, ["a"], 5)
    write_classes(root, ["rare"], 2)


def an_unknown_test_class(root: Path) -> None:
    write_classes(root / "train", ["a", "b"], 5)
    write_classes(root / "test", ["a", "c"], 5)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (empty, "has no images: expected one subfolder of images per class"),
        (loose_images, r"has images \(a.png, ...\) but no class folders"),
        (split_folders_without_classes, "has no class folders"),
        (one_class, "one class only"),
        (an_empty_class, "hollow has no images"),
        (too_few, r"class 'rare' has 2 training image\(s\): expected at least 3"),
        (an_unknown_test_class, "class folder .*c: expected one of train's 2 classes"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoiled_folder_is_one_clear_line(spoiled: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    spoiled(tmp_path)
    assert re.search(message, complaint(tmp_path))


def test_a_name_that_ends_like_an_image_file_is_a_path() -> None:
    assert [suffix for suffix in image_suffixes() if not hub.looks_like_path(f"somebody/x{suffix}")] == []


def test_files_that_are_no_pictures_are_left_alone(tmp_path: Path) -> None:
    """Pillow opens some of these too; what everybody calls an image is read, the rest of a folder is not."""
    usual = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm"}
    assert image_suffixes() >= usual | {".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".ico"}
    assert not image_suffixes() & {".pdf", ".mpg", ".h5", ".eps", ".psd", ".txt", ".csv", ""}
    write_classes(tmp_path, ["dog", "cat"], 20)
    (tmp_path / "dog" / "paper.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    assert sum(len(load(str(tmp_path), split=split)) for split in SPLITS) == 40
