"""What a run records: TensorBoard and metrics.jsonl, read back by their own readers."""

import errno
import json
import os
import sys
import threading
from contextlib import suppress

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from idc import IDCError, data
from idc.accuracy import BridgeAccuracy
from idc.training.bridge_objective import BridgeObjective
from idc.training.monitor import Monitor
from idc.training.recipe import Recipe
from tiny import tiny_model

ACCURACY = BridgeAccuracy(one_step=0.75, multi_step=0.5, single_draw=0.25, draws=10, images=8)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_without_tensorboard_the_record_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with Monitor(tmp_path, total=100, done=0, step=0) as monitor:
        monitor.scalars(10, {"loss/total": 1.5})
        monitor.picture(10, "one", torch.zeros(1, 2, 2))
    assert lines(tmp_path) == [{"step": 10, "loss/total": 1.5}]
    assert "idc-classifier[train]" in capsys.readouterr().err


def test_scalars_and_pictures_reach_tensorboard(tmp_path):
    images = data.load("digits", split="test", limit=8, image_size=8)
    with Monitor(tmp_path, total=100, done=0, step=0) as monitor:
        monitor.scalars(10, {"loss/total": 1.5})
        monitor.validation(20, ACCURACY, epoch=1.0, seconds=2.0)
        objective = BridgeObjective(tiny_model(10), Recipe())
        monitor.picture(20, *objective.pictures(objective.network, images))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (loss,) = events.Scalars("loss/total")
    assert (loss.step, loss.value) == (10, 1.5)
    assert events.Scalars("validation/one_step")[0].value == 0.75
    (picture,) = events.Images("image, one-step, multi-step, label")
    assert (picture.width, picture.height) == (8 * 8, 4 * 8)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]


def test_a_folders_name_is_said_as_it_is(tmp_path, capsys):
    with Monitor(tmp_path, total=1, done=0, step=0) as monitor:
        monitor.say(f"{tmp_path}/x[/y] and :smile: and [red]\x1b[31m")
    assert "/x[/y] and :smile: and [red]\\x1b[31m" in capsys.readouterr().err


def test_a_disk_that_is_full_by_and_by_is_one_error(tmp_path, monkeypatch, capsys):
    """Of TensorBoard's thread too, which would print its own."""
    hook = threading.excepthook

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def watch():
        with Monitor(tmp_path, total=1, done=0, step=0) as monitor:
            monkeypatch.setattr(RecordWriter, "write", full)
            with suppress(OSError):
                monitor.scalars(1, {"loss/total": 1.0})
                monitor.writer.flush()  # waits for the thread
            monitor.scalars(2, {"loss/total": 1.0})

    with pytest.raises(IDCError, match="room on the disk"):
        watch()
    assert capsys.readouterr().err == ""
    assert threading.excepthook is hook


def test_lines_after_the_checkpoint_and_cut_lines_are_dropped_on_resume(tmp_path):
    with Monitor(tmp_path, total=100, done=0, step=0) as monitor:
        for step in (10, 20, 30):
            monitor.scalars(step, {"loss/total": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')
    with Monitor(tmp_path, total=100, done=20, step=20) as monitor:
        monitor.scalars(30, {"loss/total": 3.0})
    assert [(line["step"], line["loss/total"]) for line in lines(tmp_path)] == [(10, 10.0), (20, 20.0), (30, 3.0)]


def test_the_line_of_the_best_weights_is_there_once(tmp_path):
    """Written before the checkpoint that says that they were judged: a kill between the two has it written again."""
    for judged, counts in ((False, 1), (False, 1), (True, 2)):
        with Monitor(tmp_path, total=100, done=100, step=30, judged=judged) as monitor:
            monitor.best(30, ACCURACY, epoch="1")
        assert len(lines(tmp_path)) == counts


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Monitor(None, total=100, done=0, step=0) as monitor:
        monitor.advance(10)
        monitor.scalars(1, {"loss/total": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_no_bar_where_there_is_no_terminal(tmp_path, capsys):
    with Monitor(tmp_path, total=100, done=0, step=0) as monitor:
        monitor.advance(50)
    assert capsys.readouterr() == ("", "")


def test_the_time_left_is_said_once(tmp_path, capsys, monkeypatch):
    """Ten images a second after slow first steps: 10,000 - 210 images are 16 minutes."""
    times = iter([0, 50, 90, 95, 99, *range(100, 200)])
    monkeypatch.setattr("idc.training.monitor.monotonic", lambda: float(next(times)))
    with Monitor(tmp_path, total=10_000, done=0, step=0) as monitor:
        for _ in range(40):
            monitor.advance(10)
    said = capsys.readouterr().err
    assert said.count("more") == 1
    assert "10 images a second: about 16 min more" in said


def test_a_validation_says_how_long_the_rest_takes(tmp_path, capsys, monkeypatch):
    """340 images in 40 seconds, what came between them counted: 9,600 more are 19 minutes."""
    times = iter([*range(21), 45, 90, 91])
    monkeypatch.setattr("idc.training.monitor.monotonic", lambda: float(next(times)))
    with Monitor(tmp_path, total=10_000, done=0, step=0) as monitor:
        monitor.validation(0, ACCURACY, epoch=0, seconds=0)
        for _ in range(40):
            monitor.advance(10)
        monitor.validation(40, ACCURACY, epoch=1, seconds=45)
        monitor.advance(9600)
        monitor.validation(1000, ACCURACY, epoch=25, seconds=90)
    first, _, middle, last = capsys.readouterr().err.splitlines()
    assert middle.endswith(", 45 s, about 19 min more")
    assert "more" not in first + last


def test_a_short_training_says_nothing_of_its_time(tmp_path, capsys, monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr("idc.training.monitor.monotonic", lambda: float(next(times)))
    with Monitor(tmp_path, total=300, done=0, step=0) as monitor:
        for _ in range(30):
            monitor.advance(10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["epoch 1:", "75.0% one-step", "50.0% multi-step", "8 images, 10 draws"])
def test_a_validation_is_said(tmp_path, capsys, text):
    with Monitor(tmp_path, total=100, done=0, step=0) as monitor:
        monitor.validation(20, ACCURACY, epoch=1.0, seconds=2.0)
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(("one", "many", "told"), [(0.6, 0.1, True), (0.6, 0.55, False), (0.1, 0.6, False)])
def test_a_chain_that_lags_behind_is_told(one, many, told):
    found = BridgeAccuracy(one, many, many, draws=1, images=50)
    assert ("one step" in found.advice) == told
