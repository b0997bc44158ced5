"""A saved model comes back bit for bit, or not at all."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from idc import IDC, IDCError
from idc.method.bridge import BridgeSpec
from idc.method.config import config_from_dict
from idc.storage.model_folder import CARD, CONFIG, WEIGHTS
from idc.storage.records import recorded as config_to_dict
from tiny import tiny_model


@pytest.fixture
def saved(tmp_path, model):
    model.card = {"Data": "made up", "figures": {"validation one_step": 0.5}}
    model.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_round_trip(saved, model, images):
    again = IDC.from_pretrained(saved)
    assert not again.training
    assert torch.equal(again.one_step(images), model.one_step(images))
    assert again.config == model.config
    assert again.card == model.card
    assert sorted(p.name for p in saved.iterdir()) == [CARD, CONFIG, WEIGHTS]


def test_every_setting_survives(tmp_path):
    model = tiny_model(
        3, (3, 8, 8), bridge=BridgeSpec(timesteps=6, eta=0.5, max_variance=2.0), visits=(5, 2), clip=False,
        temperature=0.2, label_seed=7, class_names=("a", "b", "ü"), label_kind="hadamard", label_cell=2,
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    again = IDC.from_pretrained(tmp_path)
    assert again.config == model.config
    assert torch.equal(again.labels, model.labels)


def test_what_says_nothing_of_labels_is_read_and_written_as_before(saved, model):
    """A model of the paper's labels has the config, and so the hash of it, that it had before there were others."""
    values = json.loads((saved / CONFIG).read_text())
    assert set(values["classifier"]) == {
        "num_classes", "image_shape", "unet", "bridge", "label_seed", "visits", "clip", "temperature", "class_names",
    }  # fmt: skip
    again = IDC.from_pretrained(saved).config
    assert (again.label_kind, again.label_cell) == ("qr", 1)
    edit_config(saved, lambda v: v["classifier"].update(label_kind="qr", label_cell=1), rehash=True)
    assert IDC.from_pretrained(saved).config == model.config


def test_a_model_from_before_there_was_a_choice_loads():
    folder = Path(__file__).parents[2] / "models" / "digits"
    found = IDC.from_pretrained(folder)
    assert found.config.label_kind == "qr"
    values = json.loads((folder / CONFIG).read_text())
    assert config_to_dict(found.config) == values["classifier"]


def test_card_names_the_labels(tmp_path):
    tiny_model(label_kind="low-frequency", label_cell=2).save_pretrained(tmp_path)
    assert "- Image labels: low-frequency, seed 0, in cells of 2x2 pixels\n" in (tmp_path / CARD).read_text()


def test_card_names_classes_and_figures(saved):
    text = (saved / CARD).read_text()
    assert "Classes: 0, 1, 2, 3" in text
    assert "| validation one_step | 0.5 |" in text
    assert "made up" in text


def test_a_run_folder_stands_for_its_best_model(saved, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(saved, run / "best")
    assert IDC.from_pretrained(run).num_classes == 4


def test_of_a_run_without_a_best_model_its_last_one_is_named(saved, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(saved, run / "last")
    with pytest.raises(IDCError, match=r"--resume.*run/last"):
        IDC.from_pretrained(run)
    assert IDC.from_pretrained(run / "last").num_classes == 4


def test_saving_again_replaces(saved, images):
    other = tiny_model(seed=5)
    other.save_pretrained(saved)
    assert torch.equal(IDC.from_pretrained(saved).one_step(images), other.one_step(images))


def nearest_bf16(values):
    """Rounding to the nearest bf16, ties to even, on the bits of finite float32 numbers."""
    bits = values.numpy().view(np.uint32).astype(np.uint64)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return torch.from_numpy((bits & 0xFFFF0000).astype(np.uint32).view(np.float32))


def test_bf16_halves_the_file_and_comes_back_as_float32(saved, tmp_path, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "half", dtype="bf16")
    again = IDC.from_pretrained(tmp_path / "half")
    for name, tensor in again.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, nearest_bf16(before[name])), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())  # its own stay
    assert again.config == model.config
    numbers = sum(t.numel() for t in before.values())
    saving = (saved / WEIGHTS).stat().st_size - (tmp_path / "half" / WEIGHTS).stat().st_size
    assert saving == pytest.approx(2 * numbers, rel=0.01)  # but for the files' heads
    assert "stored in bf16" in (tmp_path / "half" / CARD).read_text()
    assert "bf16" not in (saved / CARD).read_text()


def test_bf16_leaves_the_statistics_of_batch_norm(tmp_path, model):
    network = dataclasses.replace(model.config.unet, norm="batch")
    model = IDC(dataclasses.replace(model.config, unet=network)).train()
    model(torch.rand(5, 1, 8, 8))  # which they take from images
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.save_pretrained(tmp_path, dtype="bf16")
    after = IDC.from_pretrained(tmp_path).state_dict()
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        kept = "running" in name or "num_batches" in name
        assert torch.equal(tensor, before[name] if kept else nearest_bf16(before[name])), name
    assert any(not torch.equal(v, nearest_bf16(v)) for k, v in before.items() if "running_var" in k)


