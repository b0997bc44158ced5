"""The recipes of the baselines learn from few images, and no epoch loses again what was learned."""

import json

import pytest

from idc.commands.defaults import usual_cnn_schedule
from idc.commands.train_peers import start_cnn, start_ddpm

IMAGES, EPOCHS = 300, 11.0
SMALL = {"validate_every": 1.0, "checkpoint_every": 100.0, "precision": "fp32", "validation_limit": 60}


def curve(run, name):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize(
    ("recipe", "method"), [("fast", "standard"), ("fast", "trades"), ("digits", "pgd-at"), ("digits", "noise")]
)
def test_a_cnn(recipe, method, tmp_path):
    few = usual_cnn_schedule(IMAGES, {"epochs": EPOCHS})
    own = {"batch_size": few.batch_size, "lr": few.lr} if recipe == "fast" else {"batch_size": 32}
    attack = {"eps": 0.02, "attack_steps": 1} if method in ("trades", "pgd-at") else {}
    changes = SMALL | own | attack | {"epochs": EPOCHS, "flip": False, "method": method}
    quiet = {"say": lambda text: None}
    start_cnn("digits", tmp_path / "run", width=4, recipe=recipe, limit=IMAGES, image_size=16, changes=changes, **quiet)
    clean = curve(tmp_path / "run", "validation/clean")
    assert len(clean) == EPOCHS
    assert clean[-1] > 0.5  # chance: 0.1
    learned = [max(clean[:at]) for at in range(1, len(clean))]
    assert all(after > best - 0.25 for best, after in zip(learned, clean[1:], strict=True))


def test_a_diffusion_model(tmp_path):
    """Whoever predicts no noise at all has an error of 1."""
    changes = SMALL | {"epochs": 4.0, "batch_size": 32}
    start_ddpm("digits", tmp_path / "run", network="digits", limit=IMAGES, image_size=8, changes=changes,
               say=lambda text: None)  # fmt: skip
    errors = curve(tmp_path / "run", "validation/mse")
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9
