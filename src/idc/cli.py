"""The command line: it parses, calls one library function and prints. Heavy imports wait until a command runs."""

import json
import os
import sys
from dataclasses import fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from idc import __version__
from idc.errors import IDCError
from idc.training.recipe import Recipe

app = typer.Typer(
    name="idc",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Image-to-Image Diffusion Classifier: train it, attack it, find out what holds.",
)
_LEADS = os.environ.get("RANK", "0") == "0"  # of several processes (accelerate launch), one speaks
out = Console(soft_wrap=True, highlight=False, quiet=not _LEADS)
note = Console(stderr=True, soft_wrap=True, highlight=False, quiet=not _LEADS)
err = Console(stderr=True, soft_wrap=True, highlight=False)  # mistakes: every process's own

_DATA_HELP = "digits (the default) | image folder by class | parquet file or folder | hub id"
Data = Annotated[str, typer.Option("--data", help="digits | image folder by class | parquet file or folder | hub id")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
ImageSize = Annotated[int | None, typer.Option("--image-size", help="resize to this; default: the data's own")]
Channels = Annotated[int | None, typer.Option("--channels", help="1, 3 or 4; default: the data's own")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="leave unreadable files out instead of stopping")]
Draws = Annotated[int, typer.Option("--draws", min=1, help="noise draws averaged in one answer")]
OneStep = Annotated[bool, typer.Option("--one-step", help="answer after one network pass, without noise")]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"idc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, int) or value < 1e6:
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value / 1e9:,.2f} G" if value >= 1e9 else f"{value / 1e6:,.2f} M"


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), justify="right" if isinstance(rows[0][name], int | float) else "left")
    for row in rows:
        table.add_row(*(Text(_cell(v)) for v in row.values()))  # plain text: a class may be called [red]
    out.print(table)


# -- train -------------------------------------------------------------------------------------------------------------


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

        one, many = (wilson(v, result.accuracy.images) for v in (result.accuracy.one_step, result.accuracy.multi_step))
        out.print(
            f"validation accuracy: {one} one-step, {many} multi-step ({result.accuracy.draws} draws, n = {one.n})"
        )
    out.print(f"model: {result.best}   (idc predict {result.best} IMAGE...)")


def _train_signature() -> Signature:
    """The fixed flags of ``train``, then one flag for each field of a recipe."""

    def option(name: str, kind: Any, default: Any, flag: str, text: str, panel: str | None = None) -> Parameter:
        info = typer.Option(flag, help=text, rich_help_panel=panel)
        return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])

    fixed = [
        option("data", str | None, None, "--data", _DATA_HELP),
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


def _register_train() -> None:
    def train(**given: Any) -> None:
        """Train a classifier; the run's folder holds best/, last/, recipe.yaml, metrics.jsonl, tensorboard/."""
        _train(**given)

    signature = _train_signature()
    train.__signature__ = signature  # type: ignore[attr-defined]
    train.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    app.command()(train)


_register_train()


# -- use ---------------------------------------------------------------------------------------------------------------


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="a model's folder, a run's folder, or a hub id")],
    images: Annotated[list[Path], typer.Argument(help="image files")],
    draws: Draws = 10,
    top: Annotated[int, typer.Option("--top", min=1, help="classes to show for each image")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="of the noise")] = 0,
    one_step: OneStep = False,
    as_json: AsJson = False,
) -> None:
    """Classify image files."""
    from idc.use import predict_files

    rows = predict_files(model, images, draws=draws, top=top, seed=seed, one_step=one_step)
    if as_json:
        _print_json(rows)
        return
    _table(
        "nearest labels",
        [
            {
                "image": r["image"],
                "class": t["class"],
                "distance": t["distance"],
                "agreement": f"{r['agreement']:.0%}" if not i else "",
            }
            for r in rows
            for i, t in enumerate(r["top"])
        ],
    )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="a model's folder, a run's folder, or a hub id")],
    data: Data,
    out_folder: Annotated[Path, typer.Option("--out", help="folder of the result")],
    split: Annotated[str, typer.Option("--split", help="test, validation or train")] = "test",
    draws: Draws = 10,
    limit: Annotated[int | None, typer.Option("--limit", help="use this many images only")] = None,
    seed: Annotated[int, typer.Option("--seed", help="of the noise")] = 0,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Measure clean accuracy on a split, one-step and multi-step, with intervals."""
    from idc.use import evaluate_clean

    summary = evaluate_clean(
        model, data, out_folder, split=split, draws=draws, limit=limit, seed=seed, skip_bad=skip_bad
    )
    if as_json:
        _print_json(summary)
        return
    _table(
        f"clean accuracy, {summary['settings']['data']} {split}, n = {summary['settings']['images']}, 95% intervals",
        [{"answer": name, "accuracy": f"{v['mean']:.2%}", "low": f"{v['low']:.2%}", "high": f"{v['high']:.2%}"}
         for name, v in summary["accuracy"].items()],
    )  # fmt: skip
    out.print(f"written: {out_folder / 'summary.json'}")


@app.command()
def profile(
    model: Annotated[str | None, typer.Argument(help="a preset's name or a model; none: the pruning table")] = None,
    num_classes: Annotated[int | None, typer.Option("--num-classes", help="of a preset")] = None,
    image_size: ImageSize = None,
    channels: Channels = None,
    as_json: AsJson = False,
) -> None:
    """Parameters, counted FLOPs, passes, memory and latency of a preset or model; without one, the pruning table."""
    from idc.profiling import profile as measure
    from idc.profiling import pruning_table
    from idc.use import open_model_or_preset

    if model is None:
        rows = pruning_table()
        _print_json(rows) if as_json else _table("From BBDM's U-Net down to ours (FLOPs: 2 per multiply-add)", rows)
        return
    found = measure(
        open_model_or_preset(model, num_classes=num_classes, image_size=image_size, channels=channels)
    ).to_dict()
    if as_json:
        _print_json(found)
        return
    _table(model, [{"figure": k.replace("_", " "), "value": _cell(v)} for k, v in found.items()])


@app.command("import-reference")
def import_reference(
    checkpoint: Annotated[Path, typer.Argument(help="the authors' .pth file")],
    out_folder: Annotated[Path, typer.Option("--out", help="folder of the model")],
    preset: Annotated[str, typer.Option("--preset", help="the network that the file holds")] = "paper-cifar10",
    raw: Annotated[bool, typer.Option("--raw", help="the plain weights instead of the averaged (EMA) ones")] = False,
) -> None:
    """Turn a checkpoint of the paper's authors into a model folder."""
    from idc.files import make_folder
    from idc.reference import import_reference as convert

    model = convert(checkpoint, preset=preset, raw=raw)
    model.save_pretrained(make_folder(out_folder))
    out.print(f"model: {out_folder}")


@app.command()
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="folder of the demo")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", help="of everything")] = 0,
    epochs: Annotated[float | None, typer.Option("--epochs", help="of training; default: as many as pay")] = None,
) -> None:
    """Train on scikit-learn's digits, attack the result, and write an HTML page with pictures (minutes on a CPU)."""
    from idc.demo import run_demo

    page = run_demo(out_folder, seed=seed, epochs=epochs, say=out.print)
    out.print(f"open {page}")


def main() -> None:
    """Entry point of the ``idc`` program: a mistake of the user is one line and exit code 2."""
    try:
        app()
    except IDCError as error:
        err.print(f"idc: {error}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("idc: interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
