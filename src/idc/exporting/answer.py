"""Export an answer, and hold the file to PyTorch before it appears."""

import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from idc import __version__
from idc.compute.modes import evaluation_mode
from idc.errors import IDCError
from idc.exporting.graph import answer_graph
from idc.exporting.weights import Weights, store
from idc.method.classifier import IDC
from idc.storage.files import make_folder, whole_file

if TYPE_CHECKING:
    from onnx import ModelProto

CHECKED = 32  # random images on which a file is compared
AGREEMENT = 0.75  # of a file with rounded weights; random images are near many a boundary
TOLERANCE = 1e-4  # of an fp32 file's distances on [0, 1]; a hundred times what is usual


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and how it agrees with PyTorch on ``images`` random images with random noise.

    ``largest_difference`` is of the logits, ``agreement`` the share of images with the same class; ``inputs`` maps each
    input's name to its shape, "B" for the batch.
    """

    path: str
    weights: Weights
    bytes: int
    visits: tuple[int, ...]
    eta: float
    inputs: dict[str, tuple[int | str, ...]]
    images: int
    largest_difference: float
    agreement: float


def export_saved(source: str, path: Path, **settings: Any) -> Export:
    """``export`` of a saved model: a folder, a run's folder, or a hub id."""
    _refuse_early(path)
    return export(IDC.from_pretrained(source), path, **settings)


def export(
    model: IDC,
    path: Path,
    *,
    visits: tuple[int, ...] | None = None,
    eta: float | None = None,
    one_step: bool = False,
    mirrored: bool = False,
    weights: Weights = "fp32",
) -> Export:
    """Write the answer of ``model`` to ``path``, for any batch size.

    The file takes ``images`` (B, C, H, W) float32 in [0, 1] and, if the answer draws noise, ``noise``
    (len(visits) - 1, B, C, H, W) standard normal, one slice a reverse step, as ``IDC.forward`` does; it gives
    ``logits`` (B, K). Noise is an input because a file that drew its own could be neither checked nor repeated. Its
    metadata name classes, image shape, visits, eta, weights and the version of idc, each as JSON. Unlike ``IDC`` it
    cannot refuse images out of range.

    Args:
        model: whose weights are float32.
        path: a file that does not exist yet.
        visits, eta: of the answer; by default the configuration's.
        one_step: answer after the first pass, whatever ``visits`` says.
        mirrored: for the image and its mirror image, see ``IDC.with_answer``.
        weights: how those of the network are stored. "fp16" halves the file, "int8" (a scale for each output channel)
            quarters it; both are computed with in float32, at the speed of "fp32".

    Raises:
        IDCError: if a package is missing, a setting is out of range, ``path`` exists or cannot be written, or the file
            disagrees with PyTorch; then nothing is left.
    """
    _refuse_early(path)
    if weights not in get_args(Weights):
        raise IDCError(f"weights = {weights!r}", f"one of {', '.join(get_args(Weights))}", "correct --weights")
    visits = model.one_step_visits if one_step else visits
    model = model.with_answer(visits=visits, eta=eta, mirrored=mirrored).with_precision("fp32")
    chosen, share = model.config.visits, model.config.bridge.eta
    steps = len(chosen) - 1 if model.bridge.draws_noise(chosen, share) else 0
    make_folder(path.parent)
    with evaluation_mode(model), torch.no_grad(), whole_file(path) as part:
        proto = answer_graph(model, steps)
        _describe(proto, model, weights)
        difference, agreement = _write(proto, part, model, steps)
        _accept(path, difference, TOLERANCE / model.config.temperature)
        if weights != "fp32":
            store(proto, weights)
            difference, agreement = _write(proto, part, model, steps)
            # With rounded weights the chain may settle on another label where two are near: no bound on logits holds.
            if not (agreement >= AGREEMENT and math.isfinite(difference)):
                raise IDCError(
                    f"{path}, which gives PyTorch's class on {agreement:.0%} of random images",
                    f"at least {AGREEMENT:.0%}",
                    "export with --weights fp32; nothing was written",
                )
    shape = model.input_shape
    inputs: dict[str, tuple[int | str, ...]] = {"images": ("B", *shape)}
    inputs |= {"noise": (steps, "B", *shape)} if steps else {}
    size = path.stat().st_size
    return Export(str(path), weights, size, chosen, share, inputs, CHECKED, difference, agreement)


def _refuse_early(path: Path) -> None:
    """Before anything takes time: the packages, and a file in the way."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "pip install 'idc-classifier[onnx]'"
        raise IDCError(f"export without {', '.join(missing)}", "the packages for ONNX", remedy)
    if path.exists():
        raise IDCError(path, "a file that does not exist yet", "remove it, or choose another name")


def _accept(path: Path, difference: float, allowed: float) -> None:
    if not difference < allowed:  # NaN and infinity too
        raise IDCError(
            f"{path}, whose logits differ by {difference:.2g} from PyTorch's",
            f"less than {allowed:.2g}",
            "report it with the versions of torch, onnxscript and onnxruntime; nothing was written",
        )


def _describe(proto: "ModelProto", model: IDC, weights: Weights) -> None:
    """Name the file's maker and content, and drop the exporter's own notes: sources and paths of this machine."""
    from onnx import helper

    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    proto.producer_name, proto.producer_version, graph.name = "idc", __version__, "idc"
    facts = {
        "class_names": model.class_names,
        "image_shape": model.input_shape,
        "visits": model.config.visits,
        "eta": model.config.bridge.eta,
        "mirrored": model.config.unet.mirrored,
        "weights": weights,
        "idc_version": __version__,
    }
    helper.set_model_props(proto, {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()})


def _write(proto: "ModelProto", part: Path, model: IDC, steps: int) -> tuple[float, float]:
    """Write ``part`` and check it. Returns the largest difference of logits and the share of equal classes."""
    import onnx
    import onnxruntime

    onnx.save(proto, part)
    onnx.checker.check_model(part, full_check=True)
    session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
    random = torch.Generator().manual_seed(0)
    images = torch.rand(CHECKED, *model.input_shape, generator=random)
    noise = torch.randn(steps, *images.shape, generator=random)
    found = []
    for batch in (slice(0, 1), slice(1, CHECKED)):  # two sizes, neither the one it was exported with
        feeds = {"images": images[batch].numpy()} | ({"noise": noise[:, batch].numpy()} if steps else {})
        found.append(torch.from_numpy(session.run(["logits"], feeds)[0]))
    logits = torch.cat(found)
    device = model.labels.device
    expected = model(images.to(device), noise=noise.to(device) if steps else None).cpu()
    agreement = (logits.argmax(1) == expected.argmax(1)).float().mean().item()
    return (logits - expected).abs().max().item(), agreement
