"""What the page shows of one image: the model's answer and how it came about, and the same under attack."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from idc.attacks.best import Best
from idc.attacks.gradient import GradientAttack
from idc.attacks.objective import Margin
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.compute.modes import frozen
from idc.data.decoding import decode
from idc.errors import IDCError
from idc.method.classifier import IDC
from idc.method.labels import to_unit
from idc.noise import Streams, derive_seed, normal
from idc.text import size_text

_FOLLOWED = ("one-step-inner", "chain-inner")  # functions whose gradient the attack takes, the cheaper first
_SEED = 0  # of the noise in an answer: the same image has the same answer


DOUBTED = 0.05  # share of the rightly answered validation images that is farther from every label


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Answer:
    """The answer for one image; pictures are (C, H, W) on the CPU, in [0, 1].

    Attributes:
        name: of the class answered.
        confidence: of each class by name, nearest first; see ``Prediction``.
        distance: of the translation to the answered class's label, on [0, 1], and ``next_distance`` to the second.
        rejected: whether it may be none of the classes, see ``Prediction.rejected`` at ``DOUBTED``; None if nothing is
            known of that, as of an answer that is not calibrated.
        votes: of how many draws each class is the answer, most first, without those that are of none.
        image: as the model sees it. label: the answered class's.
        steps: timestep and translation (x0_hat) there, in the order of the visits, of the first draw.
    """

    name: str
    confidence: dict[str, float]
    distance: float
    next_distance: float
    rejected: bool | None
    votes: dict[str, int]
    image: Tensor
    label: Tensor
    steps: tuple[tuple[int, Tensor], ...]


def read_upload(raw: bytes, model: IDC) -> Tensor:
    """One image file that anybody may have sent, (1, C, H, W) in [0, 1], as ``idc predict`` reads it.

    Raises:
        IDCError: it is no image, damaged, or larger than ``idc.data.decoding.MAX_PIXELS``.
    """
    size = size_text(len(raw)) if len(raw) >= 2**20 else f"{len(raw):,} bytes"
    pixels = decode(raw, f"this file of {size}", model.input_shape)
    return torch.from_numpy(np.array(pixels, order="C"))[None].float() / 255


def draws_of(model: IDC, draws: int | None) -> int:
    """``draws``, or 10, or 1 of an answer that draws no noise.

    Raises:
        IDCError: for several draws of such an answer, or less than one.
    """
    if (draws or 1) > 1 and not model.stochastic:
        raise IDCError(f"draws = {draws} of an answer without noise", "1: all would be the same", "leave --draws out")
    return draws or (10 if model.stochastic else 1)


@torch.no_grad()
def answer(model: IDC, image: Tensor, *, draws: int) -> Answer:
    """The answer for one image, (1, C, H, W) in [0, 1], by the mean over ``draws`` of the noise.

    Raises:
        IDCError: if the distances are not finite.
    """
    found = model.predict(image, draws=draws, seed=_SEED)
    device, names = model.labels.device, model.class_names
    near = found.distances[0].argsort().tolist()
    votes = (found.votes[0] * draws).round().int().tolist()
    first = torch.zeros(1, dtype=torch.int64, device=device)  # the image's id in ``predict``: its first draw is shown
    noise = [normal(first, model.input_shape, seed=_SEED, step=k)[0] for k in range(len(model.config.visits) - 1)]
    with frozen(model):
        steps = model.trajectory(image.to(device), noise=torch.stack(noise) if noise else None)
    return Answer(
        name=names[near[0]],
        confidence={names[k]: found.confidence[0, k].item() for k in near},
        distance=found.distances[0, near[0]].item(),
        next_distance=found.distances[0, near[1]].item(),
        rejected=bool(found.rejected(DOUBTED)[0]) if found.calibration else None,
        votes={names[k]: votes[k] for k in sorted(near, key=lambda k: -votes[k]) if votes[k]},
        image=image[0].cpu(),
        label=model.labels[near[0]].cpu(),
        steps=tuple((step.t, to_unit(step.x0_hat[0], clip=True).cpu()) for step in steps),
    )


def attack(model: IDC, image: Tensor, *, eps: int, steps: int = 20, eot: int = 4) -> Tensor:
    """An image within ``eps``/255 (L-inf) of one, (1, C, H, W) of whole 255ths, that the model is to answer otherwise.

    APGD away from the model's own answer (nobody has said what is true): along the one-step answer, and where that
    does not mislead every draw, along the chain with ``eot`` draws in each gradient; the better of them is kept, and
    rounded to whole 255ths, so that what is shown is what is answered. A first look, no evaluation.

    Raises:
        IDCError: for an eps out of range.
    """
    device = model.labels.device
    threat, x = Threat("linf", eps / 255), image.to(device)
    streams = Streams(torch.zeros(1, dtype=torch.int64, device=device), derive_seed(_SEED, "attack"))
    with frozen(model):
        target, classes = Target.of(model), model.predict(x, seed=_SEED).classes
        best = Best(target, x, classes, streams, 8)
        for function in (name for name in _FOLLOWED if name in target.surrogates):
            if len(rows := best.remaining()):
                climb = GradientAttack(
                    threat=threat, objective=Margin(), surrogate=function, steps=steps, control="auto", eot=eot
                )
                best.offer(climb(target, x, classes, streams.of(function)), rows, function)
    return (best.x * 255).round().cpu() / 255
