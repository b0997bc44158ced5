"""How a training ended, and what helps to judge it: its accuracy beside chance and a simple baseline, and where it is
poor, why, with the flag to change."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from idc.data import ImageSet
from idc.text import percent
from idc.training.objective import Validation
from idc.training.settings import Settings

_MANY, _PLENTY = 5_000, 100  # images that the baseline takes at most, and a class that are not few
_GOOD = 0.9  # accuracy of which nobody asks why
_LEARNED = 0.8  # accuracy on its own training images, below which a network has not learned them
_GAP = 0.1  # between training and validation images
_FEW_UPDATES, _FEW_JUDGES = 1_000, 500


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
    without a network. Of at most 5,000 training images."""
    from sklearn.neighbors import NearestCentroid

    train = train.take(min(len(train), _MANY))
    learned, judged = (data.images.flatten(1).float().cpu().numpy() for data in (train, validation))
    if len(set(train.labels.tolist())) < 2:
        return float((validation.labels == train.labels[0]).double().mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels that are the same in all images
        classifier = NearestCentroid().fit(learned, train.labels.cpu().numpy())
    return float(classifier.score(judged, validation.labels.cpu().numpy()))


def remarks(
    found: Validation, fit: Validation, train: ImageSet, validation: ImageSet, recipe: Settings, *, updates: int
) -> list[str]:
    """What helps people to judge ``found``; nothing of a training without classes.

    Args:
        found, fit: of the best weights, on validation and on training images.
        updates: that the training made.
    """
    if not found.shares():
        return []
    why = causes(found, fit, train, updates=updates, adversarial=recipe.adversarial)
    return [_beside(found, fit, train, validation), *why, *filter(None, [getattr(found, "advice", "")])]


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


def causes(found: Validation, fit: Validation, train: ImageSet, *, updates: int, adversarial: bool) -> list[str]:
    """Why ``found`` is no better, each with what to change; empty where it is good.

    Args:
        found, fit: of the best weights, on validation and on training images.
        updates: that the training made.
        adversarial: the scores are robust accuracy, which stays far from 1 on training images too.
    """
    if found.score >= _GOOD:
        return []
    causes = []
    if fit.score - found.score > _GAP:
        remedy = "" if adversarial else ", or mixed ones (--mix cutmix)"
        causes.append(
            f"it knows its training images better ({percent(fit.score)}) than new ones ({percent(found.score)}): more "
            f"images help most{remedy}"
        )
    learned = fit.score >= _LEARNED and not adversarial
    if not learned and updates < _FEW_UPDATES:
        causes.append(f"only {updates:,} updates: train for longer (--epochs or --minutes)")
    elif not learned and not adversarial:
        causes.append(
            f"its training images are not learned either ({percent(fit.score)}): a larger network (--preset), larger "
            "images (--image-size), or longer (--epochs)"
        )
    if (each := len(train) / train.num_classes) < _PLENTY:
        causes.append(f"{each:.0f} training images a class are few: more of them are worth more than any flag")
    return causes