@pytest.mark.parametrize("dtype", ["fp16", "float32", ""])
def test_other_dtypes_write_nothing(tmp_path, model, dtype):
    with pytest.raises(IDCError, match="one of fp32, bf16"):
        model.save_pretrained(tmp_path / "m", dtype=dtype)
    assert not (tmp_path / "m").exists()


def test_a_file_in_the_way_of_the_folder(tmp_path, model):
    (tmp_path / "m").write_text("mine")
    with pytest.raises(IDCError, match="a folder"):
        model.save_pretrained(tmp_path / "m")
    assert (tmp_path / "m").read_text() == "mine"


def test_a_card_shows_facts_tables_rows_and_sentences(tmp_path, model):
    model.card = {
        "Data": "made up",
        "measured": [{"attack": "none", "n": 3}, {"attack": "pgd", "n": 4}],
        "limits": ["A."],
    }
    model.save_pretrained(tmp_path)
    text = (tmp_path / CARD).read_text()
    assert "## Measured\n\n| attack | n |\n| --- | --- |\n| none | 3 |\n| pgd | 4 |\n" in text
    assert "## Limits\n\n- A.\n" in text
    assert "- measured:" not in text


def flip_byte(file, where):
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)


def edit_config(folder, change, rehash=False):
    from idc.storage.model_folder import digest

    values = json.loads((folder / CONFIG).read_text())
    change(values)
    if rehash:
        values.pop("config_sha256")
        values["config_sha256"] = digest(values)
    (folder / CONFIG).write_text(json.dumps(values))


DAMAGE = {
    "flipped byte": (lambda f: flip_byte(f / WEIGHTS, -3), "SHA-256"),
    "truncated weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]), "SHA-256"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "readable weights"),
    "no config": (lambda f: (f / CONFIG).unlink(), CONFIG),
    "truncated config": (lambda f: (f / CONFIG).write_text((f / CONFIG).read_text()[:50]), "whole JSON"),
    "edited class order": (
        lambda f: edit_config(f, lambda v: v["classifier"]["class_names"].reverse()),
        "edited or damaged",
    ),
    "another model's config": (lambda f: (f / CONFIG).write_text('{"architectures": ["Bert"]}'), "some other model"),
    "newer format": (lambda f: edit_config(f, lambda v: v.update(format=99), rehash=True), "format 1"),
    "labels of another seed": (
        lambda f: edit_config(f, lambda v: v["classifier"].update(label_seed=1), rehash=True),
        "image labels",
    ),
    "labels of another kind": (
        lambda f: edit_config(f, lambda v: v["classifier"].update(label_kind="blocks"), rehash=True),
        "image labels",
    ),
    "labels of no kind": (
        lambda f: edit_config(f, lambda v: v["classifier"].update(label_kind="onehot"), rehash=True),
        "onehot",
    ),
    "another network": (
        lambda f: edit_config(f, lambda v: v["classifier"]["unet"].update(multipliers=[1, 1]), rehash=True),
        "weights that fit",
    ),
    "unknown setting": (lambda f: edit_config(f, lambda v: v["classifier"].update(magic=1), rehash=True), "fit"),
}


def sharded(folder, largest=30_000):
    from idc.storage.model_folder import split

    split(folder, largest)
    return sorted(folder.glob("model-*.safetensors"))


def test_shards_hold_what_one_file_held(saved, model, images):
    from huggingface_hub import load_torch_model

    before = model.one_step(images)
    shards = sharded(saved)
    assert len(shards) > 2
    assert not (saved / WEIGHTS).exists()
    largest = max(v.numel() * 4 for v in model.state_dict().values())
    assert all(s.stat().st_size <= max(30_000, largest + 1_000) for s in shards)
    assert torch.equal(IDC.from_pretrained(saved).one_step(images), before)
    fresh = IDC(model.config)
    load_torch_model(fresh, saved)  # the hub's own loader reads the index
    assert torch.equal(fresh.eval().one_step(images), before)


def test_one_tensor_above_the_limit_stays_whole(tmp_path):
    from idc.storage.model_folder import split, write

    write(tmp_path, {"weight": torch.ones(1000)}, {}, "card")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    split(tmp_path, 1000)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_cut_twice_is_cut_once(saved):
    shards = sharded(saved)
    assert sharded(saved) == shards
    IDC.from_pretrained(saved)


def test_what_is_small_is_not_cut(saved):
    whole = (saved / WEIGHTS).read_bytes()
    assert sharded(saved, largest=10**9) == []
    assert (saved / WEIGHTS).read_bytes() == whole


