"""The temperature of a confidence and the thresholds of doubt, against what they are defined by."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from idc.errors import IDCError
from idc.method.calibration import FACT, SHARES, calibrate, temperature
from idc.storage.fields import recorded
from tiny import tiny_model

ANSWER = {"draws": 10, "visits": (3, 1, 0), "eta": 1.0}


def drawn(count: int = 4000, tau: float = 0.03) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances, and classes that are drawn by softmax(-distances / tau)."""
    random = torch.Generator().manual_seed(0)
    distances = torch.rand(count, 5, generator=random) / 4
    return distances, torch.multinomial(torch.softmax(-distances / tau, 1), 1, generator=random)[:, 0]


def test_the_temperature_is_that_by_which_the_classes_were_drawn():
    distances, classes = drawn()
    found = temperature(distances, classes)
    assert found == pytest.approx(0.03, rel=0.05)
    grid = np.geomspace(0.02, 0.045, 200)
    losses = [float(cross_entropy(-distances.double() / tau, classes)) for tau in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)


def test_no_certainty_follows_from_a_few_right_answers():
    """Platt's targets: of N right answers, the mean probability of being right is 1 - 1/(N+2)."""
    distances = torch.tensor([[0.1, 0.3], [0.3, 0.1], [0.1, 0.3]])
    heat = temperature(distances, torch.tensor([0, 1, 0]))
    assert torch.softmax(-distances / heat, 1).max(1).values.tolist() == pytest.approx([0.8] * 3, abs=1e-4)
    assert temperature(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)) > 0  # a single class


def test_a_share_of_the_right_answers_lies_beyond_its_threshold():
    distances, classes = drawn()
    found = calibrate(distances, classes, **ANSWER)
    right = distances.min(1).values[distances.argmin(1) == classes]
    for share in (*SHARES, 0.3, 0.07):
        assert (right > found.threshold(share)).float().mean() == pytest.approx(
            share, abs=0.03 if share > 0.1 else 0.005
        )
    for share in (0, 0.9, float("nan")):
        with pytest.raises(IDCError, match=r"a share from 0\.01 to 0\.5"):
            found.threshold(share)


def test_nothing_follows_from_no_right_answer():
    assert calibrate(torch.tensor([[0.1, 0.2]]), torch.tensor([1]), **ANSWER) is None
    assert calibrate(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), **ANSWER) is None


def test_a_saved_model_has_the_calibration_of_its_own_answer(tmp_path, images):
    model = tiny_model()
    plain = model.predict(images, draws=2)
    assert model.calibration is plain.calibration is None
    with pytest.raises(IDCError, match="not calibrated"):
        plain.rejected()
    found = calibrate(*drawn(), **ANSWER)
    model.card = {FACT: recorded(found)}
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.calibration == found
    assert again.with_precision("fp32").calibration == found
    assert again.one_step.calibration is again.with_answer(eta=0.5).calibration is None
    told = again.predict(images, draws=2)
    assert torch.equal(told.classes, plain.classes)
    assert torch.allclose(told.confidence, torch.softmax(-told.distances / found.temperature, 1))
    assert torch.equal(told.doubt, told.distances.min(1).values)
    assert torch.equal(told.rejected(0.5), told.doubt > found.doubt[0])


@pytest.mark.parametrize("held", [{"temperature": 0.1}, {"temperature": -1.0}, {"unknown": 1}, {"doubt": [1.0]}])
def test_a_calibration_that_is_not_whole_is_refused(held):
    model = tiny_model()
    model.card = {
        FACT: held if len(held) == 1 and "doubt" not in held else recorded(calibrate(*drawn(), **ANSWER)) | held
    }
    with pytest.raises(IDCError):
        _ = model.calibration
