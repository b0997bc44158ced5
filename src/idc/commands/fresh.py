"""Whether a model that another process opens anew answers adversarial images as the evaluation recorded."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from idc.attacks.target import ANSWER, Target
from idc.commands.opening import open_both
from idc.commands.request import Request
from idc.errors import IDCError, cut, lacks_memory
from idc.evaluation.runner import kept_images
from idc.evaluation.sanity.bench import Finding, not_made
from idc.evaluation.verdict import judge
from idc.noise import Streams, derive_seed
from idc.storage.fields import recorded
from idc.types import answered

_MOST, _SECONDS = 32, 3600
_LACKING = ("MemoryError", "bad_alloc", "busy or unavailable")  # of memory, or of a GPU that others may use too
_NAME = "the same answer in a fresh process"
# What torchrun and mpirun tell a process of its place among others.
_PLACE = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE",
    "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "PMI_RANK", "PMI_SIZE",
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
)  # fmt: skip


def same_in_fresh_process(request: Request, out: Path, lines: Sequence[Mapping[str, Any]]) -> Finding:
    """The verdicts on up to 32 kept adversarial images (without ``keep``, on the eight of the report), judged with the
    noise of then by a process that has asked the model nothing else, are those that the ``lines`` have.

    Of a deterministic model one verdict in eight may differ, which lies at an edge (one in four in bf16); of one with
    noise, right draws by what chance may do. It may be that the check cannot be made.
    """
    known = {line["id"]: line for line in lines}
    _, ids = kept_images(out, _MOST)
    asked = [known[image] for image in ids.tolist() if image in known]
    try:
        if not asked:
            raise _CannotAskError("no adversarial image is kept")
        found = _asked_anew(request, out, asked[0]["draws"])
        pairs = [(line["robust"], found[str(line["id"])]) for line in asked]
    except _CannotAskError as error:
        return not_made(_NAME, str(error))
    except (RuntimeError, KeyError) as error:
        told = f"no answer to image {error}" if isinstance(error, KeyError) else f"stopped: {error}"
        return Finding(_NAME, False, told, "let the model be opened again, and answer the same data")
    passed, text = _compared(pairs, asked[0]["draws"], bf16=request.precision != "fp32")
    remedy = "keep no memory of images, answers or calls, in the model or outside; let it open twice alike"
    return Finding(_NAME, passed, f"{len(pairs)} adversarial images: {text}", remedy)


class _CannotAskError(Exception):
    """The check cannot be made, which says nothing of the model."""


def _asked_anew(request: Request, out: Path, draws: int) -> dict[str, list[int]]:
    """What ``judged_anew`` gives in another process, whose line of answer begins with a number that only it is told.

    Raises:
        _CannotAskError: if the process cannot import the model, or lacks memory or a GPU.
        RuntimeError: if it ends without an answer.
    """
    if request.model.startswith("__main__:"):
        raise _CannotAskError(f"{request.model} is in a script, which no other process imports")
    token = secrets.token_hex()
    words = json.dumps({"token": token, "out": str(out), "request": recorded(request), "draws": draws})
    code = "from idc.commands.fresh import main; main()"
    env = {name: value for name, value in os.environ.items() if name not in _PLACE}
    env["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    try:
        ended = subprocess.run([sys.executable, "-P", "-c", code], input=words, capture_output=True, text=True, env=env,
                               errors="replace", timeout=_SECONDS, check=False)  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no answer within {_SECONDS} seconds") from error
    for line in ended.stdout.splitlines():
        if line.startswith(token):
            found: dict[str, list[int]] = json.loads(line.removeprefix(token))
            return found
    told = cut((ended.stderr.strip().splitlines() or ["no answer"])[-1], 300)
    if ended.returncode == -9:
        raise _CannotAskError("the other process was killed, for want of memory say")
    if lacks_memory(RuntimeError(ended.stderr)) or any(words in ended.stderr for words in _LACKING):
        raise _CannotAskError(f"the other process stopped: {told}")
    raise RuntimeError(f"{signal.strsignal(-ended.returncode)}: {told}" if ended.returncode < 0 else told)


def _compared(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], draws: int, *, bf16: bool) -> tuple[bool, str]:
    """Whether right draws and votes, then and now, are the same but for rounding and chance."""
    votes = sum(then[1] != now[1] for then, now in pairs)
    text = f"{votes} verdicts differ"
    if draws == 1:
        return votes <= len(pairs) // (4 if bf16 else 8), text
    right = torch.tensor([[then[0], now[0]] for then, now in pairs], dtype=torch.float64)
    share = right.sum(1) / (2 * draws)
    # A difference of two counts has this variance; its squares over it add up to a chi-squared of one an image.
    variance = (2 * draws * share * (1 - share)).clamp(min=1e-9)
    apart = (right.diff(dim=1)[:, 0].square() / variance).sum().item()
    text += f", {int(right[:, 0].sum())} and {int(right[:, 1].sum())} right draws"
    return apart <= len(pairs) + 4 * (2 * len(pairs)) ** 0.5, text


def judged_anew(request: Request, out: Path, draws: int) -> dict[int, list[int]]:
    """By image: right draws and vote of the model that is opened now, with the noise of an evaluation's last verdict.

    Raises:
        IDCError: if model and data cannot be opened.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier, images = open_both(replace(request, compile=False), device)
    x, ids = kept_images(out, _MOST)
    x, ids = x.to(device), ids.to(device)
    true = dict(zip(images.ids.tolist(), images.labels.tolist(), strict=True))
    classes = torch.tensor([true[image] for image in ids.tolist()])
    streams = Streams(ids, derive_seed(request.seed, "evaluation")).of("final")
    target = Target.of(classifier, chunk=request.batch_size, name=request.model)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # as the evaluation asked
        answers = answered(target.logits(ANSWER, x, streams, draws=draws)).cpu()
    judged = judge(answers, classes, classifier.num_classes)
    return {image: [one.right, one.vote] for image, one in zip(ids.tolist(), judged, strict=True)}


def main() -> None:
    """In the fresh process: what is asked comes on standard input, the answer is a line of standard output."""
    asked = json.load(sys.stdin)
    try:
        found = judged_anew(Request(**asked["request"]), Path(asked["out"]), asked["draws"])
    except IDCError as error:
        sys.exit(str(error))
    print(f"\n{asked['token']}{json.dumps(found)}", flush=True)
