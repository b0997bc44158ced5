"""The recipes of the shipped models: all of them resolve, and say what was done."""

import json
import signal
import sys
from argparse import Namespace
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path

import ablations
import pytest
import reproduce
import yaml

from idc import IDCError
from idc.method.presets import load_network
from idc.storage.locate import HOME, packaged_names
from idc.training.recipe import RECIPES, Recipe, load_recipe, renewed

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_every_model_has_a_recipe():
    assert {"idc-digits", "idc-nano-cifar10", *packaged_names()} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_resolves(file):
    """Each value of the file is the recipe's; what it leaves out is that of the recipe it starts from."""
    recipe, extra = load_recipe(str(file))
    written = yaml.safe_load(file.read_text())
    base = RECIPES[written["recipe"]]
    for field in fields(Recipe):
        found, given = getattr(recipe, field.name), written.get(field.name)
        if given is None:
            assert found == getattr(base, field.name)
        elif isinstance(given, str) and "/" in given:
            assert found == pytest.approx(float(Fraction(given)), abs=1e-12)
        else:
            assert found == (tuple(given) if isinstance(given, list) else given)
    assert load_network(extra["preset"]).base_channels > 0
    assert extra["data"] in ("digits", "uoft-cs/cifar10")
    eps, limit = reproduce.evaluation(file)
    assert eps == [pytest.approx(float(Fraction(str(text)))) for text in written["evaluate"]["eps"]]
    assert limit == written["evaluate"]["limit"] >= 512


@pytest.mark.parametrize("name", ["digits", "nano", "robust"])
def test_a_row_of_the_ablation_changes_one_thing_of_its_base(name):
    """Below the base, each file differs from it in one setting, but for what the setting brings with it."""
    rows = {row: yaml.safe_load(file.read_text()) for row, file in ablations.rows(name).items()}
    first = {"robust": 0}.get(name, 4)
    assert list(rows).index(ablations.BASE) == first
    base = rows[ablations.BASE]
    brings = {
        "bridge": {"bridge", "t_weights"},  # as many weights as timesteps: uniform ones
        "labels": {"labels", "ce_temperature", "label_cell"},  # in proportion to the labels' distance
        "replays": {"replays", "attack_steps"},  # which has no part in it
        "step_share": {"step_share", "attack_step", "eps_warmup"},  # ACAT is both a radius and a step that rise
        "teachers": {"teachers", "rectify", "rectify_temperature"},  # whose answers are all of the target
        "weight_perturbation": {"weight_perturbation", "awp_start"},
    }
    for row, written in list(rows.items())[first + 1 :]:
        changed = {k for k in {*base, *written} if base.get(k) != written.get(k)}
        assert changed, row
        assert len(changed) == 1 or any(k in changed and changed <= v for k, v in brings.items()), (row, changed)
        recipe, extra = load_recipe(str(ablations.rows(name)[row]))
        assert recipe.eps == pytest.approx(float(Fraction(ablations.EPS[name])))
        assert load_network(extra["preset"]).base_channels > 0
        assert ablations.meaning(ablations.rows(name)[row]).endswith(".")


def test_the_digits_recipe_is_the_demos():
    assert load_recipe(str(ROOT / "recipes" / "idc-digits.yaml"))[0] == RECIPES["digits"]


@pytest.mark.parametrize("name", packaged_names())
def test_the_packaged_model_was_trained_by_its_recipe(name):
    """By the settings that the training itself wrote down."""
    trained = renewed(json.loads((HOME / name / "config.json").read_text())["card"]["recipe"])
    recipe, extra = load_recipe(str(ROOT / "recipes" / f"{name}.yaml"))
    # What a model's card does not tell is newer than it, and had its default.
    apart = {"preset": None, "labels": "qr", "label_cell": 1, "visits": None, "bridge": None}
    defaults = json.loads(json.dumps(asdict(Recipe()))) | apart
    held = json.loads(json.dumps(asdict(recipe) | {k: extra[k] for k in apart if k in extra}))
    for settings in (trained, held, defaults):
        settings.pop("compile", None)
    assert defaults | trained == defaults | held


@pytest.mark.parametrize(
    "text",
    ["{}", "evaluate: 3", "evaluate: {eps: [], limit: 5}", "evaluate: {eps: [0.1], limit: many}",
     "evaluate: {eps: [huge], limit: 5}", "evaluate: {eps: [0.1], limit: 0}", "evaluate: {eps: [0.1]}"],
)  # fmt: skip
def test_a_recipe_that_does_not_say_how_to_evaluate(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(IDCError):
        reproduce.evaluation(file)


def planned(*args: str) -> list[list[str]]:
    given = dict.fromkeys(("data", "data_name", "out", "rehearse")) | dict(zip(args[1::2], args[2::2], strict=True))
    return [command for command, _ in reproduce.plan(Namespace(name=args[0], **given))]


def test_what_reproduce_runs():
    """Training goes on where it was; each eps under both protocols on 512 images; clean accuracy on all."""
    train, clean, *attacks = planned("idc-nano-cifar10", "data", "images.parquet")
    assert train[:2] == ["train", "--recipe"]
    assert {"--resume", "images.parquet", str(Path("runs/idc-nano-cifar10"))} <= set(train)
    assert "--limit" not in clean + train
    settings = [dict(zip(command[2::2], command[3::2], strict=True)) for command in attacks]
    assert [(s["--protocol"], s["--eps"]) for s in settings] == [
        ("adaptive", "2/255"), ("paper", "2/255"), ("adaptive", "8/255"), ("paper", "8/255"),
    ]  # fmt: skip
    assert {(s["--data"], s["--limit"]) for s in settings} == {("images.parquet", "512")}
    assert len({s["--out"] for s in settings}) == 4
    assert "uoft-cs/cifar10" in planned("idc-nano-cifar10")[0]


def test_a_signal_is_left_to_the_program(tmp_path, monkeypatch):
    """Ctrl-C ends it when it has saved, not before; its exit code is told."""
    (tmp_path / "idc_stub.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (open('saved', 'w').close(), sys.exit(7)))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "while True: signal.pause()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "together", lambda n: ([sys.executable, str(tmp_path / "idc_stub.py")], {}))
    before = signal.getsignal(signal.SIGTERM)
    assert reproduce.run(["train"], 1) == 7
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before
