"""How a training ended, and what helps to judge it: its accuracy beside chance and a simple baseline, and where it is
poor, why, with the flag to change."""

from dataclasses import dataclass
from pathlib import Path

import torch

from idc.data import ImageSet
from idc.text import counted, percent
from idc.training.objective import Validation
from idc.training.settings import Settings

_MANY, _PLENTY = 5_000, 100  # images that the baseline takes at most, and a class that are not few
_GOOD = 0.9  # accuracy of which nobody asks why
_LEARNED = 0.8  # accuracy on its own training images, below which a network has not learned them
_GAP = 0.1  # between training and validation images
_FEW_UPDATES, _FEW_JUDGES = 1_000, 500
_PART = 500  # images


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended. ``stopped`` is the signal's number if it was interrupted, else 0; ``remarks`` help people to
    judge the accuracy of a whole run."""

    step: int
    steps: int
    seconds: float
    accuracy: Validation | None
    best: Path
    stopped: int = 0
    remarks: tuple[str, ...] = ()


def nearest_mean(train: ImageSet, validation: ImageSet) -> float:
    """Share of the validation images that are nearest to the mean training image of their own class: what pixels say
    without a network. Of at most 5,000 images of each, in parts that take little memory."""
    train, validation = (data.take(min(len(data), _MANY)) for data in (train, validation))
    sums = torch.zeros(train.num_classes, train.images[0].numel(), device=train.images.device)
    for rows in torch.arange(len(train), device=sums.device).split(_PART):
        sums.index_add_(0, train.labels[rows], train.images[rows].flatten(1).float())
    counts = torch.bincount(train.labels, minlength=train.num_classes)
    means = sums / counts.clamp(min=1)[:, None]
    lengths = means.square().sum(1).masked_fill(counts == 0, float("inf"))
    right = 0
    for rows in torch.arange(len(validation), device=sums.device).split(_PART):
        distances = lengths - 2 * validation.images[rows].flatten(1).float() @ means.T  # but for what all have alike
        right += int((distances.argmin(1) == validation.labels[rows]).sum())
    return right / len(validation)


def remarks(
    found: Validation, fit: Validation | None, train: ImageSet, validation: ImageSet, recipe: Settings, *, updates: int
) -> list[str]:
    """What helps people to judge ``found``.

    Args:
        found, fit: of the best weights, on validation and on training images; without ``fit`` the run has not ended.
        updates: that the training made.
    """
    advice = list(filter(None, [getattr(found, "advice", "")]))
    if fit is None:
        return advice
    if not found.shares():  # a training without classes
        short = recipe.minutes and updates < _FEW_UPDATES
        return [f"only {counted(f'{updates:,}', 'update')} fitted into the time (--minutes)"] if short else []
    return [_beside(found, fit, train, validation), *causes(found, fit, train, recipe, updates=updates), *advice]


def _beside(found: Validation, fit: Validation, train: ImageSet, validation: ImageSet) -> str:
    """The accuracy ``found`` beside what needs no network, and beside ``fit``, that on training images."""
    largest = torch.bincount(validation.labels).max().item() / len(validation)
    simple = nearest_mean(train, validation)
    seen = ", ".join(f"{percent(value)} {name}" for name, value in fit.shares().items())
    text = (
        f"beside it: the most frequent class {percent(largest)}, the nearest mean image {percent(simple)}; on "
        f"{fit.images} of its own training images: {seen}"
    )
    few = found.images < _FEW_JUDGES
    return text + (f"; these {found.images} images also chose the weights: new ones may do worse" if few else "")


def causes(found: Validation, fit: Validation, train: ImageSet, recipe: Settings, *, updates: int) -> list[str]:
    """Why ``found`` is no better, each with what to change; empty where it is good. Robust accuracy stays far from 1 on
    training images too.

    Args:
        found, fit, updates: see ``remarks``.
    """
    if found.score >= _GOOD:
        return []
    causes, longer = [], "--minutes" if recipe.minutes else "--epochs or --minutes"
    errors = [own.score * (1 - own.score) / own.images for own in (fit, found)]
    if fit.score - found.score > max(_GAP, 2 * sum(errors) ** 0.5):
        causes.append(
            f"it knows its training images better ({percent(fit.score)}) than new ones ({percent(found.score)}): more "
            f"images help most{', or mixed ones (--mix cutmix)' if recipe.may_mix else ''}"
        )
    learned = fit.score >= _LEARNED and not recipe.adversarial
    if not learned and updates < _FEW_UPDATES:
        causes.append(f"only {counted(f'{updates:,}', 'update')}: train for longer ({longer})")
    elif not learned and not recipe.adversarial:
        causes.append(
            f"its training images are not learned either ({percent(fit.score)}): a larger network, larger images "
            f"(--image-size), or longer ({longer})"
        )
    if (each := len(train) / train.num_classes) < _PLENTY:
        causes.append(f"{each:.0f} training images a class are few: more of them are worth more than any flag")
    return causes
