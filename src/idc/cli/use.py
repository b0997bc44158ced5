"""``idc predict``, ``models``, ``profile``, ``serve``, ``export``, ``import-reference`` and ``demo``."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from idc.cli.common import AsJson, cell, check_paths, err, note, out, print_json, resumable, table
from idc.cli.flags import of_fields, option, with_flags
from idc.commands.request import SAVED_HELP, Request
from idc.errors import IDCError
from idc.storage.fields import recorded
from idc.text import percent, size_text


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(predict)
    app.command()(models)
    app.command()(profile)
    app.command()(serve)
    app.command()(export)
    app.command("import-reference")(import_reference)
    app.command()(demo)


@with_flags(
    option(
        "draws",
        int,
        None,
        "noise draws averaged in one answer",
        least=1,
        unset="10, or 1 for an answer without noise, as --one-step is",
    ),
    option("top", int, 1, "classes to show for each image", least=1),
    option(
        "reject", float, None,
        "answer 'none of these' where the nearest label is too far away: so far that this share of the validation "
        "images that are answered rightly would be refused too, such as 0.05", least=0, unset="never",
    ),
    *of_fields(Request, ("one_step", "mirrored", "precision", "seed")),
)  # fmt: skip
def predict(
    model: Annotated[str, typer.Argument(help=SAVED_HELP)],
    images: Annotated[
        list[Path], typer.Argument(help="image files, folders of them, or patterns such as 'photos/*.jpg'")
    ],
    as_json: AsJson = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="write a CSV file, a line an image, in place of the table", show_default="none"),
    ] = None,
    **asked: Any,
) -> None:
    """Classify image files. Those that cannot be read are named on stderr, a line each, and the exit code is then 2.

    confidence: the probability of the class, calibrated on validation images when the model was trained (older models
    have none). distance: mean difference between the translated image and the class's label, on [0, 1]; the nearest
    label is the answer. agreement: share of the noise draws that give that answer by themselves.
    """
    check_paths(model)
    if csv and (csv.is_dir() or not csv.parent.is_dir()):
        raise IDCError(csv, "a file in a folder that is there", "make the folder, or give another --csv")
    from idc.commands.predict import predict_files, write_csv

    refused: list[IDCError] = []
    rows = predict_files(model, images, refuse=refused.append, say=note.print, **asked)
    for error in refused:
        err.print(f"idc: {error}")
    if csv:
        write_csv(rows, csv)
        note.print(f"written: {csv} ({len(rows)} image{'s' * (len(rows) != 1)})")
    if as_json:
        print_json(rows)
    elif rows and not csv:
        table("nearest labels", [line for row in rows for line in _lines(row)])
    if refused:
        raise typer.Exit(2)


def _lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """An image's lines in the table: what is said of the image in the first alone."""
    refused = [{"class": row["class"]}] if row.get("rejected") else []
    lines: list[dict[str, Any]] = refused + [
        {"class": near["class"]}
        | ({"confidence": percent(near["confidence"])} if "confidence" in near else {})
        | {"distance": near["distance"]}
        for near in row["top"]
    ]
    lines[0] = {"image": row["image"]} | lines[0]
    if "agreement" in row:
        lines[len(refused)]["agreement"] = percent(row["agreement"], 0)
    return lines


def models(as_json: AsJson = False) -> None:
    """The models that come with idc: every command takes their names, and none of them needs a network."""
    from idc.zoo import models as shipped

    found = shipped()
    if as_json:
        print_json(found)
        return
    for model in found:
        out.print(f"{model.name}: {model.parameters:,} parameters; {model.about}")
        rows = [{key: str(row[key]) for key in ("attack", "answer", "accuracy", "n")} for row in model.measured]
        if rows:
            table(f"{model.data} test, accuracy with 95% intervals", rows)
        else:
            out.print("accuracy on test images: not measured")


_COLUMNS = {  # of the pruning table, so many that it fits a terminal of 80 characters
    "preset": "preset", "image_size": "pixels a side", "parameters": "weights", "flops_per_evaluation": "FLOPs a pass",
    "network_evaluations": "passes", "flops": "FLOPs",
}  # fmt: skip


