"""The folder of a run: a run is gone on with as it was begun, or not at all."""

import shutil
from dataclasses import replace

import pytest
import yaml

from idc import IDCError
from idc.training.recipe import NOISE_RECIPES, Recipe
from idc.training.run_folder import claim
from tiny_training import train

ABOUT = {"data": "digits", "preset": "digits", "visits": (3, 1, 0)}
RECIPE = Recipe(epochs=2.0)


@pytest.fixture
def held(tmp_path):
    """A folder that holds a run."""
    claim(tmp_path / "run", RECIPE, ABOUT, resume=False)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    return tmp_path / "run"


def test_a_recipe_is_written_in_full(held):
    written = yaml.safe_load((held / "recipe.yaml").read_text())
    assert written["data"] == "digits"
    assert written["visits"] == [3, 1, 0]
    assert written["epochs"] == 2.0
    assert written["batch_size"] == RECIPE.batch_size


def test_a_folder_in_use_is_refused_unless_the_run_goes_on(held):
    with pytest.raises(IDCError, match="--resume"):
        claim(held, RECIPE, ABOUT, resume=False)
    before = (held / "recipe.yaml").read_bytes()
    claim(held, RECIPE, ABOUT, resume=True)
    assert (held / "recipe.yaml").read_bytes() == before


def test_a_run_that_has_nothing_yet_is_written_over(held):
    """As where an objective of one's own failed at its first step."""
    (held / "metrics.jsonl").write_text("")
    claim(held, replace(RECIPE, lr=1.0), ABOUT, resume=True)
    claim(held, replace(RECIPE, lr=2.0), ABOUT, resume=False)
    assert yaml.safe_load((held / "recipe.yaml").read_text())["lr"] == 2.0
    before = (held / "recipe.yaml").read_bytes()
    for name in ("checkpoints", "thesis.tex"):
        (held / name).mkdir()
        with pytest.raises(IDCError, match="--resume"):
            claim(held, RECIPE, ABOUT, resume=False)
        (held / name).rmdir()
    (held / "metrics.jsonl").unlink()
    with pytest.raises(IDCError, match="--resume"):  # somebody's own recipe
        claim(held, RECIPE, ABOUT, resume=False)
    assert (held / "recipe.yaml").read_bytes() == before


def test_a_run_from_before_a_setting_had_its_name_goes_on(held):
    """``consistency`` was a weight of its own, recorded at 0 too; what is left out at its default was not always."""
    file = held / "recipe.yaml"
    before = file.read_text()
    file.write_text(before + "consistency: 0.0\nweight_perturbation: 0.0\neps_warmup: 0.0\n")
    claim(held, RECIPE, ABOUT, resume=True)
    assert file.read_text() == before
    file.write_text(before + "consistency: 2.0\n")
    with pytest.raises(IDCError, match=r"beta = 6, method = pgd-at: expected beta = 2, method = consistency"):
        claim(held, RECIPE, ABOUT, resume=True)


def test_a_folder_of_somebody_elses_files_is_refused(tmp_path):
    """A run would put its own best/ in the place of theirs."""
    (tmp_path / "best").mkdir()
    with pytest.raises(IDCError, match="which holds best: expected a new or empty folder"):
        claim(tmp_path, RECIPE, ABOUT, resume=False)
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize(
    ("recipe", "about", "words"),
    [
        (replace(RECIPE, lr=1.0, epochs=3.0), ABOUT, "run: epochs = 3, lr = 1: expected epochs = 2, lr = 0.002"),
        (RECIPE, ABOUT | {"data": "photos"}, "run: data = photos: expected data = digits, as the run that it holds"),
        (
            RECIPE,
            ABOUT | {"labels": "hadamard"},
            "labels = hadamard: expected labels = qr, .*--recipe .*recipe.yaml",
        ),
    ],
)
def test_other_settings_are_another_run(held, recipe, about, words):
    before = (held / "recipe.yaml").read_bytes()
    with pytest.raises(IDCError, match=words):
        claim(held, recipe, about, resume=True)
    assert (held / "recipe.yaml").read_bytes() == before


def test_a_run_of_another_kind_is_another_run(held):
    noise, apart = NOISE_RECIPES["fast"], {"data": "digits", "network": "digits"}
    with pytest.raises(IDCError, match="a run of idc train: expected one of idc train-peer ddpm; use another --out"):
        claim(held, noise, apart, resume=True)
    claim(held, RECIPE, ABOUT, resume=True)
    file = held / "recipe.yaml"
    file.write_text(file.read_text().replace("\neps: 0.0\n", "\neps: null\n"))
    with pytest.raises(IDCError, match="run: eps = 0: expected eps = none"):
        claim(held, RECIPE, ABOUT, resume=True)


def test_what_to_do_is_something_that_the_command_takes(tmp_path):
    """``idc train-peer ddpm`` has no --from, and its --recipe is a name."""
    about = {"data": "digits", "network": "digits"}
    for index, (longer, words) in enumerate(
        (({"epochs": 90.0}, "begin anew in another --out$"), ({"lr": 1.0}, "--limit among them, or use another --out$"))
    ):
        claim(tmp_path / str(index), NOISE_RECIPES["fast"], about, resume=False)
        (tmp_path / str(index) / "best").mkdir()
        with pytest.raises(IDCError, match=words):
            claim(tmp_path / str(index), replace(NOISE_RECIPES["fast"], **longer), about, resume=True)


def test_a_run_from_before_a_setting_goes_on(held):
    """Its recipe lacks the setting: it had what is now the default, and nothing else."""
    file = held / "recipe.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith(("replays", "rollout"))]
    file.write_text("\n".join(lines))
    with pytest.raises(IDCError, match=r"rollout = 0\.5: expected rollout = 0,"):
        claim(held, replace(RECIPE, rollout=0.5), ABOUT, resume=True)
    claim(held, RECIPE, ABOUT, resume=True)
    assert yaml.safe_load(file.read_text())["rollout"] == 0.0


@pytest.mark.parametrize("text", ["", "- a list", "a: [", "\xff"])
def test_a_damaged_recipe_is_not_gone_on_with(held, text):
    (held / "recipe.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(IDCError, match=r"recipe.yaml.*: expected (YAML|a mapping)"):
        claim(held, RECIPE, ABOUT, resume=True)


def test_what_a_killed_training_left_half_written_is_removed(whole, network, tmp_path):
    """A model that was being replaced is itself again; of a checkpoint that was being written nothing is left."""
    out = tmp_path / "r"
    shutil.copytree(whole, out)
    (out / "best").rename(out / ".best-0123abcd.old")
    shutil.copytree(out / "checkpoints" / "step-00000016", out / "checkpoints" / "step-00000002")
    for half in (out / ".best-4567abcd.part", out / "checkpoints" / ".step-00000099-0123abcd.part"):
        half.mkdir()
        (half / "weights").write_text("half")
    train(out, network, resume=True)
    assert not list(out.rglob(".*"))
    assert {place.name for place in (out / "checkpoints").iterdir()} == {"step-00000014", "step-00000016"}
    assert (out / "best" / "config.json").exists()
