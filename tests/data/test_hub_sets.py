"""Data sets of the hub, by a stand-in for it and by its library's own cache."""

from pathlib import Path
from typing import Any

import pytest

from idc.data import load
from idc.errors import IDCError
from idc.storage import hub
from pictures import cache_files, encoded, plain, values


@pytest.mark.parametrize("source", ["somebody/pictures", "pictures", "somebody/pictures-v1.5"])
def test_a_hub_id_without_a_network_is_asked_for_once(
    source: str, connections: list[tuple[object, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IDCError, match="cannot be reached"):
        load(source, split="train")
    assert connections == [("127.0.0.1", 9, hub.PROBE_SECONDS)]


def hub_set(rows: int, start: int, label: str) -> Any:
    import datasets

    features = datasets.Features({"image": datasets.Image(), label: datasets.ClassLabel(names=["low", "high"])})
    images = [{"bytes": encoded(plain(start + index)), "path": None} for index in range(rows)]
    labels = [index % 2 for index in range(rows)]
    return datasets.Dataset.from_dict({"image": images, label: labels}, features=features)


@pytest.mark.parametrize("label", ["label", "fine_label"])
def test_a_hub_set_with_class_labels(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    loaded = datasets.DatasetDict({"train": hub_set(20, 0, label), "test": hub_set(4, 50, label)})
    asked: list[str] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or loaded)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    train, test = load("somebody/pictures", split="train"), load("somebody/pictures", split="test")
    assert asked == ["somebody/pictures"] * 2
    assert train.class_names == ("low", "high")
    assert len(train) == 18
    assert [value % 2 for value in values(train)] == train.labels.tolist()
    assert values(test) == [50, 51, 52, 53]


def test_a_hub_set_in_the_librarys_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from datasets.packaged_modules.parquet.parquet import Parquet

    hub_set(20, 0, "label").to_parquet(tmp_path / "train.parquet")
    files = {"train": [str(tmp_path / "train.parquet")]}
    Parquet(cache_dir=str(tmp_path / "built"), dataset_name="pictures", data_files=files).download_and_prepare()
    (built,) = (tmp_path / "built").rglob("dataset_info.json")
    cached = tmp_path / "hub" / "somebody___pictures" / "default" / "0.0.0" / "0123456789abcdef"
    cached.parent.mkdir(parents=True)
    built.parent.rename(cached)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    train, test = load("somebody/pictures", split="train"), load("somebody/pictures", split="test")
    assert datasets.config.HF_HUB_OFFLINE is False
    assert train.class_names == ("low", "high")
    assert (len(train), len(test)) == (14, 4)
    assert not set(values(train)) & set(values(test))
    assert len(cache_files()) == 1
