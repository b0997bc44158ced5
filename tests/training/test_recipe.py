import pytest

from idc.errors import IDCError
from idc.training.optim import rate
from idc.training.recipe import RECIPES, CNNRecipe, Recipe, load_recipe
from idc.training.settings import override


def test_texts_become_values_of_the_fields_types():
    found = override(
        Recipe(),
        {"epochs": "3", "flip": "true", "t_weights": "1,0,2", "dropout": "none", "optimizer": "adam", "seed": "7"},
    )
    assert (found.epochs, found.flip, found.t_weights, found.dropout, found.optimizer, found.seed) == (
        3.0, True, (1.0, 0.0, 2.0), None, "adam", 7,
    )  # fmt: skip


def test_none_means_uniform_timesteps():
    assert override(RECIPES["fast"], {"t_weights": "none"}).t_weights == ()


def test_a_consistency_of_before_is_the_method_of_that_name(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("eps: 8/255\nconsistency: 2\n")
    found, _ = load_recipe(str(file))
    assert (found.method, found.beta) == ("consistency", 2.0)
    file.write_text("consistency: 0.0\n")
    assert load_recipe(str(file))[0] == RECIPES["digits"]
    file.write_text("consistency: some\n")
    with pytest.raises(IDCError, match="consistency = 'some'"):
        load_recipe(str(file))
    file.write_text("eps: 8/255\nconsistency: 2\nmethod: trades\n")
    with pytest.raises(IDCError, match="consistency = 2 with method or beta"):
        load_recipe(str(file))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"method": "trades"}, "method = trades without eps"),
        ({"step_share": 1.0}, "step_share = 1 without eps"),
        ({"eps": 0.1, "method": "mart", "mix": "cutmix"}, "mix = cutmix with method = mart"),
        ({"eps": 0.1, "method": "mart", "ce_weight": 0.0}, "method = mart with ce_weight = 0"),
        ({"eps": 0.1, "replays": 2, "method": "trades"}, "method = trades with replays = 2"),
        ({"eps": 0.1, "awp_start": 0.1}, "awp_start = 0.1: expected weight_perturbation"),
        ({"eps": 0.1, "attack_step": 0.1, "step_share": 1.0}, r"attack_step = 0\.1 with step_share = 1"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, words):
    with pytest.raises(IDCError, match=words):
        override(RECIPES["fast"], wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": "many"}, {"epochs": -1.0}, {"flip": "maybe"}, {"seed": "1.5"}, {"optimizer": "lion"},
        {"learning": "1"},
        {"t_weights": "a,b"}, {"t_weights": "0,0"}, {"ema_decay": "1"}, {"batch_size": "0"}, {"schedule": "step"},
        {"precision": "fp8"}, {"lr": "nan"}, {"lr": [1]}, {"final_limit": -1}, {"final_limit": "some"},
        {"weight_perturbation": 2, "eps": 0.1},
    ],
)  # fmt: skip
def test_bad_values(changes):
    with pytest.raises(IDCError):
        override(Recipe(), changes)


def test_yaml(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("recipe: paper\nepochs: 3\neps: 8/255\ndata: digits\npreset: nano\n")
    recipe, extra = load_recipe(str(file))
    assert recipe == override(RECIPES["paper"], {"epochs": 3, "eps": 8 / 255})
    assert extra == {"data": "digits", "preset": "nano"}


@pytest.mark.parametrize(
    ("text", "data", "base"),
    [("epochs: 3", None, "digits"), ("epochs: 3", "photos", "fast"), ("data: photos\nepochs: 3", None, "fast"),
     ("data: photos\nepochs: 3", "digits", "digits"), ("recipe: fast\nepochs: 3", "digits", "fast")],
)  # fmt: skip
def test_a_file_without_a_base_has_the_one_of_its_data(tmp_path, text, data, base):
    """Digits are not mirrored."""
    (tmp_path / "r.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "r.yaml"), data)[0] == override(RECIPES[base], {"epochs": 3})


@pytest.mark.parametrize("text", ["[1]", "recipe: best", "epochz: 3", "a: [", "epochs: soon", "t_weights: [a, b]"])
def test_bad_yaml(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(IDCError):
        load_recipe(str(file))


@pytest.mark.parametrize("name", ["fastest", "missing.yaml"])
def test_unknown_recipes(name):
    with pytest.raises(IDCError):
        load_recipe(name)


def test_learning_rate_over_time():
    linear = Recipe(schedule="linear", warmup=0.1)
    assert [rate(linear, x) for x in (0.05, 0.1, 0.55, 1.0)] == pytest.approx([0.5, 1.0, 0.5, 0.0])
    cosine = Recipe(schedule="cosine", warmup=0.0)
    assert [rate(cosine, x) for x in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1.0, 0.853553, 0.5, 0.0], abs=1e-6)
    assert rate(Recipe(schedule="constant", warmup=0.0), 0.9) == 1.0


def test_piecewise_rate_and_fractions():
    """A tenth at one half and again at three quarters, as TRADES' and Rice et al.'s schedules at 100 and 150 of 200."""
    recipe = override(Recipe(schedule="piecewise", warmup=0.0), {"lr": "1/4"})
    assert recipe.lr == 0.25
    assert [rate(recipe, share) for share in (0.0, 0.49, 0.5, 0.74, 0.75, 0.99)] == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize(("start", "late"), [(0, 0.99), (5, 0.99)])
def test_average_against_its_recursion(start, late):
    import torch

    from idc.training.optim import build_average

    weight = torch.nn.Linear(1, 1, bias=False)
    average = build_average(weight, Recipe(ema_decay=late, ema_start=start))
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).tolist()
    expected = values[0]
    for n, value in enumerate(values):
        with torch.no_grad():
            weight.weight.fill_(value)
        average.update_parameters(weight)
        decay = late if start else min(late, (1 + n) / (10 + n))
        expected = expected if n == 0 else decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_paper_recipe_is_the_authors():
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
    ("idle", "kind"),
    [({"hinge_margin": 0.2}, Recipe), ({"beta": 3.0, "eps": 0.1}, Recipe),
     ({"rectify_temperature": (3.0, 1.0)}, Recipe), ({"rectify_temperature": (3.0, 1.0)}, CNNRecipe),
     ({"beta": 3.0}, CNNRecipe), ({"beta": 3.0, "method": "noise"}, CNNRecipe),
     ({"mix_rate": 0.5}, CNNRecipe), ({"mix_rate": 0.5}, Recipe)],
)  # fmt: skip
def test_a_setting_that_would_say_nothing_is_refused(idle, kind):
    with pytest.raises(IDCError, match=f"{next(iter(idle))} = .*give --"):
        kind(**idle)
    name = next(iter(idle))
    usual = getattr(kind(), name)
    with pytest.raises(IDCError, match=f"{name} = .*give --"):
        override(kind(), {n: v for n, v in idle.items() if n != name} | {name: usual})  # asked for in so many words
    Recipe(hinge_weight=1.0, hinge_margin=0.2, method="consistency", eps=0.1, beta=3.0)
    CNNRecipe(rectify=(0.7, 0.95), rectify_temperature=(3.0, 1.0))
