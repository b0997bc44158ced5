"""What a run trains, and towards what: the part of training that differs between IDC and its peers."""

import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idc.data import ImageSet
from idc.errors import IDCError
from idc.storage.saved import SavedModel

Call = Callable[..., Any]  # the network as the trainer runs it: compiled, distributed, under autocast


class Validation(typing.Protocol):
    """What a validation found. ``to_dict`` gives what ``TrainingObjective.restored`` takes."""

    @property
    def images(self) -> int: ...
    @property
    def score(self) -> float:
        """By which the best weights of a run are chosen: more is better."""

    def to_dict(self) -> Mapping[str, float | str]: ...
    def shares(self) -> dict[str, float]:
        """Accuracy by the name of what was asked, such as "one-step"."""

    def text(self) -> str:
        """For people, such as "90.0% one-step"."""


@typing.runtime_checkable
class TrainingObjective(typing.Protocol):
    """A network, its loss on a batch, its validation and its file. To inherit from it is to take what it does by
    default."""

    replays: int = 1  # steps in a row that get the same batch

    @property
    def network(self) -> nn.Module:
        """The module whose parameters are trained, averaged and kept."""

    def check(self, train: ImageSet) -> None:
        """Raise IDCError unless the data fit the network."""

    def to(self, device: torch.device, *, bf16: bool) -> None:
        """Move all that the loss needs; ``bf16``: what it computes beside ``call`` may be in half precision."""

    def follow(self, averaged: Callable[[], nn.Module]) -> None:
        """Called before the first step: ``averaged`` gives ``network`` with its averaged weights so far. By default
        nobody asks for it."""
        return

    def begin(self, done: float, *, replay: int) -> None:
        """Called before each ``loss``: ``done`` in [0, 1) is the share of the run that lies behind, ``replay`` how many
        steps the batch has had. By default nothing changes with time."""
        return

    def end(self) -> None:
        """Called after the backward pass: what ``loss`` did to the weights for its own purposes is undone, and what it
        wants of the gradients is taken. By default nothing."""
        return

    def loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Means over a batch, each (): "total", which is minimised, and its parts.

        Args:
            call: ``network``.
            images: (B, C, H, W) in [0, 1], augmented.
            classes: (B,).
            random: of the step; on the images' device.
        """

    def validate(
        self, network: nn.Module, data: ImageSet, *, final: bool, bf16: bool, shard: tuple[int, int]
    ) -> Tensor:
        """Counts over every world-th image from rank on (``shard`` = rank, world); those of all shards add up."""

    def judged(self, counts: Tensor, *, final: bool) -> Validation:
        """What the summed counts say."""

    def facts(self) -> dict[str, Any]:
        """For the model's card: what else the last final ``validate`` of this process found. By default nothing."""
        return {}

    def restored(self, values: dict[str, Any]) -> Validation:
        """A validation from its ``to_dict``."""

    def pictures(self, network: nn.Module, data: ImageSet) -> tuple[str, Tensor] | None:
        """A name and a (C, H, W) picture in [0, 1] to watch, if any."""
        return None

    def save(self, network: nn.Module, folder: Path, card: dict[str, Any]) -> None:
        """Write a model with these weights (those of ``network``, or their average)."""

    def load(self, network: nn.Module, folder: Path) -> None:
        """Give ``network`` the weights that ``save`` wrote."""


class ModelObjective(TrainingObjective):
    """An objective that trains a saved kind of model, ``model``, and writes and reads it as that kind does."""

    model: SavedModel

    @property
    def network(self) -> nn.Module:
        return self.model.trained

    def save(self, network: nn.Module, folder: Path, card: dict[str, Any]) -> None:
        model = self.model.with_network(network)
        model.card = card
        model.save_pretrained(folder)

    def load(self, network: nn.Module, folder: Path) -> None:
        network.load_state_dict(type(self.model).from_pretrained(folder).trained.state_dict())


def check_fits(
    train: ImageSet, shape: tuple[int, int, int], num_classes: int, *, of: str = "the model", remedy: str = ""
) -> None:
    """Raise IDCError, with this ``remedy``, unless the data have the shape and as many classes as the model ``of``."""
    if train.shape != shape or train.num_classes != num_classes:
        raise IDCError(
            f"{train.num_classes} classes of shape {train.shape}",
            f"{num_classes} of {shape}, as {of}",
            remedy or "train a fresh model on this data, or give it the data it was made for",
        )


def minimisable(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """What an objective's ``loss`` returned.

    Raises:
        IDCError: if it is no dict of tensors with a "total" () that can be differentiated.
    """
    if not isinstance(terms, dict) or "total" not in terms:
        found = f"{list(terms)} as a dict's keys" if isinstance(terms, dict) else type(terms).__name__
    elif alien := [name for name, value in terms.items() if not isinstance(value, Tensor)]:
        found = f"{alien[0]!r} as {type(terms[alien[0]]).__name__}"
    elif terms["total"].numel() != 1:
        found = f"'total' of shape {tuple(terms['total'].shape)}"
    elif not terms["total"].requires_grad:
        found = "'total' without a gradient"
    else:
        return terms
    expected = 'a dict of tensors with "total", one number that depends on the weights'
    raise IDCError(f"the objective's loss gave {found}", expected, "return it from loss")
