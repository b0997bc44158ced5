"""Whether a model that another process opens anew answers adversarial images as the evaluation recorded."""

import json
import os
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
from idc.evaluation.sanity.bench import Finding
from idc.evaluation.verdict import judge
from idc.noise import Streams, derive_seed
from idc.storage.fields import recorded
from idc.types import answered

_MOST, _SECONDS = 32, 3600
_ANSWER = "idc judged anew: "
_NAME = "the same answer in a fresh process"
_DISTRIBUTED = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_", "OMPI_")


def same_in_fresh_process(request: Request, out: Path, lines: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The verdicts on up to 32 kept adversarial images (without ``keep``, on the eight of the report), judged with the
    noise of then by a process that has asked the model nothing else, are those that the ``lines`` have.

    Of a deterministic model one verdict in eight may differ, which lies at an edge (one in four in bf16); of one with
    noise, right draws by what chance may do. None where the process lacked memory or time: that says nothing.
    """
    known = {line["id"]: line for line in lines}
    _, ids = kept_images(out, _MOST)
    asked = [known[image] for image in ids.tolist() if image in known]
    if not asked:
        return []
    remedy = "keep no memory of images, answers or calls, in the model or outside; let it open twice alike"
    words = json.dumps({"out": str(out), "request": recorded(request), "draws": asked[0]["draws"]})
    code = "from idc.commands.fresh import main; main()"
    env = {name: value for name, value in os.environ.items() if not name.startswith(_DISTRIBUTED)}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        ended = subprocess.run([sys.executable, "-P", "-c", code], input=words, capture_output=True, text=True, env=env,
                               errors="replace", timeout=_SECONDS, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return []
    answer = [line for line in ended.stdout.splitlines() if line.startswith(_ANSWER)]
    if ended.returncode < 0 or (ended.returncode and lacks_memory(RuntimeError(ended.stderr))):
        return []
    if ended.returncode or not answer:
        told = (ended.stderr.strip().splitlines() or ["no answer"])[-1]
        return [Finding(_NAME, False, f"stopped: {cut(told, 300)}", "let the model be opened again")]
    found = json.loads(answer[-1].removeprefix(_ANSWER))
    pairs = [(line["robust"], found[str(line["id"])]) for line in asked]
    passed, text = _compared(pairs, asked[0]["draws"], bf16=request.precision != "fp32")
    return [Finding(_NAME, passed, f"{len(pairs)} adversarial images: {text}", remedy)]


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
    print(f"\n{_ANSWER}{json.dumps(found)}", flush=True)
