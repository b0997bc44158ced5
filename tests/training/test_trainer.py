"""Training: an interrupted and resumed run ends bit for bit like one that was not; both learn."""

import json
import re
import signal
from functools import partial

import pytest
import torch

from idc import IDC, IDCError
from idc.accuracy import BridgeAccuracy
from idc.commands.train import start_training
from idc.method.config import IDCConfig
from idc.method.presets import resolve_spec
from idc.storage import records
from idc.training.checkpoint import load_latest
from idc.training.trainer import Trainer
from processes import run
from tiny_training import FLAGS, SMALL, signalled, train, weights


def test_a_run_leaves_what_it_promises(whole):
    for name in ("recipe.yaml", "metrics.jsonl", "summary.json", "best/config.json", "last/config.json"):
        assert (whole / name).is_file()
    assert list((whole / "tensorboard").iterdir())
    assert json.loads((whole / "summary.json").read_text())["images_seen"] == 16 * 16
    assert "validation one_step" in (whole / "best" / "README.md").read_text()
    steps = [m["step"] for m in records.read(whole / "metrics.jsonl") if "validation/one_step" in m]
    assert steps == [4, 8, 12, 16]
    assert IDC.from_pretrained(whole).class_names == tuple("0123456789")


def test_killed_in_the_middle_of_an_epoch_and_resumed_is_bitwise_the_same(whole, network, tmp_path):
    out = tmp_path / "run"
    command = ("train", "--out", out, "--preset", network, *FLAGS)
    assert run(*command, before=partial(signalled, signal.SIGKILL, 6)).returncode == -signal.SIGKILL
    assert max(p.name for p in (out / "checkpoints").iterdir()) == "step-00000006"  # 8 steps an epoch
    assert not (out / "summary.json").exists()
    resumed = run(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    expected, found = weights(whole), weights(out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    drop = {"seconds"}
    metrics = [records.read(folder / "metrics.jsonl") for folder in (whole, out)]
    lines = [[{k: v for k, v in m.items() if k not in drop} for m in own] for own in metrics]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_cleanly(network, tmp_path, number):
    out = tmp_path / "run"
    ended = run("train", "--out", out, "--preset", network, *FLAGS, before=partial(signalled, number, 4))
    assert ended.returncode == 128 + number
    assert "--resume" in ended.stderr
    assert "Traceback" not in ended.stderr
    saved = load_latest(out / "checkpoints")
    assert saved is not None
    assert saved.step == 6  # of two steps is an update made
    assert "stopped at step 6 " in ended.stderr
    assert IDC.from_pretrained(out / "last").num_classes == 10


def test_another_seed_gives_other_weights(whole, network, tmp_path):
    start_training("digits", tmp_path / "run", preset=network, limit=128, changes=SMALL | {"seed": 1})
    expected, found = weights(whole), weights(tmp_path / "run")
    assert any(not torch.equal(expected[k], found[k]) for k in expected)


def test_training_leaves_the_global_generator_as_found(network, tmp_path):
    before = torch.get_rng_state()
    start_training("digits", tmp_path / "run", preset=network, limit=64, changes=SMALL | {"epochs": 0.5})
    assert torch.equal(before, torch.get_rng_state())


def test_it_learns(network, tmp_path):
    """A few seconds on digits must beat chance (10%) by far."""
    changes = {"epochs": 4, "batch_size": 32, "validate_every": 4, "checkpoint_every": 4, "ema_decay": 0.9, "lr": 6e-3}
    result = start_training("digits", tmp_path / "run", preset=network, recipe="digits", changes=changes)
    assert result.accuracy is not None
    assert result.accuracy.one_step > 0.6


def test_accumulation_averages_gradients(tmp_path, network):
    """Two batches of 16 summed into one SGD-like first Adam step move each weight by lr times the sign of their mean
    gradient; one update is made for two steps."""
    start_training("digits", tmp_path / "run", preset=network, limit=128, changes=SMALL | {"epochs": 0.25})
    found = load_latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.step == 2
    counts = {int(s["step"]) for s in found.tensors["optimizer"]["state"].values()}
    assert counts == {1}


def test_a_folder_in_use_is_refused(whole, network):
    with pytest.raises(IDCError, match="--resume"):
        train(whole, network)
    with pytest.raises(IDCError, match=r"lr = 1: expected lr = 0\.003, as the run that it holds"):
        start_training("digits", whole, preset=network, limit=128, changes=SMALL | {"lr": 1.0}, resume=True)


def test_it_says_where_it_goes_on(whole, network, tmp_path, capsys):
    train(whole, network, resume=True)
    assert "nothing to train: the run was finished at step 16 of 16" in "".join(capsys.readouterr())
    start_training("digits", tmp_path / "new", preset=network, limit=128, changes=SMALL | {"epochs": 0.25}, resume=True)
    assert "holds no checkpoint: the training begins" in " ".join("".join(capsys.readouterr()).split())


def test_timesteps_of_the_answer_that_are_not_trained_are_told(network, tmp_path):
    said = []
    changes = SMALL | {"epochs": 0.25, "t_weights": (0, 0, 0, 1)}
    train_as = {"preset": network, "limit": 128, "changes": changes, "say": said.append}
    start_training("digits", tmp_path / "chain", **train_as)
    assert any("timesteps 1, 0 of the answer are not trained" in line and "--visits 3" in line for line in said)
    said.clear()
    start_training("digits", tmp_path / "one", visits=(3,), **train_as)
    assert not any("not trained" in line for line in said)


def test_a_loss_that_is_not_finite_stops_the_run(network, tmp_path):
    changes = SMALL | {"lr": 1e30, "clip_norm": 0.0, "epochs": 10.0, "warmup": 0.0, "accumulation": 1}
    with pytest.raises(IDCError, match="lower --lr"):
        start_training("digits", tmp_path / "run", preset=network, limit=128, changes=changes)


def test_timestep_weights_must_fit(network, tmp_path):
    with pytest.raises(IDCError, match="t_weights"):
        start_training("digits", tmp_path / "run", preset=network, limit=64, changes={"t_weights": "1,1"})


@pytest.mark.parametrize("settings", [{"accumulation": 4}, {"accumulation": 1, "eps": 0.1, "replays": 4}])
def test_an_interruption_waits_for_the_whole_gradient(network, tmp_path, monkeypatch, settings):
    """With four steps to an update, what is saved between two of them would lose the gradients that wait; with four on
    one batch, how far its attack has come."""

    def start(out, **more):
        changes = SMALL | settings | {"epochs": 2.0, "validate_every": 2.0}
        return start_training("digits", tmp_path / out, preset=network, limit=128, changes=changes, **more)

    start("whole")
    monkeypatch.setattr(Trainer, "_stopped", lambda self, signals, step: step >= 5)
    assert start("cut").step == 8
    saved = [int(re.search(r"\d+", p.name)[0]) for p in (tmp_path / "cut" / "checkpoints").iterdir()]
    assert saved
    assert all(step % 4 == 0 for step in saved)
    monkeypatch.undo()
    start("cut", resume=True)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_network_that_is_not_told_the_timestep_learns_one(tmp_path):
    file = tmp_path / "blind.yaml"
    file.write_text("preset: digits-encoder\ntime_embedding: false\n")
    asked = {"preset": str(file), "limit": 128, "changes": SMALL | {"t_weights": (0, 0, 0, 1)}}
    with pytest.raises(IDCError, match=r"visits 3,1,0 of a network that is not told the timestep: expected 3,"):
        start_training("digits", tmp_path / "run", visits=(3, 1, 0), **asked)
    for given, kept in {"0.05,0.35,0,0.6": (0.05, 0.35, 0, 0.6), "none": ()}.items():
        asked["changes"] |= {"t_weights": kept}
        with pytest.raises(IDCError, match=f"t_weights = {given} for .*; give --t-weights 0,0,0,1$"):
            start_training("digits", tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()
    assert IDCConfig(10, (1, 32, 32), resolve_spec("nano-encoder-patch2")).visits == (3,)


def test_a_network_without_a_timestep_is_trained_and_judged_in_one_step(tmp_path):
    """It needs no flag for that, and what is said of it is what there is: one answer."""
    said = []
    result = start_training(
        "digits", tmp_path / "run", preset="nano-encoder-patch2", changes={"epochs": 2 / 17},
        say=said.append,
    )  # fmt: skip
    assert result.steps == 2
    assert not any("--epochs" in line for line in said)  # who gives it knows
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert kept["recipe"]["t_weights"] == [0.0, 0.0, 0.0, 1.0]
    assert set(kept["validation"]) == {"one_step", "images"}  # nothing of an attack that there was not
    older = kept["validation"] | {"attacked_one_step": 0.0, "eps": 0.0}
    assert BridgeAccuracy.from_dict(older) == result.accuracy
    assert BridgeAccuracy.from_dict(kept["validation"]) == result.accuracy
    assert list(result.accuracy.shares()) == ["one-step"]
    assert "draw" not in result.accuracy.text()
