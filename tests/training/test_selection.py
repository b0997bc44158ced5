"""The figures of a run are those of its best weights, whenever these were found."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from idc import IDC, data
from idc.accuracy import ON_MARGIN, accuracy
from idc.commands.train import start_training
from idc.method.calibration import temperature
from idc.storage import records
from idc.training.checkpoint import RunState
from idc.training.cnn_objective import RobustAccuracy
from idc.training.selection import Selection
from idc.training.trainer import Trainer
from processes import run
from tiny_training import SMALL, train


def wrecked() -> None:
    """For ``before``: from step 40 on the weights are zero."""
    plain = Trainer.step

    def step(self, now):
        found = plain(self, now)
        if now >= 40:
            for p in self.raw.parameters():
                p.data.zero_()
        return found

    Trainer.step = step


@pytest.mark.parametrize("processes", [1, 2])
def test_the_figures_of_a_run_are_those_of_its_best_weights(network, tmp_path, processes):
    out = tmp_path / "run"
    flags = ("--limit", 128, "--epochs", 6, "--batch-size", 16, "--lr", 0.03, "--validate-every", 1,
             "--validation-limit", 50, "--precision", "fp32", "--ema-decay", 0)  # fmt: skip
    done = run("train", "--out", out, "--preset", network, *flags, processes=processes, before=wrecked)
    assert done.returncode == 0, done.stderr
    summary, images = json.loads((out / "summary.json").read_text()), data.load("digits", split="validation")
    best, last = (accuracy(IDC.from_pretrained(out / name), images)[0] for name in ("best", "last"))
    assert 0 < summary["best_step"] <= 40 < summary["steps"] == 48  # the weights of step 48 are zero
    assert best.one_step > last.one_step == pytest.approx(0.1, abs=0.02)
    assert summary["validation"] == best.to_dict()
    card = json.loads((out / "best" / "config.json").read_text())["card"]
    text = (out / "best" / "README.md").read_text()
    assert card["figures"] == {f"validation {k}": v for k, v in best.to_dict().items()}
    assert text.count("## Figures") == 1
    assert f"| validation one_step | {best.one_step} |" in text
    assert f"- Weights: of epoch {summary['best_step'] // 8} of 6" in text
    assert f"best, of epoch {summary['best_step'] // 8}: validation {best.text()}" in done.stdout + done.stderr


def test_the_best_weights_can_be_judged_on_some_of_the_images(network, tmp_path):
    out = tmp_path / "run"
    start_training("digits", out, preset=network, limit=128, changes=SMALL | {"final_limit": 30})
    some, _ = accuracy(IDC.from_pretrained(out / "best"), data.load("digits", split="validation").take(30))
    assert json.loads((out / "summary.json").read_text())["validation"] == some.to_dict()
    assert some.images == 30
    model = IDC.from_pretrained(out / "best")
    asked = data.load("digits", split="validation").take(30)
    found = model.predict(asked.images.float() / 255, ids=asked.ids)
    right = found.doubt[found.classes == asked.labels]
    assert model.calibration.images == 30
    assert model.calibration.temperature == pytest.approx(temperature(found.distances, asked.labels), rel=1e-3)
    assert model.calibration.doubt[0] == pytest.approx(right.median().item(), rel=1e-2)


def test_a_finished_run_of_before_gets_the_figures_of_its_best_weights(whole, network, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for file in run.glob("checkpoints/*/progress.json"):
        later = ("whole", "best_step", "record_sha256")
        older = {k: v for k, v in json.loads(file.read_text()).items() if k not in later}
        file.write_text(json.dumps(older))
    assert train(run, network, resume=True).step == 16
    expected = json.loads((whole / "summary.json").read_text())
    found = json.loads((run / "summary.json").read_text())
    assert found["validation"] == expected["validation"]
    assert found["best_step"] is None


@pytest.mark.parametrize(("named", "kept"), [({}, True), ({"attacked_by": ON_MARGIN}, False)], ids=["older", "same"])
def test_a_score_under_another_attack_is_no_measure(tmp_path, named, kept):
    """A run of an older version, whose validation images were attacked by less, goes on with the attack of today."""
    found = RobustAccuracy(clean=0.8, robust=0.3, images=10, eps=0.1)
    objective = SimpleNamespace(validate=lambda *_, **__: torch.zeros(3), judged=lambda *_, **__: found,
                                pictures=lambda *_: None)  # fmt: skip
    alone = SimpleNamespace(process_index=0, num_processes=1, is_main_process=True, reduce=lambda x, **__: x)
    state = RunState(
        {}, accuracy={"clean": 0.8, "robust": 0.4, "images": 10, "eps": 0.1} | named, best=0.4, best_step=3
    )
    steps = []
    selection = Selection(alone, objective, None, None, None, False, state, tmp_path, steps.append)
    selection.validate(torch.nn.Identity(), SimpleNamespace(validation=lambda *_, **__: None), 5, epoch=1.0)
    assert steps == [5] * kept
    assert (state.best, state.best_step) == ((0.3, 5) if kept else (0.4, 3))


def test_without_its_best_weights_a_run_keeps_the_last(whole, network, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "best")
    for file in run.glob("checkpoints/*/progress.json"):
        records.write(file, json.loads(file.read_text()) | {"whole": None, "best_step": 4})
    train(run, network, resume=True)
    assert torch.equal(*(next(iter(load_file(run / n / "model.safetensors").values())) for n in ("best", "last")))
    assert "here the last weights take its place" in capsys.readouterr().err
    assert json.loads((run / "summary.json").read_text())["best_step"] == 16
