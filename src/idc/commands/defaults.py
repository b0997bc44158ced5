"""What a training takes for images of one's own where nothing else is asked for: network, labels, answer, schedule."""

import math
from dataclasses import replace
from typing import Any

from idc.commands.plugins import is_plugin
from idc.data import ImageSet, load
from idc.method.config import IDCConfig
from idc.method.label_kinds import hadamard_factors
from idc.method.presets import PRESETS
from idc.method.unet import UNetSpec
from idc.text import counted, epoch_text
from idc.training.recipe import CNN_RECIPES, ONE_STEP, CNNRecipe, Recipe
from idc.training.settings import S, override

PRESET = "nano-encoder-bn"
VISITS = (len(ONE_STEP.t_weights) - 1,)
SIDE = 32  # four times the pixels take four times as long
_MANY = 10_000  # images
_UPDATES = 1_000  # that a training makes, if it does not go through the images more or less often than this:
_FEWEST, _MOST = 20.0, 150.0  # epochs


def usual_size(source: str, network: UNetSpec = PRESETS[PRESET]) -> int | None:
    """Pixels a side to which images are scaled: ``SIDE``, or the next more that the network takes, if they are larger
    or of a size that it does not take; None leaves them as they are."""
    own = load(source, split="train", limit=1, skip_bad=True).shape  # whoever loads all says what is bad
    side = math.ceil(SIDE / network.stride) * network.stride
    return side if own[1] > side or own[1] % network.stride else None


def usual_network(side: int) -> UNetSpec:
    """The network for squares of so many pixels a side: larger ones enter as patches, so that an answer costs little
    more than one of ``SIDE`` pixels."""
    spec = PRESETS[PRESET]
    patch = next((p for p in (16, 8, 4, 2) if p * SIDE <= side and side % (p * spec.stride) == 0), 1)
    return replace(spec, patch=patch)


def usual_labels(
    data: ImageSet, network: UNetSpec, *, kind: str | None = None, cell: int | None = None
) -> dict[str, Any]:
    """What is not given of kind and cell of the labels, and the timesteps of the answer.

    Squares of 8 pixels (of 8 patches, where images enter as such), or as small ones as it takes for twice as many
    values as classes; of pixels, for labels of one's own code. Their exact arithmetic is that of Hadamard matrices,
    where there is one.
    """
    cells = (1,) if kind is not None and is_plugin(kind) else (8 * network.patch, 4, 2, 1)
    cells = cells if cell is None else (cell,)
    cell = next((c for c in cells if _room(data.shape, kind, c) >= 2 * data.num_classes), cells[-1])
    usual = "hadamard" if _room(data.shape, "hadamard", cell) else "low-frequency"
    return {"labels": kind or usual, "label_cell": cell, "visits": VISITS}


def _room(shape: tuple[int, int, int], kind: str | None, cell: int) -> int:
    """For how many labels of a kind there is room at most, about; 0 if squares do not fit or the kind has none."""
    channels, height, width = shape
    if cell < 1 or height % cell or width % cell:
        return 0
    values = channels * (height // cell) * (width // cell)
    if kind == "blocks":
        return values // channels
    return 0 if kind == "hadamard" and not hadamard_factors(values) else values


def usual_schedule(images: int, asked: float | None = None) -> Recipe:
    """The recipe with a batch size and a number of epochs for so many training images, or those that are asked for."""
    return _of_length(ONE_STEP, images, _FEWEST, asked)


def usual_cnn_schedule(images: int, changes: dict[str, Any] | None = None) -> CNNRecipe:
    """The same of a CNN: its ``fast`` recipe, with ``changes``; its learning rate follows the batch size (Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017)."""
    fast, changes = CNN_RECIPES["fast"], changes or {}
    chosen = override(_of_length(fast, images, fast.epochs, changes.get("epochs")), changes)
    return chosen if "lr" in changes else replace(chosen, lr=fast.lr * chosen.batch_size / fast.batch_size)


def usual_width(source: str, images: int) -> int:
    """Channels of a PreActResNet-18's first stage: a sixty-fourth of the published network's FLOPs for digits, a
    sixteenth for few photos, on which it would take hours of a CPU; 0, as published, for many."""
    return 8 if source == "digits" else 16 if images < _MANY else 0


def _of_length(recipe: S, images: int, fewest: float, asked: float | None) -> S:
    batch = 128 if images >= 1_500 else 64 if images >= 400 else 32
    an_epoch = max(1, images // batch)
    epochs = asked or float(min(_MOST, max(fewest, math.ceil(_UPDATES / an_epoch))))
    every = max(1.0, epochs // 20)
    return replace(recipe, batch_size=batch, epochs=epochs, validate_every=every, checkpoint_every=every)


def in_words(config: IDCConfig, preset: str, recipe: Recipe) -> str:
    """What is trained, each with the flag that changes it."""
    patch, along, cell = config.unet.patch, config.visits, config.label_cell
    patches = f" in patches of {patch} pixels" if patch > 1 else ""
    answer = "in one step" if len(along) == 1 else f"along timesteps {', '.join(map(str, along))}"
    squares = f"in squares of {cell}" if cell > 1 else "pixel by pixel"
    epochs = f"{counted(epoch_text(recipe.epochs), 'epoch')} (--epochs, --minutes)"
    return (
        f"chosen: images of {config.image_shape[1]} pixels a side (--image-size){patches}, network {preset} "
        f"(--preset), an answer {answer} (--visits), labels {config.label_kind} {squares} (--labels, --label-cell), "
        f"{counted(f'{recipe.minutes:g}', 'minute') if recipe.minutes else epochs} in batches of "
        f"{recipe.batch_size} (--batch-size)"
    )
