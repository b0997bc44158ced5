"""IDC's own training: the losses of the Brownian bridge."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idc.classifier import IDC
from idc.data import ImageSet
from idc.errors import IDCError
from idc.hardware import unet_format
from idc.loss import bridge_loss, label_cross_entropy
from idc.training.objective import Call, check_fits
from idc.training.recipe import Recipe
from idc.training.validation import CleanAccuracy, clean_accuracy, from_counts


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
        check_fits(train, self.model.input_shape, self.model.num_classes)
        timesteps = self.model.config.bridge.timesteps
        if self.recipe.t_weights and len(self.recipe.t_weights) != timesteps:
            given = ",".join(map(str, self.recipe.t_weights))
            raise IDCError(f"t_weights = {given}", f"{timesteps} numbers, one a timestep", "or give none: uniform")

    def to(self, device: torch.device, *, bf16: bool) -> None:
        self.format = unet_format(device)
        self.model.to(device).unet.to(memory_format=self.format)  # type: ignore[call-overload]  # torch's stubs lack it
        self.labels = 2 * self.model.labels - 1
        weights = self.recipe.t_weights or (1.0,) * self.model.config.bridge.timesteps
        self.t_weights = torch.tensor(weights, device=device)

    def loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        y = (2 * images - 1).contiguous(memory_format=self.format)
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