def test_a_model_saved_over_shards_is_one_file_again(saved, model):
    sharded(saved)
    model.save_pretrained(saved)
    assert sorted(p.name for p in saved.iterdir()) == [CARD, CONFIG, WEIGHTS]
    IDC.from_pretrained(saved)


def rename_shard(values):
    shards = values["weights_sha256"]
    shards["../" + next(iter(shards))] = shards.pop(next(iter(shards)))


def drop_shard(values):
    values["weights_sha256"].popitem()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: flip_byte(sharded(f)[1], -3), "SHA-256"),
        (lambda f: edit_config(f, lambda v: v.pop("weights_sha256"), rehash=True), "SHA-256"),
        (lambda f: sharded(f)[0].unlink(), "readable weights"),
        (lambda f: sharded(f) and edit_config(f, rename_shard, rehash=True), "names of shards"),
        (lambda f: sharded(f) and edit_config(f, drop_shard, rehash=True), "weights that fit"),
    ],
)
def test_damaged_shards_are_an_error(saved, harm, message):
    harm(saved)
    with pytest.raises(IDCError, match=message):
        IDC.from_pretrained(saved)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_an_error(saved, name):
    harm, message = DAMAGE[name]
    harm(saved)
    with pytest.raises(IDCError, match=message) as caught:
        IDC.from_pretrained(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["./missing", "no/such/folder", "missing.pt", "/nowhere/model", "~/nothing-here"])
def test_what_looks_like_a_path_is_never_looked_up(name, monkeypatch):
    monkeypatch.setattr("idc.storage.hub.reachable", lambda: pytest.fail("asked the network"))
    with pytest.raises(IDCError, match="model folder"):
        IDC.from_pretrained(name)


def test_a_hub_id_without_a_network_is_an_error_in_time(monkeypatch):
    import time

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(IDCError, match="hub"):
        IDC.from_pretrained("someone/some-model")
    assert time.monotonic() - began < 10


@pytest.fixture
def hub_repository(tmp_path, monkeypatch):
    """A folder that stands for a repository on the hub, and what is fetched of it."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    remote, here, fetched = tmp_path / "remote", tmp_path / "here", []
    here.mkdir()

    def download(repo_id, *, revision, allow_patterns, **_):
        assert revision in ({here.name} if fetched else {None})  # the weights are of the config's commit
        names = list(filter_repo_objects([p.name for p in remote.iterdir()], allow_patterns=allow_patterns))
        for name in names:
            shutil.copy(remote / name, here / name)
        fetched.extend(names)
        return str(here)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr("idc.storage.hub.reachable", lambda: True)
    return remote, fetched


@pytest.mark.parametrize("cut", [False, True])
def test_of_a_hub_id_what_the_config_names_is_fetched(saved, model, images, hub_repository, cut):
    remote, fetched = hub_repository
    before = model.one_step(images)
    weights = [s.name for s in sharded(saved)] if cut else [WEIGHTS]
    shutil.copytree(saved, remote)
    (remote / "model-00001-of-00099.safetensors").write_bytes(b"of another model")
    again = IDC.from_pretrained("someone/some-model")
    assert torch.equal(again.one_step(images), before)
    assert set(fetched) == {CONFIG, *weights}


@pytest.mark.parametrize("config", ['{"architectures": ["ResNet"]}', "[1]", "no JSON", None])
def test_of_a_hub_id_that_is_no_model_of_ours_no_weights_are_fetched(hub_repository, config):
    remote, fetched = hub_repository
    remote.mkdir()
    for name in (WEIGHTS, "model-00001-of-00002.safetensors"):
        (remote / name).write_bytes(b"large")
    if config is not None:
        (remote / CONFIG).write_text(config)
    with pytest.raises(IDCError):
        IDC.from_pretrained("someone/some-model")
    assert fetched == ([] if config is None else [CONFIG])


def test_push_to_hub_uploads_the_three_files(model, monkeypatch):
    from huggingface_hub import HfApi

    seen = {}
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Repo", (), {"repo_id": repo_id})())

    def upload(self, *, folder_path, **_):
        seen.update({p.name: p.stat().st_size for p in Path(folder_path).iterdir()})

    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model.push_to_hub("someone/some-model")
    assert set(seen) == {CARD, CONFIG, WEIGHTS}
    assert min(seen.values()) > 0


def test_config_dict_is_plain_json(model):
    values = config_to_dict(model.config)
    assert config_from_dict(json.loads(json.dumps(values))) == model.config


def test_failed_save_leaves_no_model(tmp_path, model, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(IDCError, match="room on the disk"):
        model.save_pretrained(tmp_path / "m")
    assert list((tmp_path / "m").iterdir()) == []


def test_facts_of_a_card_can_be_changed(saved):
    from idc.storage.model_folder import change_card

    change_card(saved, {"Data": "found"})
    again = IDC.from_pretrained(saved)  # its hashes still hold
    assert again.card["Data"] == "found"
    assert "- Data: found" in (saved / CARD).read_text()
    assert "made up" not in (saved / CARD).read_text()
