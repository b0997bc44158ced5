"""What lies in a source and is not used is counted, named, and never a class; and the summary of what is used."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idc.data import load
from idc.errors import IDCError
from pictures import SPLITS, complaint, encoded, plain, values, write_classes, write_numbered_parquet


def test_unsupported_files_links_and_foreign_folders_are_counted_and_named(tmp_path: Path) -> None:
    write_classes(tmp_path, ["a", "b"], 6)
    for name in ("x.HEIC", "y.heic", "notes.txt"):
        (tmp_path / "a" / name).write_bytes(b"?")
    write_classes(tmp_path / "a", ["@eaDir"], 3, start=90)
    write_classes(tmp_path, ["@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"], 1, start=95)
    (tmp_path / "b" / "more").symlink_to(tmp_path / "a")
    images = load(tmp_path, split="train", validation_fraction=0)
    assert images.class_names == ("a", "b")
    assert set(values(images)) < set(range(12))
    assert sorted(images.skipped) == ["a/notes.txt", "a/x.HEIC", "a/y.heic"]
    for told in ("2 .heic files", "1 .txt files", "6 system folders", "1 links to folders"):
        assert told in images.summary
    assert load(tmp_path, split="test").skipped == ()  # named once, with the images that they lie beside


def test_a_link_to_nothing_is_a_bad_file(tmp_path: Path) -> None:
    write_classes(tmp_path, ["a", "b"], 6)
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    for split in ("train", "test"):
        with pytest.raises(IDCError, match=r"a/gone\.png, b/pipe\.png .*expected image files"):
            load(tmp_path, split=split)
    images = load(tmp_path, split="all", skip_bad=True)
    assert sorted(values(images)) == list(range(12))
    assert sorted(images.skipped) == ["a/gone.png", "b/pipe.png"]


@pytest.mark.parametrize(
    ("train", "test"),
    [("training_set", "test_set"), ("my-train", "my-test"), ("TRAINING", "Testing"), ("train.v2", "test.v2")],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_folders_are_splits_if_all_siblings_are(tmp_path: Path, train: str, test: str, wrapped: bool) -> None:
    inner = (tmp_path / train / train, tmp_path / test / test) if wrapped else (tmp_path / train, tmp_path / test)
    write_classes(inner[0], ["cats", "dogs"], 6)
    write_classes(inner[1], ["cats", "dogs"], 3, start=50)
    images, held = (load(tmp_path, split=split, validation_fraction=0) for split in ("train", "test"))
    assert (images.class_names, held.class_names) == (("cats", "dogs"),) * 2
    assert (sorted(values(images)), sorted(values(held))) == (list(range(12)), list(range(50, 56)))
    assert images.has_splits


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ["steam", "diesel"], 3)
    write_classes(tmp_path, ["bus", "car"], 6, start=20)
    images = load(tmp_path, split="all")
    assert images.class_names == ("bus", "car", "train")
    assert sorted(values(images)) == [*range(6), *range(20, 32)]


def test_splits_beside_something_else_are_not_guessed(tmp_path: Path) -> None:
    for name in ("train", "test", "extra"):
        write_classes(tmp_path / name, ["a", "b"], 3)
    assert "train, test beside extra: expected splits only, or classes only" in complaint(tmp_path).replace(
        "test, train", "train, test"
    )


def test_a_split_without_class_folders_is_left_out_aloud(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ["a", "b"], 6)
    (tmp_path / "test").mkdir()
    plain(9).save(tmp_path / "test" / "1.png")  # as contests have it: no answers
    images = load(tmp_path, split="train")
    assert images.class_names == ("a", "b")
    assert "folder test without class folders" in images.summary


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "training"):
        write_classes(tmp_path / name, ["a", "b"], 3)
    assert "one folder a split" in complaint(tmp_path)


def test_parquet_beside_class_folders_does_not_hide_them(tmp_path: Path) -> None:
    write_classes(tmp_path, ["a", "b"], 6)
    pq.write_table(pa.table({"file_name": ["a/000.png"], "w": [1.0]}), tmp_path / "metadata.parquet")
    images = load(tmp_path, split="train")
    assert images.class_names == ("a", "b")
    assert "1 .parquet files" in images.summary


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("full_size/train/0.parquet", "320px/train/0.parquet"),
        ("full-train.parquet", "a-train.parquet"),
        ("full/0.parquet", "a/0.parquet"),
    ],
)
def test_configurations_of_one_set_are_never_merged(tmp_path: Path, first: str, second: str) -> None:
    for name in (first, second):
        write_numbered_parquet(tmp_path / name, 12)
    sets = {split: load(tmp_path, split=split) for split in SPLITS}
    assert sorted(v for images in sets.values() for v in values(images)) == list(range(12))
    assert "1 files of configuration full" in sets["train"].summary


def test_parquet_files_of_which_some_tell_no_split_are_refused(tmp_path: Path) -> None:
    write_numbered_parquet(tmp_path / "train.parquet", 6)
    write_numbered_parquet(tmp_path / "more.parquet", 6)
    assert "more.parquet beside files of splits" in complaint(tmp_path)


def test_parquet_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    write_numbered_parquet(tmp_path / "train-0.parquet", 6)
    write_numbered_parquet(tmp_path / "train-1.parquet", 6, label="labels")
    assert "other columns" in complaint(tmp_path)


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()])
def test_unsigned_labels_are_labels(tmp_path: Path, kind: pa.DataType) -> None:
    rows = [{"bytes": encoded(plain(i)), "path": None} for i in range(12)]
    pq.write_table(pa.table({"image": rows, "label": pa.array([0, 1] * 6, kind)}), tmp_path / "train.parquet")
    images = (
        load(tmp_path, split="all") if not load(tmp_path, split="train").has_splits else load(tmp_path, split="train")
    )
    assert images.labels.tolist() == [v % 2 for v in values(images)]


def test_labels_beyond_all_classes_are_refused(tmp_path: Path) -> None:
    rows = [{"bytes": encoded(plain(i)), "path": None} for i in range(4)]
    pq.write_table(pa.table({"image": rows, "label": pa.array([0, 1, 2, 2**63], pa.uint64())}), tmp_path / "x.parquet")
    assert "labels from 0" in complaint(tmp_path)


@pytest.mark.parametrize("columns", [["image", "label", "label"], ["image", "image", "label"]])
def test_a_column_twice_is_refused(tmp_path: Path, columns: list[str]) -> None:
    image = pa.array([{"bytes": encoded(plain(i)), "path": None} for i in range(4)])
    arrays = [image if name == "image" else pa.array([0, 1, 0, 1]) for name in columns]
    pq.write_table(pa.Table.from_arrays(arrays, names=columns), tmp_path / "train.parquet")
    assert "twice" in complaint(tmp_path)


def test_text_in_place_of_bytes_opens_no_file(tmp_path: Path) -> None:
    plain(3).save(tmp_path / "secret.png")
    (tmp_path / "data").mkdir()
    kind = pa.struct([("bytes", pa.string()), ("path", pa.string())])
    rows = pa.array([{"bytes": str(tmp_path / "secret.png"), "path": None}] * 4, kind)
    pq.write_table(pa.table({"image": rows, "label": [0, 1] * 2}), tmp_path / "data" / "d.parquet")
    assert "expected a column img or image with encoded images" in complaint(tmp_path / "data")


@pytest.mark.parametrize("name", [b"caf\xe9", b"line\nend", b"x" * 230], ids=["latin-1", "newline", "long"])
def test_class_names_that_no_model_could_keep_are_refused_at_once(tmp_path: Path, name: bytes) -> None:
    write_classes(tmp_path, ["b"], 6)
    folder = os.fsencode(tmp_path) + b"/" + name
    os.mkdir(folder)
    for i in range(6):
        with open(folder + b"/%d.png" % i, "wb") as file:
            file.write(encoded(plain(i)))
    message = complaint(tmp_path)
    assert "printable characters" in message
    assert message.isprintable()
    assert len(message) < 500


def test_a_source_without_splits_is_taken_whole_and_the_summary_says_so(tmp_path: Path) -> None:
    write_classes(tmp_path, ["a", "b"], 20)
    whole = load(tmp_path, split="all")
    assert sorted(values(whole)) == list(range(40))
    assert not whole.has_splits
    assert "2 classes (a, b)" in whole.summary
    assert "no splits of its own: all 40; taken: all 40 images at 1x4x4" in whole.summary  # and none is held out
    sets = {split: load(tmp_path, split=split) for split in SPLITS}
    for split, images in sets.items():
        assert f"{len(images)} of {split} at 1x4x4" in images.summary
        assert (
            "no splits of its own: train 28, validation 4 (held out by us), test 8 (held out by us)" in images.summary
        )
    write_classes(tmp_path / "of_its_own" / "train", ["a", "b"], 3)
    with pytest.raises(IDCError, match=r"split 'all' of .*train, validation or test"):
        load(tmp_path / "of_its_own", split="all")


def test_the_summary_says_to_which_size_images_of_many_are_scaled(tmp_path: Path) -> None:
    """And what of, where somebody chose it."""
    write_classes(tmp_path, ["a", "b"], 6)
    plain(7, 90).save(tmp_path / "a" / "large.png")
    assert "at 1x32x32, scaled from 4 to 90 pixels a side (--image-size" in load(tmp_path, split="train").summary
    chosen = load(tmp_path, split="train", image_size=8).summary
    assert chosen.endswith("at 1x8x8, scaled from 4 to 90 pixels a side")
    (tmp_path / "a" / "large.png").unlink()
    assert "scaled" not in load(tmp_path, split="train", image_size=4).summary
    assert load(tmp_path, split="train", image_size=8).summary.endswith("scaled from 4 pixels a side")


def test_labels_follow_the_order_of_names_that_is_asked_for(tmp_path: Path) -> None:
    write_classes(tmp_path, ["0", "1", "10", "2"], 4)  # folder names sort as text
    images = load(tmp_path, split="all")
    assert images.class_names == ("0", "1", "10", "2")
    ordered = images.in_order(("0", "1", "2", "10"))
    assert [ordered.class_names[k] for k in ordered.labels] == [images.class_names[k] for k in images.labels]
    assert ordered.fingerprint != images.fingerprint
    with pytest.raises(IDCError, match="use data of those classes"):
        images.in_order(("0", "1", "2", "3"))
