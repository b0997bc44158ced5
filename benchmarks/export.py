"""How fast an exported answer is, and whether it is the same: onnxruntime beside PyTorch, in one process.

    python benchmarks/export.py --cifar CIFAR

The engines take turns, so that a machine busy with other work is so for all of them; medians over the rounds. "int8
arithmetic" is onnxruntime's own quantisation of the fp32 file, weights and activations: the latter's ranges are found
anew in every call ("dynamic") or once, on validation images ("static"). Figures go to benchmarks/results/export.json.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import CIFAR, MODELS, write
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quant_pre_process,
    quantize_dynamic,
    quantize_static,
)

from idc import IDC
from idc import data as datasets
from idc.compute.memory import keep_freed_memory
from idc.exporting import export

BATCHES = {1: 20, 64: 1}  # batch size -> calls in one turn
CALIBRATION = 64
Engine = Callable[[torch.Tensor, torch.Tensor], np.ndarray]  # images, noise -> logits


class Calibration(CalibrationDataReader):
    """Validation images, with noise where the answer draws some, eight at a time."""

    def __init__(self, images: torch.Tensor, noise: torch.Tensor, with_noise: bool) -> None:
        parts = zip(images.split(8), noise.split(8, dim=1), strict=True)
        self.feeds = iter([feed(x, z, with_noise) for x, z in parts])

    def get_next(self) -> dict | None:
        return next(self.feeds, None)


def feed(images: torch.Tensor, noise: torch.Tensor, with_noise: bool) -> dict[str, np.ndarray]:
    return {"images": images.numpy()} | ({"noise": noise.numpy()} if with_noise else {})


def noise_for(model: IDC, images: torch.Tensor, seed: int) -> torch.Tensor:
    steps = len(model.config.visits) - 1
    return torch.randn(steps, *images.shape, generator=torch.Generator().manual_seed(seed))


def eager(model: IDC) -> Engine:
    @torch.inference_mode()
    def run(images: torch.Tensor, noise: torch.Tensor) -> np.ndarray:
        return model(images, noise=noise).numpy()

    return run


def session(file: Path) -> Engine:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    opened = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    with_noise = len(opened.get_inputs()) > 1
    return lambda images, noise: opened.run(None, feed(images, noise, with_noise))[0]


def files(model: IDC, folder: Path, calibration: torch.Tensor) -> dict[str, Path]:
    """The exported files, and onnxruntime's quantisations of the first."""
    found = {}
    for weights in ("fp32", "fp16", "int8"):
        found[f"onnxruntime, {weights} weights"] = folder / f"{weights}.onnx"
        export(model, folder / f"{weights}.onnx", weights=weights)
    plain = folder / "prepared.onnx"
    quant_pre_process(folder / "fp32.onnx", plain, skip_symbolic_shape=True)
    dynamic, static = folder / "dynamic.onnx", folder / "static.onnx"
    quantize_dynamic(plain, dynamic, per_channel=True)
    reader = Calibration(calibration, noise_for(model, calibration, 1), len(model.config.visits) > 1)
    # Convolutions alone, for with the matrix products too it is slower; activations unsigned, for which x86 has fast
    # instructions.
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(plain, static, reader, per_channel=True, op_types_to_quantize=["Conv"], **kinds)
    return found | {"onnxruntime, int8 arithmetic, dynamic": dynamic, "onnxruntime, int8 arithmetic, static": static}


def timed(engines: dict[str, Engine], images: torch.Tensor, noise: torch.Tensor, rounds: int) -> dict[str, dict]:
    """Median seconds of a call for each engine and batch size."""
    seconds = {name: {batch: [] for batch in BATCHES} for name in engines}
    for turn in range(rounds + 1):  # the first warms up
        for name, run in engines.items():
            for batch, calls in BATCHES.items():
                x, z = images[:batch], noise[:, :batch]
                began = time.perf_counter()
                for _ in range(calls):
                    run(x, z)
                if turn:
                    seconds[name][batch].append((time.perf_counter() - began) / calls)
    return {name: {batch: statistics.median(v) for batch, v in own.items()} for name, own in seconds.items()}


def answers(run: Engine, images: torch.Tensor, noise: torch.Tensor) -> np.ndarray:
    parts = zip(images.split(64), noise.split(64, dim=1), strict=True)
    return np.concatenate([run(x, z) for x, z in parts])


def measure(name: str, source: str, data: str, visits: tuple[int, ...] | None, given: argparse.Namespace) -> list[dict]:
    model = IDC.from_pretrained(MODELS[name])
    model = model.with_answer(visits=visits or model.config.visits)
    test = datasets.load(source, split="test", limit=given.limit)
    calibration = datasets.load(source, split="validation", limit=CALIBRATION).images.float() / 255
    images, classes = test.images.float() / 255, test.labels.numpy()
    noise = noise_for(model, images, 0)
    with tempfile.TemporaryDirectory() as folder:
        paths = files(model, Path(folder), calibration)
        sizes = {engine: path.stat().st_size for engine, path in paths.items()}
        engines = {"PyTorch, eager": eager(model)} | {engine: session(path) for engine, path in paths.items()}
    seconds = timed(engines, images, noise, given.rounds)
    logits = {engine: answers(run, images, noise) for engine, run in engines.items()}
    expected = logits["PyTorch, eager"]
    second, first = np.partition(expected, -2, axis=1)[:, -2:].T
    margin, rows = first - second, []
    for engine, found in logits.items():
        same = found.argmax(1) == expected.argmax(1)
        row = {"model": name, "data": data, "visits": model.config.visits, "engine": engine, "bytes": sizes.get(engine)}
        row |= {"latency_ms": 1000 * seconds[engine][1], "images_per_second": 64 / seconds[engine][64]}
        row |= {"images": len(images), "agreement": same.mean().item()}
        row |= {"margin_median": np.median(margin).item(), "margins_of_changed": margin[~same].tolist()}
        row |= {"largest_difference": abs(found - expected).max().item()}
        row |= {"accuracy": (found.argmax(1) == classes).mean().item()}
        rows.append(row)
        print(*(f"{v:.5g}" if isinstance(v, float) else v for v in row.values()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", required=True, help="the CIFAR-10 (JPEG-75) parquet folder")
    parser.add_argument("--limit", type=int, default=1000, help="test images on which answers are compared")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each engine, at least 5")
    given = parser.parse_args()
    rows = []
    for name, source, data in (("digits", "digits", "digits"), ("nano", given.cifar, CIFAR)):
        for visits in ((3,), None):
            rows += measure(name, source, data, visits, given)
    settings = {
        "onnxruntime": onnxruntime.__version__,
        "nano": MODELS["nano"],
        "rounds": given.rounds,
        "calibration": CALIBRATION,
    }
    command = f"python benchmarks/export.py --cifar CIFAR --limit {given.limit} --rounds {given.rounds}"
    print(write("export", command, {"settings": settings, "rows": rows}))


if __name__ == "__main__":
    keep_freed_memory()
    main()
