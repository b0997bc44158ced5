"""What a run goes on from: whole checkpoints alone, of the images that it began with."""

import shutil
from pathlib import Path

import pytest
import torch

from idc import IDCError
from idc.commands.train import start_training
from idc.training.checkpoint import Checkpoint, RunState, load_latest, save
from tiny_training import SMALL


def test_a_run_does_not_go_on_with_other_images(whole, network):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    for limit, words in {96: "96 train images: expected the 128", None: "1132 train images: expected the 128"}.items():
        with pytest.raises(IDCError, match=words):
            start_training("digits", whole, preset=network, limit=limit, changes=SMALL, resume=True)
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, tmp_path):
    root = tmp_path / "checkpoints"
    shutil.copytree(whole / "checkpoints", root)
    newest = sorted(root.iterdir())[-1]
    state = (newest / "state.pt").read_bytes()
    flipped = bytearray(state)
    flipped[len(state) // 2] ^= 1  # torch.load alone reads it as another weight
    progress = (newest / "progress.json").read_bytes()
    for file, whole_text, damages in (
        ("state.pt", state, (b"cut short", bytes(flipped))),
        ("progress.json", progress, (b"{}", b"[]", b"{", progress.replace(b"best", b"besu"))),
    ):
        for damaged in damages:
            (newest / file).write_bytes(damaged)
            found = load_latest(root)
            assert found is not None
            assert found.step < 16
        (newest / file).write_bytes(whole_text)
    for folder in root.iterdir():
        (folder / "state.pt").write_bytes(b"")
    with pytest.raises(IDCError, match="damaged"):
        load_latest(root)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux")
@pytest.mark.parametrize("numbers", [9, 100_000])
def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch, numbers):
    """As torch's own writer tells of it: in words of its own."""
    save(tmp_path, Checkpoint(4, {"network": {"a": torch.ones(9)}}, {"seconds": 1.0}))
    plain = torch.save
    monkeypatch.setattr(torch, "save", lambda tensors, file: plain(tensors, "/dev/full"))
    with pytest.raises(IDCError, match="step-00000008: expected room on the disk"):
        save(tmp_path, Checkpoint(8, {"network": {"a": torch.ones(numbers)}}, {"seconds": 2.0}))
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000004"]
    found = load_latest(tmp_path)
    assert (found.step, found.progress["seconds"]) == (4, 1.0)
    assert torch.equal(found.tensors["network"]["a"], torch.ones(9))


def test_a_checkpoint_of_before_machines_were_noted_is_taken_for_one_of_this(tmp_path):
    state = RunState({"train": [4, "abc"]})
    kept = {"seconds": 5.0, "best": 0.5, "best_step": 3, "accuracy": {"one_step": 0.5}, "of another version": 1}
    state.take_over(kept, tmp_path, "1 x CPU")
    assert (state.seconds_on, state.images) == ({"1 x CPU": 5.0}, {"train": [4, "abc"]})
    assert (state.best, state.best_step, state.accuracy, state.whole) == (0.5, 3, {"one_step": 0.5}, None)
    again = RunState({"train": [4, "abc"]})
    again.take_over(state.to_dict(), tmp_path, "2 x GPU")
    assert again == state
    assert again.seconds == 5
    with pytest.raises(IDCError, match="4 train images, others than before: expected the 4 that the run began with"):
        RunState({"train": [4, "other"]}).take_over(state.to_dict(), tmp_path, "1 x CPU")


def test_checkpoints_of_another_version_are_refused(tmp_path):
    save(tmp_path, Checkpoint(4, {"model": {}}, {"seconds": 0.0}))
    with pytest.raises(IDCError, match="this version of idc"):
        load_latest(tmp_path)
