"""What ``idc rejudge`` does: the adversarial images that an evaluation kept, asked about again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idc import data as datasets
from idc.attacks.target import ANSWER, Target
from idc.commands.evaluate import problem_of
from idc.commands.opening import open_both
from idc.commands.plugins import is_plugin
from idc.commands.request import Request, read_request
from idc.errors import IDCError
from idc.evaluation.identity import PROBED, model_fingerprint, probe, same_answers
from idc.evaluation.runner import KEPT
from idc.evaluation.summary import read_lines
from idc.evaluation.verdict import Judged, judge, verdict
from idc.noise import Streams, derive_seed
from idc.storage import records
from idc.storage.tensor_file import load_tensors
from idc.types import NOT_FINITE, Classifier, answered


def rejudge(folder: Path, *, draws: int = 100, seed: int = 1, model: str | None = None) -> dict[str, Any]:
    """Ask a model again about the adversarial images that an evaluation kept, with other noise.

    Args:
        folder: a result of ``evaluate`` with ``keep``.
        draws: of the noise for each image.
        seed: of the noise.
        model: another model, to see whether the images transfer to it; by default the one they were made for, if it is
            a saved one: code that a result names is not run, here it has to be named.

    Returns:
        ``robust`` as in a summary, ``draws``, ``seed``, ``model``; ``same_model``, whether it is the one that was
        attacked, by its weights and answers; ``not_finite``, the images with a draw of NaN or infinite logits. Also
        written to ``folder/rejudged.json``.

    Raises:
        IDCError: if the folder holds no kept images, or the model of that name is not the one that was attacked.
    """
    request = read_request(folder / "request.json", "give the folder of a result of idc evaluate")
    if model is None and is_plugin(request.model):
        expected, remedy = "a saved model: no file chooses code", f"add --model {request.model} if it may run"
        raise IDCError(f"{request.model} in {folder / 'request.json'}", expected, remedy)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier, images = open_both(request if model is None else replace(request, model=model), device)
    same = _same_as_then(folder, request, classifier, images, device)
    if model is None and not same:
        expected = "the model that was attacked (its weights or its answers are others)"
        raise IDCError(request.model, expected, "name a model with --model, or evaluate again")
    true = dict(zip(images.ids.tolist(), images.labels.tolist(), strict=True))
    judged: list[Judged] = []
    classes: list[int] = []
    n = draws if classifier.stochastic else 1
    for x, ids in _kept(folder):
        streams = Streams(ids.to(device), derive_seed(seed, "rejudge"))
        target = Target.of(classifier, chunk=request.batch_size, name=model or request.model)
        answers = answered(target.logits(ANSWER, x.to(device), streams, draws=n)).cpu()
        own = torch.tensor([true[i] for i in ids.tolist()])
        judged += judge(answers, own, classifier.num_classes)
        classes += own.tolist()
    found = {
        "robust": verdict(judged, classes, n).to_dict(), "draws": n, "seed": seed, "model": model or request.model,
        "same_model": same, "not_finite": sum(one.vote == NOT_FINITE for one in judged),
    }  # fmt: skip
    return records.write(folder / "rejudged.json", found)


def _same_as_then(
    folder: Path, request: Request, model: Classifier, images: datasets.ImageSet, device: torch.device
) -> bool:
    """Whether the model is that of the evaluation. Refuses data that are not, and images that were not kept."""
    then = records.read_json(
        folder / "settings.json", "evaluate again", keys=("data.fingerprint", "classifier.fingerprint")
    )
    if then["data"]["fingerprint"] != images.fingerprint:
        raise IDCError(request.data, "the images that were attacked", "give the same data, or evaluate again")
    kept = {i for _, ids in _kept(folder) for i in ids.tolist()}
    if missing := {line["id"] for line in read_lines(folder)} - kept:
        raise IDCError(
            f"{len(missing)} images", "kept adversarial images of all", "run the same idc evaluate with --keep"
        )
    if then["classifier"]["fingerprint"] != model_fingerprint(model):
        return False
    answers = probe(model, *problem_of(request, images).first(PROBED, device))
    return same_answers(then, {"classifier": {"precision": "bf16" if model.bf16 else "fp32"}, "answers": answers})


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
