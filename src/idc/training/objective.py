"""What a run trains, and towards what: the part of training that differs between IDC and its peers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from idc.classifier import IDC
from idc.data import ImageSet
from idc.errors import IDCError
from idc.loss import bridge_loss, label_cross_entropy
from idc.training.recipe import Recipe
from idc.training.validation import CleanAccuracy, clean_accuracy, from_counts

Call = Callable[..., Any]  # the network as the trainer runs it: compiled, distributed, under autocast


class Validation(Protocol):
    """What a validation found. ``to_dict`` gives what ``Objective.restored`` takes."""

    @property
    def images(self) -> int: ...
    @property
    def score(self) -> float:
        """By which the best weights of a run are chosen: more is better."""

    def to_dict(self) -> dict[str, float]: ...
    def shares(self) -> dict[str, float]:
        """Accuracy by the name of what was asked, such as "one-step"."""

    def text(self) -> str:
        """For people, such as "90.0% one-step"."""


class Objective(Protocol):
    """A network, its loss on a batch, its validation and its file."""

    @property
    def network(self) -> nn.Module:
        """The module whose parameters are trained, averaged and kept."""

    def check(self, train: ImageSet) -> None:
        """Raise IDCError unless the data fit the network."""

    def to(self, device: torch.device, *, bf16: bool) -> None:
        """Move all that the loss needs; ``bf16``: what it computes beside ``call`` may be in half precision."""

    def loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Means over a batch, each (): "total", which is minimised, and its parts.

        Args:
            call: ``network``.
            images: (B, C, H, W) in [0, 1], augmented, channels_last.
            classes: (B,).
            random: of the step; on the images' device.
        """

    def validate(
        self, network: nn.Module, data: ImageSet, *, final: bool, bf16: bool, shard: tuple[int, int]
    ) -> Tensor:
        """Counts over every world-th image from rank on (``shard`` = rank, world); those of all shards add up."""

    def judged(self, counts: Tensor, *, final: bool) -> Validation:
        """What the summed counts say."""

    def restored(self, values: dict[str, Any]) -> Validation:
        """A validation from its ``to_dict``."""

    def pictures(self, network: nn.Module, data: ImageSet) -> tuple[str, Tensor] | None:
        """A name and a (C, H, W) picture in [0, 1] to watch, if any."""

    def save(self, network: nn.Module, folder: Path, card: dict[str, Any]) -> None:
        """Write a model with these weights (those of ``network``, or their average)."""


class Bridging:
    """IDC: the intra-class and inter-class losses of the Brownian bridge (paper; method.md "Losses").

    Args:
        model: a fresh classifier.
        recipe: its weights of the losses and of the timesteps.
    """

    def __init__(self, model: IDC, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe

    @property
    def network(self) -> nn.Module:
        return self.model.unet

    def check(self, train: ImageSet) -> None:
        if train.shape != self.model.input_shape or train.num_classes != self.model.num_classes:
            found = f"{train.num_classes} classes of shape {train.shape}"
            wanted = f"{self.model.num_classes} of {self.model.input_shape}, as the model"
            raise IDCError(found, wanted, "train a fresh model on this data, or give it the data it was made for")
        timesteps = self.model.config.bridge.timesteps
        if self.recipe.t_weights and len(self.recipe.t_weights) != timesteps:
            given = ",".join(map(str, self.recipe.t_weights))
            raise IDCError(f"t_weights = {given}", f"{timesteps} numbers, one a timestep", "or give none: uniform")

    def to(self, device: torch.device, *, bf16: bool) -> None:
        self.model.to(device)
        self.labels = 2 * self.model.labels - 1
        weights = self.recipe.t_weights or (1.0,) * self.model.config.bridge.timesteps
        self.t_weights = torch.tensor(weights, device=device)

    def loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        y = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        t = torch.multinomial(self.t_weights, len(classes), replacement=True, generator=random)
        eps = torch.randn(y.shape, generator=random, device=y.device)
        sample = self.model.bridge.sample(self.labels[classes], y, t, eps)
        output = call(sample.x_t, t, y)
        terms = bridge_loss(sample, output, self.labels, classes, inter_weight=self.recipe.inter_weight)
        found = {"total": terms.total.mean(), "intra": terms.intra.mean(), "inter": terms.inter.mean()}
        if self.recipe.ce_weight > 0:
            heat = self.recipe.ce_temperature
            entropy = label_cross_entropy(sample, output, self.labels, classes, temperature=heat)
            found["total"] = found["total"] + self.recipe.ce_weight * entropy.mean()
        return found

    def validate(
        self, network: nn.Module, data: ImageSet, *, final: bool, bf16: bool, shard: tuple[int, int]
    ) -> Tensor:
        model = self.model.with_network(network)
        return clean_accuracy(model, data, draws=self._draws(final), bf16=bf16, shard=shard)[1]

    def judged(self, counts: Tensor, *, final: bool) -> CleanAccuracy:
        return from_counts(counts, self._draws(final))

    def restored(self, values: dict[str, Any]) -> CleanAccuracy:
        return CleanAccuracy(**values)

    @staticmethod
    def _draws(final: bool) -> int:
        return 10 if final else 1

    def pictures(self, network: nn.Module, data: ImageSet, *, count: int = 8) -> tuple[str, Tensor]:
        """Images, their one-step and multi-step translations, their true labels."""
        model = self.model.with_network(network)
        images = data.images[:count].float().div(255)
        with torch.no_grad():
            one = model.translate(images, visits=model.one_step_visits)
            many = model.translate(images, generator=torch.Generator().manual_seed(0))
        rows = [images, one, many, model.labels[data.labels[:count]]]
        grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        return "image, one-step, multi-step, label", grid.clamp(0, 1).float().cpu()

    def save(self, network: nn.Module, folder: Path, card: dict[str, Any]) -> None:
        model = self.model.with_network(network)
        model.card = card
        model.save_pretrained(folder)
