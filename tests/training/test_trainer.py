"""Training: an interrupted and resumed run ends bit for bit like one that was not; both learn."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idc import IDC, IDCError, data
from idc.accuracy import BridgeAccuracy, accuracy
from idc.commands.train import start_training
from idc.compute import hardware
from idc.method.config import IDCConfig
from idc.method.presets import resolve_spec
from idc.training.checkpoint import load_latest
from idc.training.optim import compiles
from idc.training.recipe import Recipe
from idc.training.run_folder import read_metrics
from idc.training.trainer import Trainer

SMALL = {
    "epochs": 2.0, "batch_size": 16, "validate_every": 0.5, "checkpoint_every": 0.25, "validation_limit": 20,
    "precision": "fp32", "dropout": 0.1, "accumulation": 2,
}  # fmt: skip
NETWORK = "base_channels: 8\nmultipliers: [1, 2]\ngroups: 4\nhead_channels: 8\npatch: 4\nresidual: true\n"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    file = tmp_path_factory.mktemp("network") / "small.yaml"
    file.write_text(NETWORK)
    return str(file)


def command(out: Path, network: str, *more: str) -> list[str]:
    flags = [part for k, v in SMALL.items() for part in (f"--{k.replace('_', '-')}", str(v))]
    return [
        sys.executable,
        "-m",
        "idc.cli",
        "train",
        "--out",
        str(out),
        "--preset",
        network,
        "--limit",
        "128",
        *flags,
        *more,
    ]


def train(out: Path, network: str, **more):
    return start_training("digits", out, preset=network, limit=128, changes=SMALL, **more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "last" / "model.safetensors")


def wait_for(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(out.glob(f"checkpoints/step-*{step:04d}")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, network):
    out = tmp_path_factory.mktemp("whole") / "run"
    result = train(out, network)
    assert (result.step, result.steps) == (16, 16)
    return out


def test_a_run_leaves_what_it_promises(whole):
    for name in ("recipe.yaml", "metrics.jsonl", "summary.json", "best/config.json", "last/config.json"):
        assert (whole / name).is_file()
    assert list((whole / "tensorboard").iterdir())
    assert json.loads((whole / "summary.json").read_text())["images_seen"] == 16 * 16
    assert "validation one_step" in (whole / "best" / "README.md").read_text()
    steps = [m["step"] for m in read_metrics(whole) if "validation/one_step" in m]
    assert steps == [4, 8, 12, 16]
    assert IDC.from_pretrained(whole).class_names == tuple("0123456789")


def test_killed_in_the_middle_of_an_epoch_and_resumed_is_bitwise_the_same(whole, network, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(command(out, network), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(out, 6, process)  # 8 steps an epoch
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "summary.json").exists()
    resumed = subprocess.run(command(out, network, "--resume"), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    expected, found = weights(whole), weights(out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    drop = {"seconds"}
    lines = [[{k: v for k, v in m.items() if k not in drop} for m in read_metrics(run)] for run in (whole, out)]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_cleanly(network, tmp_path, number):
    out = tmp_path / "run"
    long = command(out, network, "--epochs", "400")
    process = subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(out, 4, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "--resume" in error
    assert "Traceback" not in error
    saved = load_latest(out / "checkpoints")
    assert saved is not None
    assert f"stopped at step {saved.step} " in error
    assert IDC.from_pretrained(out / "last").num_classes == 10


def test_another_seed_gives_other_weights(whole, network, tmp_path):
    start_training("digits", tmp_path / "run", preset=network, limit=128, changes=SMALL | {"seed": 1})
    expected, found = weights(whole), weights(tmp_path / "run")
    assert any(not torch.equal(expected[k], found[k]) for k in expected)


def test_training_leaves_the_global_generator_as_found(network, tmp_path):
    before = torch.get_rng_state()
    start_training("digits", tmp_path / "run", preset=network, limit=64, changes=SMALL | {"epochs": 0.5})
    assert torch.equal(before, torch.get_rng_state())


def test_it_learns(network, tmp_path):
    """A few seconds on digits must beat chance (10%) by far."""
    changes = {"epochs": 12, "batch_size": 32, "validate_every": 12, "checkpoint_every": 12, "ema_decay": 0.9}
    result = start_training("digits", tmp_path / "run", preset=network, recipe="digits", changes=changes)
    assert result.accuracy is not None
    assert result.accuracy.one_step > 0.6


def test_averaged_weights_are_the_exponential_mean(tmp_path, network):
    """One step a checkpoint: the average begins as the weights; the second update has decay (1 + 1) / (10 + 1)."""
    out = tmp_path / "run"
    changes = SMALL | {
        "ema_decay": 0.5,
        "accumulation": 1,
        "epochs": 0.25,
        "checkpoint_every": 0.125,
        "validate_every": 1,
    }
    start_training("digits", out, preset=network, limit=128, changes=changes)
    first, second = (
        torch.load(p / "state.pt", weights_only=True) for p in sorted((out / "checkpoints").glob("step-*"))
    )
    name = "net.conv_in.weight"
    assert torch.equal(first["average"][f"module.{name}"], first["network"][name])
    expected = 2 / 11 * first["network"][name] + 9 / 11 * second["network"][name]
    assert torch.allclose(second["average"][f"module.{name}"], expected, atol=1e-7)


def test_accumulation_averages_gradients(tmp_path, network):
    """Two batches of 16 summed into one SGD-like first Adam step move each weight by lr times the sign of their mean
    gradient; one update is made for two steps."""
    start_training("digits", tmp_path / "run", preset=network, limit=128, changes=SMALL | {"epochs": 0.25})
    found = load_latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.step == 2
    counts = {int(s["step"]) for s in found.tensors["optimizer"]["state"].values()}
    assert counts == {1}


def test_a_folder_in_use_is_refused(whole, network):
    with pytest.raises(IDCError, match="--resume"):
        train(whole, network)
    with pytest.raises(IDCError, match=r"lr = 1\.0: expected lr = 0\.003, as the run that it holds"):
        start_training("digits", whole, preset=network, limit=128, changes=SMALL | {"lr": 1.0}, resume=True)


def test_a_run_does_not_go_on_with_other_images(whole, network):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    for limit, words in {96: "96 train images: expected the 128", None: "1132 train images: expected the 128"}.items():
        with pytest.raises(IDCError, match=words):
            start_training("digits", whole, preset=network, limit=limit, changes=SMALL, resume=True)
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


def test_it_says_where_it_goes_on(whole, network, tmp_path, capsys):
    train(whole, network, resume=True)
    assert "going on from step 16 of 16" in "".join(capsys.readouterr())
    start_training("digits", tmp_path / "new", preset=network, limit=128, changes=SMALL | {"epochs": 0.25}, resume=True)
    assert "holds no checkpoint: the training begins" in " ".join("".join(capsys.readouterr()).split())


def test_timesteps_of_the_answer_that_are_not_trained_are_told(network, tmp_path):
    said = []
    changes = SMALL | {"epochs": 0.25, "t_weights": (0, 0, 0, 1)}
    train_as = {"preset": network, "limit": 128, "changes": changes, "say": said.append}
    start_training("digits", tmp_path / "chain", **train_as)
    assert any("timesteps 1, 0 of the answer are not trained" in line and "--visits 3" in line for line in said)
    said.clear()
    start_training("digits", tmp_path / "one", visits=(3,), **train_as)
    assert not any("not trained" in line for line in said)


def test_a_loss_that_is_not_finite_stops_the_run(network, tmp_path):
    changes = SMALL | {"lr": 1e30, "clip_norm": 0.0, "epochs": 10.0, "warmup": 0.0, "accumulation": 1}
    with pytest.raises(IDCError, match="lower --lr"):
        start_training("digits", tmp_path / "run", preset=network, limit=128, changes=changes)


def test_timestep_weights_must_fit(network, tmp_path):
    with pytest.raises(IDCError, match="t_weights"):
        start_training("digits", tmp_path / "run", preset=network, limit=64, changes={"t_weights": "1,1"})


def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, tmp_path):
    import shutil

    root = tmp_path / "checkpoints"
    shutil.copytree(whole / "checkpoints", root)
    newest = sorted(root.iterdir())[-1]
    state = (newest / "state.pt").read_bytes()
    flipped = bytearray(state)
    flipped[len(state) // 2] ^= 1
    for damaged in (b"cut short", bytes(flipped)):
        (newest / "state.pt").write_bytes(damaged)
        found = load_latest(root)
        assert found is not None
        assert found.step < 16
    (newest / "state.pt").write_bytes(state)
    for damaged in ("{}", "[]", "{"):
        (newest / "progress.json").write_text(damaged)
        found = load_latest(root, {"seconds"})
        assert found is not None
        assert found.step < 16
    for folder in root.iterdir():
        (folder / "state.pt").write_bytes(b"")
    with pytest.raises(IDCError, match="damaged"):
        load_latest(root)


def test_paper_recipe_is_that_of_method_md():
    from idc.training.recipe import RECIPES

    paper = RECIPES["paper"]
    expected = Recipe(
        epochs=400, batch_size=256, accumulation=2, optimizer="adam", lr=1e-4, weight_decay=0.0, beta2=0.999,
        schedule="plateau", plateau_patience=3000, plateau_floor=5e-7, warmup=0.0, clip_norm=0.0, inter_weight=0.2,
        t_weights=(), init="normal", flip=False, crop=0, rotation=0.0, ema_decay=0.995, ema_every=8, ema_start=30_000,
    )  # fmt: skip
    assert paper == expected
    assert paper.ce_weight == 0


@pytest.mark.parametrize(
    ("wanted", "device", "steps", "compiled"),
    [(None, "cpu", 9999, False), (None, "cuda", 9999, True), (None, "cuda", 10, False), (True, "cpu", 1, True),
     (False, "cuda", 9999, False)],
)  # fmt: skip
def test_long_runs_on_a_gpu_are_compiled(wanted, device, steps, compiled, monkeypatch):
    monkeypatch.setattr(hardware, "find_spec", lambda name: name)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: name)
    assert compiles(Recipe(compile=wanted), torch.device(device), steps) == compiled


@pytest.mark.parametrize(("triton", "tool"), [(None, "gcc"), ("triton", None), ("triton", "clang")])
def test_a_run_is_not_compiled_where_it_cannot_be(monkeypatch, triton, tool):
    """Unless it is asked for: then torch says what is missing."""
    monkeypatch.setattr(hardware, "find_spec", lambda name: triton)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: name if name == tool else None)
    assert compiles(Recipe(), torch.device("cuda"), 9999) == bool(triton and tool)
    assert compiles(Recipe(compile=True), torch.device("cuda"), 9999)


@pytest.mark.parametrize("settings", [{"accumulation": 4}, {"accumulation": 1, "eps": 0.1, "replays": 4}])
def test_an_interruption_waits_for_the_whole_gradient(network, tmp_path, monkeypatch, settings):
    """With four steps to an update, what is saved between two of them would lose the gradients that wait; with four on
    one batch, how far its attack has come."""

    def start(out, **more):
        changes = SMALL | settings | {"epochs": 3.0}
        return start_training("digits", tmp_path / out, preset=network, limit=128, changes=changes, **more)

    start("whole")
    monkeypatch.setattr(Trainer, "_stopped", lambda self, signals, step: step >= 5)
    assert start("cut").step == 8
    saved = [int(re.search(r"\d+", p.name)[0]) for p in (tmp_path / "cut" / "checkpoints").iterdir()]
    assert saved
    assert all(step % 4 == 0 for step in saved)
    monkeypatch.undo()
    start("cut", resume=True)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], second[name]) for name in first)


ON_CPU = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
WRECKED = """
import sys
from pathlib import Path
import idc.training.start as start

