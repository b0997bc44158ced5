"""``idc train`` and ``idc train-peer``: a flag for every field of a recipe."""

from collections.abc import Callable
from dataclasses import Field, fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from idc.cli.common import DATA_HELP, note, out, parse_visits
from idc.training.recipe import CNNRecipe, NoiseRecipe, Recipe
from idc.training.settings import Settings, convert


def _run(start: Callable[..., Any], kind: type[Settings], given: dict[str, Any], then: str) -> None:
    """Train with the flags that were given, and say how it ended."""
    names = {f.name for f in fields(kind)}
    changes = {k: v for k, v in given.items() if k in names and v is not None}
    rest = {k: v for k, v in given.items() if k not in names}
    result = start(rest.pop("data"), rest.pop("out_folder"), changes=changes, say=note.print, **rest)
    if result.stopped:
        note.print(f"stopped at step {result.step} of {result.steps}; the same command with --resume goes on")
        raise typer.Exit(128 + result.stopped)
    if result.accuracy:
        from idc.evaluation.verdict import wilson

        n = result.accuracy.images
        shares = ", ".join(f"{wilson(value, n)} {name}" for name, value in result.accuracy.shares().items())
        out.print(f"validation accuracy: {shares} (n = {n})" if shares else f"validation: {result.accuracy.text()}")
        if advice := getattr(result.accuracy, "advice", ""):
            note.print(advice)
    out.print(f"model: {result.best}   ({then.format(model=result.best)})")


def _option(name: str, kind: Any, default: Any, text: str, flag: str = "", **more: Any) -> Parameter:
    info = typer.Option(flag or f"--{name.replace('_', '-')}", help=text, **more)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _field_option(kind: type[Settings], field: Field[Any]) -> Parameter:
    """The flag of a recipe's field. Its value is read at once: a flag that took the next one for its value says so,
    and not that the next one is missing."""

    def check(value: str | None) -> str | None:
        if value is not None:
            convert(kind, field, value)
        return value

    panel = "Recipe (each overrides --recipe)"
    return _option(field.name, str | None, None, field.metadata["help"], rich_help_panel=panel, callback=check)


def _signature(own: list[Parameter], kind: type[Settings], data: str | None, recipe: str) -> Signature:
    """The flags of every training, those of this one, then one for each field of its recipe."""
    fixed = [
        _option("data", str | None, data, DATA_HELP),
        _option("out_folder", Path, Parameter.empty, "folder of the run", flag="--out"),
        *own,
        _option("recipe", str, "auto", recipe),
        _option("resume", bool, False, "go on from the newest checkpoint in --out", flag="--resume"),
        _option("image_size", int | None, None, "resize to this; default: the data's own"),
        _option("channels", int | None, None, "1, 3 or 4; default: the data's own"),
        _option("skip_bad", bool, False, "leave unreadable files out instead of stopping", flag="--skip-bad"),
        _option("limit", int | None, None, "train on this many images only"),
    ]
    return Signature(fixed + [_field_option(kind, field) for field in fields(kind)])


def _with_flags(command: Callable[..., None], signature: Signature) -> Callable[..., None]:
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return command


def _train_signature() -> Signature:
    preset = (
        "network: a preset's name (see idc profile) or a YAML file of its fields; auto: digits for digits, else nano"
    )
    recipe = "fast | paper | digits | a YAML file (such as a run's recipe.yaml); auto: digits for digits, else fast"
    own_code = " | package.module:object (see docs/plugins.md)"
    own = [
        _option("preset", str, "auto", preset),
        _option(
            "labels", str | None, None, f"image labels: qr (the default) | hadamard | low-frequency | blocks{own_code}"
        ),
        _option("label_cell", int | None, None, "resolution of the labels: squares of so many pixels; default: 1"),
        _option("objective", str | None, None, f"what is trained towards: the bridge's losses (the default){own_code}"),
        _option("visits", str | None, None, "timesteps of the model's answer, such as 3,0; 3: the one-step answer"),
    ]
    return _signature(own, Recipe, None, recipe)


def _cnn_signature() -> Signature:
    own = [
        _option("arch", str, "preact-resnet18", "preact-resnet18 | wrn-28-10 (any wrn-DEPTH-WIDEN)"),
        _option("width", int, 0, "channels of the first stage; 0: as published (64, or 16 for a wrn)"),
    ]
    return _signature(own, CNNRecipe, "digits", "published | fast | digits; auto: digits for digits, else fast")


def _ddpm_signature() -> Signature:
    text = "small | ddpm (the published one) | digits; auto: digits for digits, else small"
    own = [_option("network", str, "auto", text)]
    return _signature(own, NoiseRecipe, "digits", "published | fast | digits; auto: digits for digits, else fast")


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""

    def train(**given: Any) -> None:
        """Train a classifier; the run's folder holds best/, last/, recipe.yaml, metrics.jsonl, tensorboard/."""
        from idc.commands.train import start_training

        given["visits"] = parse_visits(given["visits"])
        _run(start_training, Recipe, given, "idc predict {model} IMAGE...")

    def cnn(**given: Any) -> None:
        """A convolutional network: standard, adversarially trained (PGD-AT, TRADES), or on Gaussian noise."""
        from idc.commands.train_peers import start_cnn

        _run(start_cnn, CNNRecipe, given, "idc evaluate {model} --data ... --protocol adaptive")

    def ddpm(**given: Any) -> None:
        """A diffusion model (noise prediction): for diffpure, or with --conditional true for zdc and rdc."""
        from idc.commands.train_peers import start_ddpm

        _run(start_ddpm, NoiseRecipe, given, "idc evaluate diffpure:ddpm={model},classifier=CNN --data ...")

    app.command()(_with_flags(train, _train_signature()))
    peers = typer.Typer(no_args_is_help=True, help="Train a system that IDC is compared with.")
    peers.command("cnn")(_with_flags(cnn, _cnn_signature()))
    peers.command("ddpm")(_with_flags(ddpm, _ddpm_signature()))
    app.add_typer(peers, name="train-peer")
