"""``idc train``: a flag for every field of a recipe."""

from dataclasses import fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from idc.cli.common import DATA_HELP, note, out
from idc.training.recipe import Recipe


def _train(
    data: str | None,
    out_folder: Path,
    preset: str,
    recipe: str,
    resume: bool,
    image_size: int | None,
    channels: int | None,
    skip_bad: bool,
    limit: int | None,
    **settings: str | None,
) -> None:
    from idc.training.start import start_training

    changes = {name: value for name, value in settings.items() if value is not None}
    result = start_training(
        data, out_folder, preset=preset, recipe=recipe, resume=resume, image_size=image_size, channels=channels,
        skip_bad=skip_bad, limit=limit, changes=changes, say=note.print,
    )  # fmt: skip
    if result.stopped:
        note.print(f"stopped at step {result.step} of {result.steps}; the same command with --resume goes on")
        raise typer.Exit(128 + result.stopped)
    if result.accuracy:
        from idc.evaluation.verdict import wilson

        n = result.accuracy.images
        shares = ", ".join(f"{wilson(value, n)} {name}" for name, value in result.accuracy.shares().items())
        out.print(f"validation accuracy: {shares} (n = {n})")
    out.print(f"model: {result.best}   (idc predict {result.best} IMAGE...)")


def _train_signature() -> Signature:
    """The fixed flags of ``train``, then one flag for each field of a recipe."""

    def option(name: str, kind: Any, default: Any, flag: str, text: str, panel: str | None = None) -> Parameter:
        info = typer.Option(flag, help=text, rich_help_panel=panel)
        return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])

    fixed = [
        option("data", str | None, None, "--data", DATA_HELP),
        option("out_folder", Path, Parameter.empty, "--out", "folder of the run"),
        option("preset", str, "auto", "--preset", "network: a preset's name (see idc profile) or a YAML "
               "file of its fields; auto: digits for digits, else nano"),
        option("recipe", str, "auto", "--recipe", "fast | paper | digits | a YAML file (such as a run's "
               "recipe.yaml); auto: digits for digits, else fast"),
        option("resume", bool, False, "--resume", "go on from the newest checkpoint in --out"),
        option("image_size", int | None, None, "--image-size", "resize to this; default: the data's own"),
        option("channels", int | None, None, "--channels", "1, 3 or 4; default: the data's own"),
        option("skip_bad", bool, False, "--skip-bad", "leave unreadable files out instead of stopping"),
        option("limit", int | None, None, "--limit", "train on this many images only"),
    ]  # fmt: skip
    own = [
        option(
            f.name,
            str | None,
            None,
            f"--{f.name.replace('_', '-')}",
            str(f.metadata["help"]),
            "Recipe (each overrides --recipe)",
        )
        for f in fields(Recipe)
    ]
    return Signature(fixed + own)


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    def train(**given: Any) -> None:
        """Train a classifier; the run's folder holds best/, last/, recipe.yaml, metrics.jsonl, tensorboard/."""
        _train(**given)

    signature = _train_signature()
    train.__signature__ = signature  # type: ignore[attr-defined]
    train.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    app.command()(train)
