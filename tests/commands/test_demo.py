"""A short demo of a small network: its records against figures recomputed from the model that it left behind."""

import json

import pytest
import torch
from safetensors.torch import load_file

from idc import IDC, data
from idc.commands.demo import run_demo
from idc.commands.train import start_training
from tiny_training import NETWORK

TESTED = 10
EPS = (0.1, 0.2)
DRAWS = 3
ANSWERS = {"one-step": (3,), "multi-step": (3, 1, 0)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One of two sizes that was interrupted after its sweeps, and run again to its end."""
    out = tmp_path_factory.mktemp("demo")
    said: list[str] = []
    resumed: list[bool] = []

    def train(*given, resume, **settings):
        resumed.append(resume)
        return start_training(*given, resume=resume, preset=str(network), **settings)

    def interrupt(line: str) -> None:
        if line.startswith("the quick protocol"):
            raise KeyboardInterrupt

    network = out / "network.yaml"
    network.write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("idc.commands.demo.EPS", EPS)
        patch.setattr("idc.commands.demo.DRAWS", DRAWS)
        patch.setattr("idc.commands.demo.QUICK_IMAGES", 4)
        patch.setattr("idc.commands.demo.start_training", train)
        with pytest.raises(KeyboardInterrupt):
            run_demo(out, epochs=6, limit=TESTED, say=interrupt)
        assert not (out / "report.html").exists()
        before = {file: file.stat().st_mtime_ns for file in done(out)}
        page = run_demo(out, epochs=6, limit=TESTED, say=said.append)
    assert resumed == [False, True]
    assert len(before) == 1 + 2 * len(EPS)
    assert {file: file.stat().st_mtime_ns for file in before} == before  # gone on with, not done again
    return out, page, said


def done(out):
    """The files of what is not to be done twice: the trained weights, and the images of each evaluation."""
    return [out / "run" / "best" / "model.safetensors", *sorted(out.glob("*/eps-*/images-*.jsonl"))]


@pytest.fixture(scope="module")
def model(demo):
    return IDC.from_pretrained(demo[0] / "run")


def summary(demo, answer: str, eps: float = EPS[0]) -> dict:
    return json.loads((demo[0] / answer / f"eps-{eps:g}" / "summary.json").read_text())


def test_figures_are_the_models(demo, model):
    test = data.load("digits", split="test", limit=TESTED)
    right = model.one_step.predict(test.images.float() / 255).classes == test.labels
    found = summary(demo, "one-step")
    assert found["images"] == found["clean"]["mean"]["n"] == len(test) == TESTED
    assert found["clean"]["mean"]["mean"] == pytest.approx(right.float().mean().item())
    assert (found["draws"], summary(demo, "multi-step")["draws"]) == (1, DRAWS)
    assert found["answer"]["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("answer", ANSWERS)
def test_attacked_images_lie_in_the_ball_and_pictures_and_answers_are_those_of_the_model(demo, model, answer):
    folder, eps, visits = demo[0] / answer / f"eps-{EPS[-1]:g}", EPS[-1], ANSWERS[answer]
    pictures, rows = load_file(folder / "panel.safetensors"), json.loads((folder / "panel.json").read_text())
    difference = (pictures["adversarial"] - pictures["clean"]).abs().max()
    assert 0 < difference <= eps + 1e-6
    torch.testing.assert_close(pictures["labels"], model.labels, rtol=0, atol=0)
    assert len({row["class"] for row in rows}) == len(rows) == 8
    for kind in ("clean", "adversarial"):
        classes = torch.tensor([row[kind] for row in rows])
        steps = pictures[f"{kind}_steps"]
        assert steps.shape[1] == len(visits)
        # The first network pass sees no noise; the last says what is answered.
        first = model.one_step.translate(pictures[kind])
        torch.testing.assert_close(steps[:, 0], first, rtol=0, atol=1e-4)
        distances = [[(x - label).abs().mean() for label in model.labels] for x in steps[:, -1]]
        assert torch.equal(torch.tensor(distances).argmin(1), classes)
        assert torch.equal(pictures[f"{kind}_translation"], steps[:, -1])
        assert torch.equal(pictures[f"{kind}_nearest"], model.labels[classes])


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_size_is_attacked_and_compared_with_noise(demo, answer):
    rows = json.loads((demo[0] / answer / "sweep.json").read_text())["rows"]
    assert tuple(row["value"] for row in rows) == EPS
    for row in rows:
        assert row["robust"]["mean"]["mean"] < row["noise"]["mean"]["mean"] - 0.1
        attack = summary(demo, answer, row["value"])["settings"]["protocol"]["attacks"]["pgd-20 (margin)"]
        assert (attack["surrogate"], attack["steps"]) == ("one-step-inner", 20)


def test_pages_and_words(demo):
    out, page, said = demo
    assert page == out / "report.html"
    text = page.read_text()
    clean = f"{100 * summary(demo, 'one-step')['clean']['mean']['mean']:.1f}%"
    for words in (clean, "How the model answers", "x0_hat at t = 1", "over eps", "run: training"):
        assert words in text, words
    assert "adaptive" in (out / "quick.html").read_text()
    assert (out / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert any("clean test accuracy" in line and clean in line for line in said)
    assert sum("PGD-20" in line for line in said) >= len(EPS)
