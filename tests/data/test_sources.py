"""What a name stands for: digits, a path, or nothing that may be looked up."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from idc.data import load, sources
from idc.errors import IDCError
from pictures import SPLITS, plain

PATHS = "./nowhere ../nowhere /nowhere ~/nowhere ~nobody a/b/c a\\b nowhere/ x.parquet user/x.png . here/nowhere"


def test_digits_are_scikit_learns_at_their_own_size() -> None:
    bunch = load_digits()
    for split in SPLITS:
        images = load("digits", split=split, image_size=8)
        expected = np.rint(bunch.images[images.ids.numpy()] / 16 * 255)
        np.testing.assert_array_equal(images.images[:, 0].numpy(), expected)
        np.testing.assert_array_equal(images.labels.numpy(), bunch.target[images.ids.numpy()])


def test_digits_by_default_are_32x32_grey_and_split_without_overlap() -> None:
    sets = [load("digits", split=split) for split in SPLITS]
    assert [images.shape for images in sets] == [(1, 32, 32)] * 3
    assert sets[0].images.dtype == torch.uint8
    assert sets[0].class_names == tuple("0123456789")
    ids = torch.cat([images.ids for images in sets])
    assert sorted(ids.tolist()) == list(range(1797))
    counts = np.bincount(load_digits().target)
    held_out = np.bincount(sets[2].labels.numpy())
    assert np.abs(held_out - counts * 0.3).max() <= 0.5
    assert np.abs(np.bincount(sets[1].labels.numpy()) - (counts - held_out) * 0.1).max() <= 0.5


@pytest.mark.parametrize("source", [*PATHS.split(), "", "two words"])
def test_what_looks_like_a_path_is_never_looked_up(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(sources, "hub_source", never)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IDCError) as caught:
        load(source, split="train")
    assert "folder" in str(caught.value)


def test_a_file_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    plain(0).save(tmp_path / "a.png")
    with pytest.raises(IDCError, match=r"a folder or a \.parquet file"):
        load(str(tmp_path / "a.png"), split="train")
