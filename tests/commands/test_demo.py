"""A short demo: its records against figures recomputed from the model that it left behind."""

import json

import pytest
import torch
from safetensors.torch import load_file

from idc import IDC, data
from idc.commands.demo import EPS, run_demo

TESTED = 100


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    said: list[str] = []
    page = run_demo(out, epochs=2, limit=TESTED, say=said.append)
    return out, page, said


@pytest.fixture
def records(demo):
    return json.loads((demo[0] / "demo.json").read_text())


def test_figures_are_the_models(demo, records):
    test = data.load("digits", split="test", limit=TESTED)
    model = IDC.from_pretrained(demo[0] / "run")
    right = model.one_step.predict(test.images.float() / 255).classes == test.labels
    assert records["clean"]["one_step"]["n"] == len(test) == records["data"]["test"] == TESTED
    assert records["clean"]["one_step"]["mean"] == pytest.approx(right.float().mean().item())
    assert records["model"]["parameters"] == sum(p.numel() for p in model.parameters())


def test_attacked_images_lie_in_the_ball_and_answers_are_those_of_the_model(demo, records):
    pictures = load_file(demo[0] / "pictures.safetensors")
    model = IDC.from_pretrained(demo[0] / "run")
    rows = records["pictures"]["panel"]
    difference = (pictures["panel_attacked"] - pictures["panel_images"]).abs().max()
    assert 0 < difference <= rows[0]["eps"] + 1e-6
    assert model.predict(pictures["panel_images"]).names == [row["answer"] for row in rows]
    assert model.predict(pictures["panel_attacked"]).names == [row["attacked_answer"] for row in rows]
    torch.testing.assert_close(pictures["labels"], model.labels, rtol=0, atol=0)


def test_every_size_is_attacked_and_compared_with_noise(demo, records):
    curve = records["attack"]["curve"]
    assert tuple(p["eps"] for p in curve) == EPS
    for point in curve:
        assert point["attacked"]["one_step"]["mean"] <= point["noise"]["one_step"]["mean"] + 0.02


def test_page_and_words(demo, records):
    _, page, said = demo
    text = page.read_text()
    assert f"{100 * records['clean']['one_step']['mean']:.1f}%" in text
    assert any("clean test accuracy" in line for line in said)
    assert sum("PGD-20" in line for line in said) >= len(EPS)


def test_a_demo_that_was_finished_is_not_trained_again(demo):
    out, page, _ = demo
    weights = (out / "run" / "best" / "model.safetensors").stat().st_mtime_ns
    assert run_demo(out, epochs=2, limit=TESTED, say=lambda _: None) == page
    assert (out / "run" / "best" / "model.safetensors").stat().st_mtime_ns == weights
