"""A certification from images to summary: the same however it is cut up, resumed or shared out."""

import pytest
import torch

from idc.errors import IDCError
from idc.evaluation.certificates import Certifier, read_certified, summarise_certified
from idc.evaluation.runner import Problem
from idc.evaluation.smoothing import ABSTAINS, Smoothed, Smoothing
from idc.storage import records
from noise_models import Noisy, easy_images

SMOOTHING = Smoothing(sigma=0.15, n0=20, n=60, alpha=0.01)


def certifier(out, model=None, smoothing=SMOOTHING, chunk=512, **settings) -> Certifier:
    model = model or Noisy()
    images, classes = easy_images(model, 12, spread=0.4)
    problem = Problem(images, classes, torch.arange(12) * 3 + 1)
    return Certifier(Smoothed(model, smoothing, chunk), problem, out, **settings)


def run(out, **settings) -> list[dict]:
    own = certifier(out, **settings)
    own.prepare()
    own.run()
    return timeless(out)


def timeless(out) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_certified(out)]


def test_result_does_not_depend_on_batch_or_processes(tmp_path):
    expected = run(tmp_path / "one")
    assert [line["id"] for line in expected] == [3 * i + 1 for i in range(12)]
    assert all(sum(line["counts"]) == 60 for line in expected)
    assert len({line["radius"] for line in expected}) > 4
    assert run(tmp_path / "small", chunk=7) == expected
    for rank in range(3):
        run(tmp_path / "three", rank=rank, world=3)
    assert timeless(tmp_path / "three") == expected
    assert len(list((tmp_path / "three").glob("certified-*.jsonl"))) == 3
    assert run(tmp_path / "other", seed=1) != expected


@pytest.mark.parametrize("cut", [0, 1, 300, 700, 1200])
def test_a_kill_at_any_point_changes_nothing(tmp_path, cut):
    expected = run(tmp_path)
    file = tmp_path / "certified-0.jsonl"
    assert file.stat().st_size > 1200
    file.write_bytes(file.read_bytes()[:cut])
    assert run(tmp_path) == expected
    assert len(records.read(file)) == 12


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    run(tmp_path)

    def broken(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(Smoothed, "certify", broken)
    told = []
    certifier(tmp_path).run(told.append)
    assert sum(told) == 12


def test_another_setting_or_model_is_refused(tmp_path):
    run(tmp_path)
    for change, word in (
        ({"seed": 1}, "seed"),
        ({"smoothing": Smoothing(sigma=0.2, n0=20, n=60, alpha=0.01)}, r"sigma \(0.15 there, 0.2 here\)"),
        ({"model": Noisy(seed=4)}, "same model;"),
    ):
        with pytest.raises(IDCError, match=word):
            run(tmp_path, **change)


def test_summary_by_hand():
    smoothing = Smoothing(sigma=0.4, n=90)
    lines = [
        {"class": 0, "prediction": 0, "selected": 0, "radius": 0.25},
        {"class": 1, "prediction": 1, "selected": 1, "radius": 0.1},
        {"class": 1, "prediction": 0, "selected": 0, "radius": 0.55},  # surely wrong
        {"class": 0, "prediction": ABSTAINS, "selected": 0, "radius": 0.0},
    ]
    found = summarise_certified(lines, smoothing)
    shares = {kind: found[kind]["mean"] for kind in ("accuracy", "abstained", "uncertified")}
    assert shares == {"accuracy": 0.5, "abstained": 0.25, "uncertified": 0.25}
    largest = smoothing.radius(90)
    assert 0.5 < largest < 0.6
    assert [p["radius"] for p in found["curve"]] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, largest])
    assert [p["mean"] for p in found["curve"]] == [0.5, 0.5, 0.25, 0, 0, 0, 0]
    assert found["largest_radius"] == largest
    assert found["mean_radius"] == pytest.approx(0.35 / 4)
    assert all(p["low"] <= p["mean"] <= p["high"] and p["n"] == 4 for p in found["curve"])


def test_the_curve_of_a_run_is_that_of_its_lines(tmp_path):
    lines = run(tmp_path)
    found = summarise_certified(lines, SMOOTHING)
    for point in found["curve"]:
        right = [x for x in lines if x["selected"] == x["class"] and x["radius"] > 0 and x["radius"] >= point["radius"]]
        assert point["mean"] == len(right) / 12
    assert found["curve"][0]["mean"] > found["curve"][-1]["mean"]


def test_images_of_which_all_samples_agree_reach_the_largest_radius():
    line = {"class": 0, "prediction": 0, "selected": 0, "radius": SMOOTHING.radius(60)}
    assert summarise_certified([line], SMOOTHING)["curve"][-1]["mean"] == 1
