"""Figures of a clean evaluation against what they are by definition."""

import pytest
import torch
from safetensors.torch import load_file

from idc.evaluation.answers import PICTURES, describe_answers, reliability, write_mistakes

CLASSES, IDS = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([7, 3, 9, 1, 5])
ANSWERS = torch.tensor([0, 1, 1, 0, -2])
PROBABILITIES = torch.tensor(
    [[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.95, 0.0, 0.05], [float("nan")] * 3]
)  # fmt: skip


def found() -> dict:
    return describe_answers(ANSWERS, PROBABILITIES, CLASSES, IDS, answer="one step", calibrated=True)


def test_accuracy_confusion_and_mistakes():
    own = found()
    assert own["accuracy"]["mean"] == pytest.approx(2 / 5)
    assert own["confusion"] == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1]]
    mistakes = [(m["id"], m["class"], m["answer"], pytest.approx(m["confidence"])) for m in own["mistakes"]]
    assert mistakes == [(1, 2, 0, 0.95), (3, 0, 1, 0.7)]  # the most confident first; what is no answer is none


def test_the_calibration_error_is_the_mean_gap_of_bins():
    confidence, right = torch.tensor([0.95, 0.95, 0.62, 0.68, 1.0]), torch.tensor([True, False, True, True, True])
    own = reliability(confidence, right)
    assert own["ece"] == pytest.approx((2 * (1 - 0.65) + 3 * abs(2 / 3 - (0.95 * 2 + 1) / 3)) / 5)
    assert [(one["low"], one["n"]) for one in own["bins"]] == [(0.6, 2), (0.9, 3)]
    believed = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    drawn = torch.rand(20_000, generator=torch.Generator().manual_seed(1)) < believed
    assert reliability(believed, drawn)["ece"] < 0.02
    assert reliability(believed, believed > 2)["ece"] == pytest.approx(0.5, abs=0.01)


def test_the_pictures_are_those_of_the_mistakes(tmp_path):
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    write_mistakes(found(), images, IDS, tmp_path)
    assert (load_file(tmp_path / PICTURES)["images"] * 255).round()[:, 0, 0, 0].tolist() == [3, 1]
