"""The recipes of the CNN baselines learn, and no epoch loses again what was learned."""

import json

import pytest

from idc.commands.train_peers import start_cnn

EPOCHS = 8
SMALL = {
    "epochs": float(EPOCHS), "batch_size": 32, "validate_every": 1.0, "checkpoint_every": 100.0, "ema_decay": 0.9,
    "precision": "fp32", "eps": 0.02, "attack_steps": 1, "flip": False,
}  # fmt: skip


@pytest.mark.parametrize(("method", "recipe"), [("standard", "fast"), ("trades", "fast"), ("pgd-at", "digits")])
def test_learns_without_a_spike(recipe, method, tmp_path):
    start_cnn("digits", tmp_path / "run", width=4, recipe=recipe, limit=400, image_size=16,
              changes=SMALL | {"method": method}, say=lambda text: None)  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    clean = [line["validation/clean"] for line in lines if "validation/clean" in line]
    assert len(clean) == EPOCHS
    assert clean[-1] > 0.6  # chance: 0.1
    assert all(after > max(clean[:at], default=0) - 0.25 for at, after in enumerate(clean))
