"""The security curve: from one run, what a run at every radius would say."""

import pytest
import torch

from idc.attacks.threat import Threat
from idc.evaluation.distances import security_curve
from idc.evaluation.protocol import build_protocol
from idc.evaluation.runner import Problem, Runner
from idc.evaluation.summary import read_lines, summarise_lines
from noise_models import Linear, easy_images


def line(right: bool, **distances: float | None) -> dict:
    return {"class": 1, "clean": [1, 1 if right else 0], "distances": distances}


def test_an_image_falls_at_the_nearest_of_its_distances():
    lines = [
        line(True, a=0.1, b=0.2),
        line(True, a=0.4, b=0.3),
        line(True, a=None, b=None),
        line(False, a=None, b=None),
    ]
    found = security_curve(lines)
    assert [(point["radius"], point["mean"]) for point in found["curve"]] == [(0.0, 0.75), (0.1, 0.5), (0.3, 0.25)]
    assert found["median"] == 0.3
    assert found["attacks"]["a"] == {"found": pytest.approx(2 / 3), "best": pytest.approx(1 / 3)}
    assert all(point["low"] <= point["mean"] <= point["high"] for point in found["curve"])


def test_no_median_where_most_survive_all_that_was_found():
    assert security_curve([line(True, a=0.1), line(True, a=None), line(True, a=None)])["median"] is None
    assert security_curve([{"class": 1, "clean": [1, 1]}]) == {}


def test_many_images_make_a_curve_of_a_hundred_points():
    found = security_curve([line(True, a=(i + 1) / 1000) for i in range(1000)])
    assert len(found["curve"]) == 101
    assert found["curve"][-1]["radius"] == 1.0
    assert all(abs(point["mean"] - (1 - point["radius"])) < 1e-9 for point in found["curve"])


def test_a_run_of_the_protocol_says_what_the_closed_form_does(tmp_path):
    model = Linear(num_classes=2, shape=(1, 6, 6))
    images, classes = easy_images(model, 24)
    logits = model(images)
    least = (logits[:, 0] - logits[:, 1]).abs() / (model.weights[0] - model.weights[1]).abs().sum()
    eps = least.median().item()
    protocol = build_protocol("curve", Threat("linf", eps))
    runner = Runner(model, Problem(images, classes, torch.arange(24)), protocol, tmp_path)
    runner.prepare()
    runner.run()
    summary = summarise_lines(read_lines(tmp_path), ("no", "yes"))
    assert summary["distances"]["median"] == pytest.approx(least.sort().values[11].item(), rel=0.05)
    assert summary["robust"]["mean"]["mean"] == pytest.approx((least > eps).float().mean().item(), abs=0.1)
    assert summary["distances"]["attacks"]["fmn"]["found"] == 1
