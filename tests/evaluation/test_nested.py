"""Radii within each other: what may be left out, what is looked at all the same, and that a wrong claim is found."""

import json

import pytest
import torch

from idc import records
from idc.attacks.gradient import pgd
from idc.attacks.objective import Margin
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.evaluation.nested import CHECKED, Larger, nested_check, read_larger
from idc.evaluation.protocol import Protocol
from idc.evaluation.runner import Problem, Runner
from idc.evaluation.summary import read_lines, summarise_lines
from noise_models import Linear, easy_images


def evaluate(out, model, problem, eps, larger=None, steps=4):
    threat = Threat("linf", eps)
    attack = pgd(threat, steps=steps, step=0.5, random_start=False, objective=Margin())
    runner = Runner(model, problem, Protocol("toy", threat, (("pgd", attack),), gate=True), out)
    if larger is not None:
        runner = Runner(model, problem, runner.protocol, out, larger=read_larger(larger, runner.settings()))
    runner.prepare()
    runner.run()
    return read_lines(out)


@pytest.fixture
def case():
    """A linear model of two classes; which images stand at a radius is known."""
    model = Linear(num_classes=2)
    images, classes = easy_images(model, 64, spread=0.4)
    logits = model(images)
    reach = (logits[:, 0] - logits[:, 1]).abs() / (model.weights[0] - model.weights[1]).abs().sum()
    return model, Problem(images, classes, torch.arange(64)), reach


def test_every_radius_has_the_closed_form(case, tmp_path):
    """Of the images that withstood the larger radius one in eight is attacked, of the others each one that is right."""
    model, problem, reach = case
    large, small = reach.quantile(0.6).item(), reach.quantile(0.3).item()
    evaluate(tmp_path / "large", model, problem, large)
    lines = evaluate(tmp_path / "small", model, problem, small, tmp_path / "large")
    summary = summarise_lines(lines, ("a", "b"))
    stand, spared = int((reach > small).sum()), int((reach > large).sum())
    assert 0 < spared < stand < 64
    assert summary["robust"]["mean"]["mean"] == summary["attacks"]["pgd"]["mean"]["mean"] == stand / 64
    checked = -(-spared // CHECKED)
    assert summary["spared"] == spared - checked
    assert summary["attacks"]["pgd"]["attacked"] == 64 - spared + checked
    assert {line["id"] for line in lines if "larger" in line} == set((reach > large).nonzero()[:, 0].tolist())
    (finding,) = nested_check(lines)
    assert finding.passed
    assert f"0 of {checked}" in finding.figure
    assert not list(nested_check(read_lines(tmp_path / "large")))


def test_a_wrong_claim_is_found(case, tmp_path):
    """Where the larger radius had seen no attack, the images that are looked at all the same fall."""
    model, problem, reach = case
    large, small = reach.max().item() * 1.2, reach.max().item() * 1.1
    evaluate(tmp_path / "large", model, problem, large)
    for file in (tmp_path / "large").glob("images-*.jsonl"):  # as if nothing had been found there
        lines = [line | {"robust": line["clean"]} for line in records.read(file)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluate(tmp_path / "small", model, problem, small, tmp_path / "large")
    (finding,) = nested_check(found)
    assert not finding.passed
    assert "8 of 8" in finding.figure


def test_only_an_evaluation_of_the_same_at_more_is_taken(case, tmp_path):
    model, problem, _ = case
    evaluate(tmp_path / "large", model, problem, 0.1)
    with pytest.raises(IDCError, match=r"more than 0\.1"):
        evaluate(tmp_path / "a", model, problem, 0.1, tmp_path / "large")
    with pytest.raises(IDCError, match="same protocol"):
        evaluate(tmp_path / "b", model, problem, 0.05, tmp_path / "large", steps=5)
    with pytest.raises(IDCError, match="same classifier"):
        evaluate(tmp_path / "c", Linear(num_classes=2, seed=1), problem, 0.05, tmp_path / "large")
    with pytest.raises(IDCError, match="larger radius first"):
        evaluate(tmp_path / "d", model, problem, 0.05, tmp_path / "nowhere")
    assert not (tmp_path / "a").exists()


def test_a_result_is_not_continued_with_another_claim(case, tmp_path):
    model, problem, _ = case
    evaluate(tmp_path / "alone", model, problem, 0.05)
    evaluate(tmp_path / "large", model, problem, 0.1)
    with pytest.raises(IDCError, match="larger"):
        evaluate(tmp_path / "alone", model, problem, 0.05, tmp_path / "large")
    assert Larger(0.1).settings() == {"eps": 0.1, "spared": 0, "checked": 0}
