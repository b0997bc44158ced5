"""``idc predict``, ``models``, ``profile``, ``export``, ``import-reference`` and ``demo``."""

from pathlib import Path
from typing import Annotated

import typer

from idc.cli.common import (
    SAVED_HELP,
    AsJson,
    Channels,
    Eta,
    ImageSize,
    OneStep,
    Visits,
    cell,
    out,
    parse_visits,
    print_json,
    table,
)

Draws = Annotated[int, typer.Option("--draws", min=1, help="noise draws averaged in one answer")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(predict)
    app.command()(models)
    app.command()(profile)
    app.command()(export)
    app.command("import-reference")(import_reference)
    app.command()(demo)


def predict(
    model: Annotated[str, typer.Argument(help=SAVED_HELP)],
    images: Annotated[list[Path], typer.Argument(help="image files")],
    draws: Draws = 10,
    top: Annotated[int, typer.Option("--top", min=1, help="classes to show for each image")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="of the noise")] = 0,
    one_step: OneStep = False,
    precision: Annotated[str, typer.Option("--precision", help="of the network: fp32, bf16, or auto")] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Classify image files."""
    from idc.commands.predict import predict_files

    rows = predict_files(model, images, draws=draws, top=top, seed=seed, one_step=one_step, precision=precision)
    if as_json:
        print_json(rows)
        return
    table(
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


def models(as_json: AsJson = False) -> None:
    """The models that come with idc: every command takes their names, and none of them needs a network."""
    from idc.zoo import models as shipped

    found = shipped()
    if as_json:
        print_json([model.to_dict() for model in found])
        return
    for model in found:
        out.print(f"{model.name}: {model.parameters:,} parameters; {model.about}", markup=False)
        rows = [{key: str(row[key]) for key in ("attack", "answer", "accuracy", "n")} for row in model.measured]
        if rows:
            table(f"{model.data} test, accuracy with 95% intervals", rows)
        else:
            out.print("accuracy on test images: not measured")


def profile(
    model: Annotated[
        str | None, typer.Argument(help="a preset's name, a network's YAML file or a model; none: the pruning table")
    ] = None,
    num_classes: Annotated[int | None, typer.Option("--num-classes", help="of a preset")] = None,
    image_size: ImageSize = None,
    channels: Channels = None,
    as_json: AsJson = False,
) -> None:
    """Parameters, FLOPs, network evaluations, memory, latency of a preset or model; without one, the pruning table."""
    from idc.commands.opening import open_model_or_preset
    from idc.commands.profile import profile as measure
    from idc.commands.profile import pruning_table

    if model is None:
        rows = pruning_table()
        print_json(rows) if as_json else table("From BBDM's U-Net down to ours (FLOPs: 2 per multiply-add)", rows)
        return
    found = measure(
        open_model_or_preset(model, num_classes=num_classes, image_size=image_size, channels=channels)
    ).to_dict()
    if as_json:
        print_json(found)
        return
    table(model, [{"figure": k.replace("_", " "), "value": cell(v)} for k, v in found.items()])


def export(
    model: Annotated[str, typer.Argument(help=SAVED_HELP)],
    file: Annotated[Path, typer.Option("--out", help="the .onnx file, which must not exist yet")],
    one_step: OneStep = False,
    visits: Visits = None,
    eta: Eta = None,
    weights: Annotated[str, typer.Option("--weights", help="fp32 | fp16 (half the file) | int8 (a quarter)")] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Write a model's answer as one ONNX file, checked in onnxruntime against PyTorch (pip install 'idc\\[onnx]')."""
    from idc.exporting import export_saved

    chosen = parse_visits(visits)
    found = export_saved(model, file, one_step=one_step, visits=chosen, eta=eta, weights=weights).to_dict()
    if as_json:
        print_json(found)
        return
    for name, shape in found["inputs"].items():
        out.print(f"input {name}: ({', '.join(map(str, shape))})", markup=False)
    out.print(
        f"on {found['images']} random images {found['agreement']:.1%} of the classes are PyTorch's; logits differ by "
        f"{found['largest_difference']:.2g} at most"
    )
    out.print(f"written: {file} ({cell(found['bytes'])} bytes, {found['weights']})", markup=False)


def import_reference(
    checkpoint: Annotated[Path, typer.Argument(help="the authors' .pth file")],
    out_folder: Annotated[Path, typer.Option("--out", help="folder of the model")],
    preset: Annotated[str, typer.Option("--preset", help="the network that the file holds")] = "paper-cifar10",
    raw: Annotated[bool, typer.Option("--raw", help="the plain weights instead of the averaged (EMA) ones")] = False,
) -> None:
    """Turn a checkpoint of the paper's authors into a model folder."""
    from idc.method.reference import import_reference as convert
    from idc.storage.files import make_folder

    model = convert(checkpoint, preset=preset, raw=raw)
    model.save_pretrained(make_folder(out_folder))
    out.print(f"model: {out_folder}")


def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="folder of the demo")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", help="of everything")] = 0,
    epochs: Annotated[float | None, typer.Option("--epochs", help="of training; default: as many as pay")] = None,
) -> None:
    """Train on scikit-learn's digits, attack the result, and write an HTML page with pictures (minutes on a CPU)."""
    from idc.commands.demo import run_demo

    page = run_demo(out_folder, seed=seed, epochs=epochs, say=out.print)
    out.print(f"open {page}")
