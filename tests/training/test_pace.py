"""Runs by the clock: a clock that is told what to show says how far they have come and when they end."""

import json

import pytest

from idc.commands import train as commands
from idc.training import pace as module
from idc.training.pace import Clock, Pace
from tiny_training import NETWORK


class Watch:
    """Shows ``seconds``, and so much more after each look."""

    def __init__(self, tick=0.0):
        self.seconds, self.tick = 1000.0, tick

    def __call__(self):
        self.seconds += self.tick
        return self.seconds


def clock(steps=100, seconds=100.0, **kwargs):
    watch = Watch()
    return watch, Clock(steps, seconds, began=watch.seconds, now=watch, **kwargs)


def test_a_schedule_of_steps_is_counted():
    pace, due = Pace(10), []
    for step in range(1, 11):
        pace.reach(step)
        due += [step] if pace.due("files", 4) else []
        assert pace.share == step / 10
        assert pace.ended == (step == 10)
    assert due == [4, 8]


def test_what_goes_by_before_the_first_step_ends_is_no_part_of_the_schedule():
    """Loading and compiling would else take the warm-up."""
    watch, pace = clock()
    watch.seconds += 40
    pace.reach(1)
    assert pace.share == 0
    watch.seconds += 27
    pace.reach(2)
    assert pace.share == pytest.approx(0.5)
    watch.seconds += 27
    pace.reach(3)
    assert pace.ended
    assert pace.clock == {"spent": 94, "lost": 40}


@pytest.mark.parametrize("steps", [10, 1000])
def test_a_schedule_by_the_clock_takes_its_time_however_long_it_is(steps):
    """What is done after each step is the share of the time; 6% of it are kept for the end until more is known."""
    watch, pace = clock(steps)
    due = []
    for step in range(1, 48):
        watch.seconds += 2
        pace.reach(step)
        assert pace.share == pytest.approx(2 * (step - 1) / 92)
        assert pace.ended == (step == 47)
        due += [step] if pace.due("files", steps // 2) else []
    assert due == [24, 47]
    assert pace.expected(47) == 47


def test_what_the_end_takes_is_left_for_it():
    watch, pace = clock()
    pace.reach(1)
    watch.seconds += 20
    pace.reach(1)
    assert pace.wants_figures
    with pace.pause("validation"):
        watch.seconds += 2
    with pace.pause("files"):
        watch.seconds += 1
    assert pace.plan_end(0.01, 5000) == 250  # the two judgements take 5 s, a twentieth of the time
    assert not pace.wants_figures
    watch.seconds = 1000 + 100 - (2 + 2 * 1 + 5) - 0.1
    pace.reach(2)
    assert not pace.ended
    watch.seconds += 0.2
    pace.reach(3)
    assert pace.ended


def test_a_slow_machine_trains_half_of_what_time_is_left_and_judges_on_a_hundred_images():
    """Loading took 60 of 100 s, a validation would take 50."""
    watch, pace = clock()
    watch.seconds += 60
    pace.reach(1)
    watch.seconds += 5
    pace.reach(2)
    assert pace.plan_end(0.5, 5000) == 100
    assert not pace.ended
    watch.seconds += 16
    pace.reach(3)
    assert pace.ended


def test_pauses_take_a_tenth_of_the_time_at_most():
    watch, pace = clock()
    paused = 0.0
    for step in range(1, 1000):
        watch.seconds += 0.1
        pace.reach(step)
        if pace.due("validation", 1):
            with pace.pause("validation"):
                watch.seconds += 1
            paused += 1
        if pace.ended:
            break
    assert 5 <= paused <= 10


def test_processes_follow_the_first_ones_clock():
    told = []
    watch, pace = clock(agreed=lambda values: told.append(values) or [0.25, 0.0])
    for step in range(1, 21):
        watch.seconds += 1
        pace.reach(step)
    assert len(told) == 2
    assert pace.share == 0.25
    assert not pace.due("files", 1)  # the first process is not ready


def test_a_run_that_goes_on_has_the_time_that_is_left():
    _, pace = clock()
    pace.go_on(7, {"spent": 57.0, "lost": 10.0}, finished=False)
    assert pace.share == pytest.approx(47 / 84)
    _, over = clock()
    over.go_on(7, {"spent": 90.0}, finished=True)
    assert over.ended


def test_a_training_by_the_clock_ends_with_it_and_its_rate_falls_to_nothing(tmp_path, monkeypatch):
    """Every look at the clock takes half a second of two minutes: about as many steps as fit."""
    watch = Watch(0.5)
    began = watch.seconds
    network = tmp_path / "network.yaml"
    network.write_text(NETWORK)
    made = []

    def ticking(*args, **kwargs):
        made.append(Clock(*args, now=watch, **kwargs))
        return made[-1]

    monkeypatch.setattr(module, "Clock", ticking)
    changes = {"minutes": 2, "epochs": 1, "validate_every": 0.5, "checkpoint_every": 0.5, "final_limit": 10,
               "validation_limit": 10}  # fmt: skip
    result = commands.start_training(
        "digits", tmp_path / "r", preset=str(network), changes=changes, limit=64, began=began, say=lambda text: None
    )
    pace = made[0]
    assert result.stopped == 0
    assert result.steps == result.step > 8
    assert pace.ended
    assert 0.9 * 120 <= watch.seconds - began <= 1.02 * 120
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    assert rates[-1] < 0.01 * max(rates)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["recipe"]["minutes"] == 2
    assert summary["steps"] == result.step
    again = commands.start_training(
        "digits", tmp_path / "r", preset=str(network), changes=changes, limit=64, resume=True, say=lambda text: None
    )
    assert again.step == result.step