@with_flags(
    option("num_classes", int, None, "classes, of a preset", least=1, unset="its data's"),
    option("image_size", int, None, "pixels a side, of a preset", least=1, unset="its data's"),
    option("channels", int, None, "colour channels, of a preset: 1, 3 or 4", least=1, unset="its data's"),
)
def profile(
    model: Annotated[
        str | None, typer.Argument(help="a preset's name, a network's YAML file or a model; none: the pruning table")
    ] = None,
    as_json: AsJson = False,
    **asked: Any,
) -> None:
    """Parameters, FLOPs, network evaluations, memory, latency of a preset or model; without one, the pruning table."""
    from idc.commands.opening import open_model_or_preset
    from idc.commands.profile import profile as measure
    from idc.commands.profile import pruning_table

    if model is None:
        rows = pruning_table()
        if as_json:
            print_json(rows)
            return
        narrow = [{_COLUMNS[key]: value for key, value in row.items() if key in _COLUMNS} for row in rows]
        table("From BBDM's U-Net down to ours (FLOPs: 2 per multiply-add)", narrow)
        return
    found = recorded(measure(open_model_or_preset(model, **asked)))
    if as_json:
        print_json(found)
        return
    table(model, [{"figure": k.replace("_", " "), "value": cell(v)} for k, v in found.items()])


@with_flags(
    option("examples", str, None, "images to try: digits, or a folder or pattern of image files", unset="none"),
    option("host", str, "127.0.0.1", "address to bind to; 0.0.0.0: whoever reaches this machine may use the page"),
    option("port", int, 7860, "of the page", least=1),
    option(
        "draws", int, None, "noise draws averaged in one answer", least=1, unset="10, or 1 of an answer without noise"
    ),
    *of_fields(Request, ("one_step", "mirrored")),
)
def serve(model: Annotated[str, typer.Argument(help=SAVED_HELP)], **asked: Any) -> None:
    """A page on this machine to drop images into, and to attack them (pip install 'idc-classifier[serve]')."""
    from threading import Event

    from idc.commands.serve import serving

    with suppress(KeyboardInterrupt), serving(model, **asked) as address:
        out.print(f"open {address}; Ctrl-C stops it")
        Event().wait()


@with_flags(
    *of_fields(Request, ("one_step", "visits", "mirrored", "eta")),
    option("weights", Literal["fp32", "fp16", "int8"], "fp32", "of the file; fp16: half of it, int8: a quarter"),
)
def export(
    model: Annotated[str, typer.Argument(help=SAVED_HELP)],
    file: Annotated[Path, typer.Option("--out", help="the .onnx file, which must not exist yet")],
    as_json: AsJson = False,
    **asked: Any,
) -> None:
    """Write a model's answer as one ONNX file, checked in onnxruntime (pip install 'idc-classifier[onnx]')."""
    from idc.exporting import export_saved

    found = recorded(export_saved(model, file, **asked))
    if as_json:
        print_json(found)
        return
    for name, shape in found["inputs"].items():
        out.print(f"input {name}: ({', '.join(map(str, shape))})")
    out.print(
        f"on {found['images']} random images {found['agreement']:.1%} of the classes are PyTorch's; logits differ by "
        f"{found['largest_difference']:.2g} at most"
    )
    out.print(f"written: {file} ({size_text(found['bytes'])}, {found['weights']})")


@with_flags(option("preset", str, "paper-cifar10", "the network that the file holds"))
def import_reference(
    checkpoint: Annotated[Path, typer.Argument(help="the authors' .pth file")],
    out_folder: Annotated[Path, typer.Option("--out", help="folder of the model")],
    preset: str,
    raw: Annotated[bool, typer.Option("--raw", help="the plain weights instead of the averaged (EMA) ones")] = False,
) -> None:
    """Turn a checkpoint of the paper's authors into a model folder."""
    from idc.method.reference import import_reference as convert
    from idc.storage.files import alone_in
    from idc.storage.kinds import MODEL

    model = convert(checkpoint, preset=preset, raw=raw)
    with alone_in(out_folder, kind=MODEL):
        model.save_pretrained(out_folder)
    out.print(f"model: {out_folder}")


@with_flags(
    option("seed", int, 0, "seed of all random numbers", least=0),
    option("epochs", float, None, "of training", unset="as many as pay"),
    option("limit", int, None, "attack so many of the 539 test images", least=1, unset="as many as minutes allow"),
)
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="folder of the demo")] = Path("runs/demo"), **asked: Any
) -> None:
    """Train on scikit-learn's digits, attack the result, and write HTML pages with pictures (minutes on a CPU)."""
    from idc.commands.demo import run_demo

    with resumable():
        page = run_demo(out_folder, say=out.print, **asked)
    out.print(f"open {page}")
