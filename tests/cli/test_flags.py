"""What every verb's --help says of its flags, and that the fields of settings are these flags."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from idc.cli import app
from idc.commands import certify as certifying
from idc.commands import evaluate as evaluating
from idc.commands import sweep as sweeping
from idc.commands import train as training
from idc.commands.request import Request
from idc.errors import IDCError
from idc.training.recipe import RECIPES, CNNRecipe, NoiseRecipe, Recipe
from idc.training.settings import override
from program import idc

VERBS = [(c.name or c.callback.__name__,) for c in app.registered_commands] + [
    (group.name, c.name or c.callback.__name__)
    for group in app.registered_groups
    for c in group.typer_instance.registered_commands
]
SWITCHES = {"--json", "--raw", "--published", "--help"}  # on, or left out


def helped(*verb: str) -> dict[str, str]:
    """What the help says of each flag: the text from it to the next, or to the title of the next section."""
    text = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80
    flags = re.findall(r"^  (--.*\n(?: {4,}.*\n)*)", text, re.MULTILINE)
    rows = (re.sub(r"\s+", " ", re.sub(r"(?<=\w-)\n\s+", "", one)) for one in flags)
    return {row.split()[0].rstrip(","): row for row in rows}


def flag(name: str) -> str:
    return {"attacks": "--attack"}.get(name, f"--{name.replace('_', '-')}")


@pytest.mark.parametrize("verb", VERBS, ids="-".join)
def test_help_shows_every_type_and_default(verb):
    """A flag of a recipe has its default only where every recipe has the same."""
    kind = {"train": Recipe, "cnn": CNNRecipe, "ddpm": NoiseRecipe}.get(verb[-1])
    of_recipe = {flag(f.name) for f in fields(kind)} if kind else set()
    for name, row in helped(*verb).items():
        assert name in SWITCHES or f" / --no-{name[2:]} " in row or re.search(r"<[^ >]+>", row), row
        assert "<str>" not in row
        assert name in SWITCHES | of_recipe or re.search(r"\[(default: .+|required)\]", row), row


def test_help_shows_the_fields_defaults_and_choices():
    rows = helped("evaluate")
    hints = get_type_hints(Request)
    for field in fields(Request):
        if field.name == "model":
            continue
        row = rows[flag(field.name)]
        assert field.metadata["help"].split()[0] in row
        if isinstance(field.default, str | int) and not isinstance(field.default, bool):
            assert f"[default: {field.default}]" in row
        if choices := [c for c in get_args(hints[field.name]) if isinstance(c, str)]:
            assert f"<{'|'.join(choices)}>" in row or f"<name> {' | '.join(choices)}: " in row
    assert "[default: (by norm and colour)]" in rows["--eps"]
    assert "[default: pgd]" in helped("sweep")["--protocol"]


@pytest.mark.parametrize(
    ("verb", "kind"), [(("train",), Recipe), (("train-peer", "cnn"), CNNRecipe), (("train-peer", "ddpm"), NoiseRecipe)]
)
def test_every_setting_of_a_recipe_is_a_flag(verb, kind):
    rows = helped(*verb)
    assert {flag(f.name) for f in fields(kind)} <= rows.keys()
    assert "default" not in rows["--epochs"]
    if "beta" in kind.__dataclass_fields__:  # off in every recipe: what it is when asked for stands nowhere else
        assert "[default: (6)]" in rows["--beta"]
        assert "[default: (2,1)]" in rows["--rectify-temperature"]
        assert "[default: (none)]" in rows["--teachers"]
    assert "<name> adam | adamw | sgd | muon: how" in rows["--optimizer"]


def test_the_flags_of_a_recipe_stand_in_sections():
    text = CliRunner().invoke(app, ["train-peer", "cnn", "--help"]).stdout
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert titles[:2] == ["Options", "Recipe: length and batches"]
    assert {"Recipe: losses", "Recipe: averaged weights"} <= set(titles)
    _, _, attacks = text.partition("Recipe: attacks on the training images:\n")
    assert "--attack-steps <int>" in attacks
    assert "--epochs" not in attacks


@pytest.mark.parametrize("line", [[], ["train-peer"]])
def test_no_command_is_a_question_for_the_help(line):
    result = idc(*line)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: idc ")
    assert "Commands:\n" in result.stderr


ASKED = {
    "split": ("validation", "validation"), "limit": ("7", 7), "skip-bad": (None, True), "data-name": ("mine", "mine"),
    "protocol": ("apgd", "apgd"), "norm": ("l2", "l2"), "eps": ("8/255", 8 / 255), "draws": ("3", 3), "steps": ("4", 4),
    "eot": ("2", 2), "restarts": ("5", 5), "surrogate": ("answer", "answer"),
    "loss": ("dlr", "dlr"), "block": ("64", 64),
    "checkpointing": (None, True), "keep": (None, True), "one-step": (None, True), "visits": ("3,0", (3, 0)),
    "mirrored": (None, True), "eta": ("0.5", 0.5),
    "precision": ("bf16", "bf16"), "compile": (None, True), "batch-size": ("9", 9),
    "attack": ("mine:one,mine:two", ("mine:one", "mine:two")), "seed": ("11", 11),
}  # fmt: skip


def called(monkeypatch, module, name: str, *line: str) -> tuple:
    """What a verb asks of the library."""
    seen: list[tuple] = []
    monkeypatch.setattr(module, name, lambda *args, **given: seen.append((args, given)) or {"rows": []})
    result = CliRunner().invoke(app, list(line))
    (asked,) = seen or pytest.fail(str(result.exception))
    return asked


@pytest.mark.parametrize("verb", ["evaluate", "sweep", "certify"])
def test_flags_are_the_fields_of_a_request(verb, monkeypatch):
    module, name = {
        "evaluate": (evaluating, "evaluate"), "sweep": (sweeping, "run_sweep"), "certify": (certifying, "certify"),
    }[verb]  # fmt: skip
    asked = {k.replace("-", "_").replace("attack", "attacks") for k in ASKED}
    assert asked | {"model", "data"} == {f.name for f in fields(Request)}
    own = {k: v for k, v in ASKED.items() if f"--{k}" in helped(verb)}
    assert len(own) == (len(ASKED) if verb != "certify" else 12)
    line = [part for k, (text, _) in own.items() for part in ([f"--{k}"] if text is None else [f"--{k}", text])]
    line += {"sweep": ["--over", "steps=1,2"], "certify": ["--sigma", "1/4"]}.get(verb, [])
    args, _ = called(monkeypatch, module, name, verb, "m", "--data", "d", "--out", "r", *line)
    named = {k.replace("-", "_").replace("attack", "attacks"): value for k, (_, value) in own.items()}
    assert args[0] == Request(model="m", data="d", **named)
    if verb == "certify":
        assert args[1].sigma == 0.25
    plain, _ = called(monkeypatch, module, name, verb, "m", "--data", "d", "--out", "r", *line[-2:])
    assert plain[0] == Request(model="m", data="d", **({"protocol": "pgd"} if verb == "sweep" else {}) |
                               ({} if verb != "evaluate" else {"seed": 11}))  # fmt: skip


def test_flags_override_a_recipe(monkeypatch):
    line = ["--t-weights", "0,0,0,1", "--eps", "8/255", "--flip", "--no-compile", "--dropout", "none", "--visits", "3"]
    args, given = called(monkeypatch, training, "start_training", "train", "--out", "r", *line)
    assert args == (None, Path("r"))
    assert given["visits"] == (3,)
    found = override(RECIPES["digits"], given["changes"])
    assert (found.t_weights, found.eps, found.flip, found.compile) == ((0, 0, 0, 1), 8 / 255, True, False)
    assert given["changes"].keys() == {"t_weights", "eps", "flip", "compile", "dropout"}
    dropping = override(Recipe(dropout=0.3), {"dropout": given["changes"]["dropout"]})
    assert dropping.dropout is None  # said, which is another thing than left out


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train --lr true", "--lr = 'true': expected a number above 0; correct --lr"),
        ("train --epochs inf", "--epochs = 'inf': expected a number above 0; correct --epochs"),
        ("train --optimizer lion", "--optimizer = 'lion': expected one of adam, adamw, sgd, muon; correct --optimizer"),
        ("train --label-cell 0", "--label-cell = '0': expected a whole number, at least 1; correct --label-cell"),
        ("evaluate m --visits 3,x", "--visits = '3,x': expected timesteps such as [3, 1, 0], or none; "),
        ("evaluate m --eps 1/0", "--eps = '1/0': expected a number such as 0.1 or 8/255, or none; "),
        ("evaluate m --batch-size 0", "--batch-size = '0': expected a whole number, at least 1; correct --batch-size"),
        ("sweep m --norm l3", "--norm = 'l3': expected one of linf, l2, l1; correct --norm"),
        ("certify m --n many", "--n = 'many': expected a whole number; correct --n"),
        ("predict m i --top 0", "--top = '0': expected a whole number, at least 1; correct --top"),
        ("export m --weights int4", "--weights = 'int4': expected one of fp32, fp16, int8; correct --weights"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_flag_expectation_and_remedy(line, told):
    found = CliRunner().invoke(app, line.split()).exception
    assert isinstance(found, IDCError)
    assert str(found).startswith(told)
    assert len(str(found)) <= 500
