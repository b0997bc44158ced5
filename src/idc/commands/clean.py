"""What ``idc evaluate`` without an attack says first: the model's own answer to every image."""

from typing import Any

import torch

from idc import data as datasets
from idc.accuracy import accuracy
from idc.attacks.target import ANSWER
from idc.commands.request import Request
from idc.evaluation.answers import describe_answers, write_mistakes
from idc.evaluation.runner import Runner
from idc.evaluation.verdict import wilson
from idc.method.classifier import IDC
from idc.method.prediction import DRAWS, Prediction
from idc.noise import Streams, derive_seed
from idc.storage.fields import recorded
from idc.types import answered


def own_answers(request: Request, runner: Runner, images: datasets.ImageSet) -> dict[str, Any]:
    """``own``: figures of what the model answers by default, as ``IDC.predict`` does; of an IDC also ``accuracy``, that
    of this answer and of the one-step answer."""
    model, problem = runner.classifier, runner.problem
    if not isinstance(model, IDC):
        target, found = runner.target(), []
        for index in range(runner.blocks):
            x, _, ids = runner.images(index)
            found.append(target.logits(ANSWER, x, Streams(ids, derive_seed(runner.seed, "own")))[0].cpu())
        logits = torch.cat(found)
        words = "one draw of its noise" if model.stochastic else "largest logit"
        own = describe_answers(answered(logits), logits.softmax(1), problem.classes, problem.ids, answer=words,
                               calibrated=False)  # fmt: skip
        write_mistakes(own, problem.images, problem.ids, runner.out)
        return {"own": own}
    draws = 0 if model.answers_in_one_step else (request.draws or DRAWS) if model.stochastic else 1
    seen: list[Prediction] = []
    shares, _ = accuracy(model, images, draws=draws, seed=request.seed, seen=lambda found, classes: seen.append(found))
    words = f"mean distance over {draws} draws" if model.stochastic else "no noise" if draws else "one step"
    answers, confidence = (torch.cat([getattr(p, n) for p in seen]).cpu() for n in ("classes", "confidence"))
    own = describe_answers(answers, confidence, images.labels, images.ids, answer=words,
                           calibrated=model.calibration is not None)  # fmt: skip
    write_mistakes(own, images.images, images.ids, runner.out)
    values = {} if model.answers_in_one_step else {f"own answer, {words}": shares.multi_step}
    values |= {"one-step": shares.one_step}
    return {"own": own, "accuracy": {name: recorded(wilson(v, shares.images)) for name, v in values.items()}}
