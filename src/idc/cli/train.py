"""``idc train`` and ``idc train-peer``: a flag for every field of a recipe."""

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from idc.cli.common import check_paths, note, out
from idc.cli.flags import of_fields, option, with_flags
from idc.cli.help import App
from idc.commands.request import DATA_HELP
from idc.training.recipe import CNNRecipe, NoiseRecipe, Recipe
from idc.training.settings import Settings

_OUT = Annotated[Path, typer.Option("--out", help="folder of the run")]


def _run(start: Callable[..., Any], kind: type[Settings], out_folder: Path, given: dict[str, Any], then: str) -> None:
    """Train with the flags that were given, and say how it ended."""
    names = {f.name for f in fields(kind)}
    changes = {k: v for k, v in given.items() if k in names and v is not None}
    rest = {k: v for k, v in given.items() if k not in names}
    result = start(rest.pop("data"), out_folder, changes=changes, say=note.print, **rest)
    if result.stopped:
        note.print(f"stopped at step {result.step} of {result.steps}; the same command with --resume goes on")
        raise typer.Exit(128 + result.stopped)
    if result.accuracy:
        from idc.evaluation.verdict import wilson

        n = result.accuracy.images
        shares = ", ".join(f"{wilson(value, n)} {name}" for name, value in result.accuracy.shares().items())
        out.print(f"validation accuracy: {shares} (n = {n})" if shares else f"validation: {result.accuracy.text()}")
        for remark in result.remarks:
            note.print(remark)
    out.print(f"model: {result.best}   ({then.format(model=result.best)})")


OWN_CODE = " | package.module:object (see docs/extending)"


def _training(kind: type[Settings], recipes: str, *own: Any, data: str | None = "digits") -> Callable[..., Any]:
    """The flags of a training: those of every one, ``own`` ones, and one for each field of its recipe."""
    unless, smaller = ("", "") if data else ("the recipe's, else ", " (of 32 at most, for one step)")
    size = f"{unless}the images' own if all are squares of one size{smaller}, else 32"
    return with_flags(
        option("data", str, data, DATA_HELP, unset="" if data else "the recipe's, else digits"),
        *own,
        option(
            "recipe",
            str,
            "auto",
            f'what the flags under "Recipe" are by default (the run\'s recipe.yaml has them): {recipes}',
        ),
        option("resume", bool, False, "go on from the newest checkpoint in --out, or begin where there is none yet"),
        option(
            "image_size",
            int,
            None,
            "pixels a side: each image is cut to its central square and scaled",
            least=1,
            unset=size,
        ),
        option("channels", int, None, "1 (grey), 3 (colour) or 4", unset=f"{unless}1 if all images are grey, else 3"),
        option("skip_bad", bool, False, "leave unreadable files out instead of stopping"),
        option("limit", int, None, "train on this many images only", least=1, unset="all"),
        *of_fields(kind, recipe="--recipe"),
    )


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(train)
    peers = App(help="Train a system that IDC is compared with.")
    peers.command()(cnn)
    peers.command()(ddpm)
    app.add_typer(peers, name="train-peer")


@_training(
    Recipe,
    "fast | paper | digits | a YAML file (such as a run's recipe.yaml); auto: digits for digits; fast for a chain "
    "(several --visits or --t-weights, a network with a decoder) and with --from; else for one step, with epochs and "
    "batches for so many images",
    option(
        "start", str, None,
        "begin with the weights of a saved IDC (fine-tuning): a folder, a run, a name of idc models or a hub id; "
        "network, image size and kind of labels are then its own", unset="fresh weights", flag="--from",
    ),
    option(
        "preset", str, "auto",
        "network: a preset's name (see idc profile) or a YAML file of its fields; auto: digits for digits; nano with "
        "another recipe or for a chain; else nano-encoder-bn",
    ),
    option(
        "labels", str, None, f"image labels: qr | hadamard | low-frequency | blocks{OWN_CODE}",
        unset="the recipe's; for one step of own photos hadamard, where there is one; else qr",
    ),
    option(
        "objective", str, None, f"losses that the training minimises{OWN_CODE}", unset="those of the Brownian bridge",
    ),
    option(
        "label_cell", int, None, "image labels are drawn in squares of so many pixels a side", least=1,
        unset="the recipe's; for one step of own photos 8 (at 64 pixels 16), or less for many classes; else 1",
    ),
    option(
        "visits", tuple[int, ...], None,
        "timesteps that the model's answer goes through, such as 3,0; 3 alone: an answer in one step",
        unset="the recipe's; for own photos and a network without a decoder the last alone; else by their number",
    ),
    data=None,
)  # fmt: skip
def train(out_folder: _OUT, **asked: Any) -> None:
    """Train a classifier; the run's folder holds best/, last/, recipe.yaml, metrics.jsonl, tensorboard/."""
    asked["began"] = time.monotonic()
    check_paths(asked["data"], asked["start"])
    from idc.commands.train import start_training

    _run(start_training, Recipe, out_folder, asked, "idc predict {model} IMAGE..., or idc evaluate {model} --data ...")


@_training(
    CNNRecipe,
    "published | fast | digits; auto: digits for digits, else fast, with epochs, batches and a rate for so many images",
    option(
        "start", str, None,
        "begin with the weights of a saved CNN: a folder, a run or a hub id; network, image size and channels are then "
        "its own", unset="fresh weights", flag="--from",
    ),
    option("arch", str, None, "preact-resnet18 | wrn-28-10 (any wrn-DEPTH-WIDEN)", unset="preact-resnet18"),
    option(
        "width", int, 0, "channels of the first stage; 0: as published (64, or 16 for a wrn), with recipe auto 8 for "
        "digits, 16 below 10,000 images", least=0,
    ),
)  # fmt: skip
def cnn(out_folder: _OUT, **asked: Any) -> None:
    """A convolutional network: standard, adversarially trained (PGD-AT, TRADES, MART), or on Gaussian noise."""
    asked["began"] = time.monotonic()
    check_paths(asked["data"], asked["start"])
    from idc.commands.train_peers import start_cnn

    _run(start_cnn, CNNRecipe, out_folder, asked, "idc evaluate {model} --data ... --protocol adaptive")


@_training(
    NoiseRecipe,
    "published | fast | digits; auto: digits for digits, else fast",
    option(
        "start", str, None,
        "begin with the weights of a diffusion model of this command: a folder, a run or a hub id; network, image "
        "size, channels and whether it is told the class are then its own", unset="fresh weights", flag="--from",
    ),
    option(
        "network", str, "auto",
        "small | ddpm (the published one) | nano (for CPUs) | digits; auto: that of --from; else digits for digits, "
        "else small",
    ),
)  # fmt: skip
def ddpm(out_folder: _OUT, **asked: Any) -> None:
    """A diffusion model (noise prediction): for diffpure, or with --conditional for zdc and rdc."""
    asked["began"] = time.monotonic()
    check_paths(asked["data"], asked["start"])
    from idc.commands.train_peers import start_ddpm

    _run(start_ddpm, NoiseRecipe, out_folder, asked, "idc evaluate diffpure:ddpm={model},classifier=CNN --data ...")
