"""What ``idc rejudge`` does: the adversarial images that an evaluation kept, asked about again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idc import data as datasets
from idc.attacks.target import ANSWER, Target
from idc.commands.opening import open_both
from idc.commands.request import Request, read_request
from idc.errors import IDCError
from idc.evaluation.runner import KEPT, model_fingerprint
from idc.evaluation.summary import read_lines
from idc.evaluation.verdict import Judged, plurality, verdict
from idc.noise import Streams, derive_seed
from idc.storage import records
from idc.storage.tensor_file import load_tensors
from idc.types import Classifier


def rejudge(folder: Path, *, draws: int = 100, seed: int = 1, model: str | None = None) -> dict[str, Any]:
    """Ask a model again about the adversarial images that an evaluation kept, with other noise.

    Args:
        folder: a result of ``evaluate`` with ``keep``.
        draws: of the noise for each image.
        seed: of the noise.
        model: another model, to see whether the images transfer to it; by default the one they were made for.

    Returns:
        ``robust`` as in a summary, ``draws``, ``seed``, ``model``; also written to ``folder/rejudged.json``.

    Raises:
        IDCError: if the folder holds no kept images.
    """
    request = read_request(folder / "request.json", "give the folder of a result of idc evaluate")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier, images = open_both(request if model is None else replace(request, model=model), device)
    _same_as_then(folder, request, classifier if model is None else None, images)
    true = dict(zip(images.ids.tolist(), images.labels.tolist(), strict=True))
    judged: list[Judged] = []
    classes: list[int] = []
    n = draws if classifier.stochastic else 1
    for x, ids in _kept(folder):
        streams = Streams(ids.to(device), derive_seed(seed, "rejudge"))
        target = Target.of(classifier, chunk=request.chunk)
        answers = target.logits(ANSWER, x.to(device), streams, draws=n).argmax(2).cpu()
        own = torch.tensor([true[i] for i in ids.tolist()])
        votes = plurality(answers, classifier.num_classes).tolist()
        judged += [Judged(r, v) for r, v in zip((answers == own).sum(0).tolist(), votes, strict=True)]
        classes += own.tolist()
    found = {"robust": verdict(judged, classes, n).to_dict(), "draws": n, "seed": seed, "model": model or request.model}
    return records.write(folder / "rejudged.json", found)


def _same_as_then(folder: Path, request: Request, model: Classifier | None, images: datasets.ImageSet) -> None:
    """Refuse data, or a model of the same name, that are not those of the evaluation; and images that were not kept."""
    then = records.read_json(
        folder / "settings.json", "evaluate again", keys=("data.fingerprint", "classifier.fingerprint")
    )
    if then["data"]["fingerprint"] != images.fingerprint:
        raise IDCError(request.data, "the images that were attacked", "give the same data, or evaluate again")
    if model is not None and then["classifier"]["fingerprint"] != model_fingerprint(model):
        raise IDCError(request.model, "the weights that were attacked", "name a model with --model, or evaluate again")
    kept = {i for _, ids in _kept(folder) for i in ids.tolist()}
    if missing := {line["id"] for line in read_lines(folder)} - kept:
        raise IDCError(
            f"{len(missing)} images", "kept adversarial images of all", "run the same idc evaluate with --keep"
        )


def _kept(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    files = sorted((folder / KEPT).glob("block-*.safetensors"))
    if not files:
        raise IDCError(folder, "kept adversarial images", "run idc evaluate with --keep")
    for file in files:
        try:
            held, _ = load_tensors(file)
        except ValueError as error:
            raise IDCError(file, "a whole safetensors file", "run idc evaluate --keep again") from error
        yield held["images"], held["ids"]