class Wrecked(start.Trainer):
    def step(self, step):
        found = super().step(step)
        if step >= 40:
            for p in self.raw.parameters():
                p.data.zero_()
        return found

start.Trainer = Wrecked
changes = {"epochs": 6, "batch_size": 16, "validate_every": 1, "validation_limit": 50, "lr": 0.03}
changes |= {"precision": "fp32", "ema_decay": 0.0}
start.start_training("digits", Path(sys.argv[1]), preset=sys.argv[2], limit=128, changes=changes)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_the_figures_of_a_run_are_those_of_its_best_weights(network, tmp_path, processes):
    out, script = tmp_path / "run", tmp_path / "wrecked.py"
    script.write_text(WRECKED)
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    launch = [sys.executable, *(several if processes > 1 else [])]
    done = subprocess.run(
        [*launch, str(script), str(out), network], capture_output=True, text=True, timeout=300, env=ON_CPU
    )
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


def test_a_network_that_is_not_told_the_timestep_learns_one(tmp_path):
    file = tmp_path / "blind.yaml"
    file.write_text("preset: digits-encoder\ntime_embedding: false\n")
    asked = {"preset": str(file), "limit": 128, "changes": SMALL | {"t_weights": (0, 0, 0, 1)}}
    with pytest.raises(IDCError, match="visits 3,1,0 of a network that is not told the timestep: expected 3,"):
        start_training("digits", tmp_path / "run", visits=(3, 1, 0), **asked)
    for given, weights in {"0.05,0.35,0,0.6": (0.05, 0.35, 0, 0.6), "none": ()}.items():
        asked["changes"] |= {"t_weights": weights}
        with pytest.raises(IDCError, match=f"t_weights = {given} for .*; give --t-weights 0,0,0,1$"):
            start_training("digits", tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()
    assert IDCConfig(10, (1, 32, 32), resolve_spec("nano-encoder-patch2")).visits == (3,)


def test_a_finished_run_of_before_gets_the_figures_of_its_best_weights(whole, network, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for file in run.glob("checkpoints/*/progress.json"):
        older = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("whole", "best_step")}
        file.write_text(json.dumps(older))
    assert train(run, network, resume=True).step == 16
    expected = json.loads((whole / "summary.json").read_text())
    found = json.loads((run / "summary.json").read_text())
    assert found["validation"] == expected["validation"]
    assert found["best_step"] is None


def test_without_its_best_weights_a_run_keeps_the_last(whole, network, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "best")
    for file in run.glob("checkpoints/*/progress.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"whole": None, "best_step": 4}))
    train(run, network, resume=True)
    assert torch.equal(*(next(iter(load_file(run / n / "model.safetensors").values())) for n in ("best", "last")))
    assert "here the last weights take its place" in capsys.readouterr().err
    assert json.loads((run / "summary.json").read_text())["best_step"] == 16


def test_a_network_without_a_timestep_is_trained_and_judged_in_one_step(tmp_path):
    """It needs no flag for that, and what is said of it is what there is: one answer, and the steps that were made."""
    said = []
    result = start_training(
        "digits", tmp_path / "run", preset="nano-encoder-patch2", changes={"epochs": 2 / 17},
        say=said.append,
    )  # fmt: skip
    assert result.steps == 2
    assert any("only 2 updates" in line for line in said)
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert kept["recipe"]["t_weights"] == [0.0, 0.0, 0.0, 1.0]
    assert set(kept["validation"]) == {"one_step", "attacked_one_step", "images", "eps"}
    assert BridgeAccuracy.from_dict(kept["validation"]) == result.accuracy
    assert list(result.accuracy.shares()) == ["one-step"]
    assert "draw" not in result.accuracy.text()
