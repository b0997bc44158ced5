"""Training a convolutional peer: the standard way, by PGD-AT, TRADES or MART, or on Gaussian noise."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from idc.accuracy import ON_CROSS_ENTROPY, ON_MARGIN
from idc.data import ImageSet
from idc.peers.cnn import CNN, normalised
from idc.text import eps_text
from idc.training.class_objective import ClassObjective
from idc.training.objective import Call
from idc.training.recipe import CNNRecipe
from idc.training.robust_losses import classify
from idc.types import answered


@dataclass(frozen=True, slots=True)
class RobustAccuracy:
    """Shares of ``images`` that were answered rightly as they are, and attacked at the recipe's eps."""

    clean: float
    robust: float
    images: int
    eps: float
    attacked_by: str = ON_MARGIN

    @property
    def score(self) -> float:
        """Robust accuracy, by which adversarial training is stopped early (Rice et al., ICML 2020); clean accuracy
        where nothing is held out against."""
        return self.robust if self.eps else self.clean

    def to_dict(self) -> dict[str, float | str]:
        """The fields, JSON-ready; without eps no attack."""
        return {name: value for name, value in asdict(self).items() if self.eps or name != "attacked_by"}

    def shares(self) -> dict[str, float]:
        """Accuracy by name."""
        under = f"under {self.attacked_by} at {eps_text(self.eps)}"
        return {"clean": self.clean} | ({under: self.robust} if self.eps else {})

    def text(self) -> str:
        """For people."""
        return "accuracy " + ", ".join(f"{v:.1%} {k}" for k, v in self.shares().items()) + f" ({self.images} images)"


class CNNObjective(ClassObjective):
    """A CNN's cross-entropy, on images as they are, noisy ones, or the worst within eps.

    Args:
        model: a fresh CNN.
        recipe: the method and its settings.
    """

    model: CNN
    recipe: CNNRecipe

    def _logits(self, call: Call, images: Tensor) -> Tensor:
        logits: Tensor = call(normalised(images))
        return logits.float()

    def answer_logits(self, network: nn.Module, images: Tensor) -> Tensor:
        with self.autocast:
            return self._logits(network, images)

    def _loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        images, targets = self.batch(images, classes, random)
        moved = images
        if self.attacks:
            moved = self._attacked(images, targets.answer, random)
        elif self.recipe.method == "noise":
            noise = torch.randn(images.shape, generator=random, device=images.device)
            moved = (images + self.recipe.sigma * noise).clamp(0, 1)  # as idc certify asks the model
        # One call for clean and attacked images: a distributed network may be called once a step.
        given = torch.cat([images, moved]) if self.attacks and self.recipe.compares else moved
        losses = partial(classify, targets=targets, method=self.recipe.method, beta=self.recipe.beta)
        if self.shifts:
            with self.autocast:
                logits = self._logits(self.network, given)
            self.shift.up(losses(logits)["total"])
        return losses(self._logits(call, given))

    def validate(
        self, network: nn.Module, data: ImageSet, *, final: bool, bf16: bool, shard: tuple[int, int]
    ) -> Tensor:
        """(3,) float64: right as they are, right under ``worst``, images."""
        device = data.images.device
        counts = torch.zeros(3, dtype=torch.float64, device=device)
        for chosen in torch.arange(len(data))[shard[0] :: shard[1]].split(500):
            images, classes = data.images[chosen].float().div(255), data.labels[chosen]
            with torch.no_grad():
                right = (answered(self._logits(network, images)) == classes).sum()
            robust = self._robust(network, images, classes, data.ids[chosen])
            counts += torch.stack([right, robust, right.new_tensor(len(chosen))])
        return counts

    def _robust(self, network: nn.Module, images: Tensor, classes: Tensor, ids: Tensor) -> Tensor:
        """() how many are right under ``worst`` from a random start of the image's own."""
        if not self.recipe.adversarial:
            return classes.new_zeros(())
        moved = self._worst(partial(self._logits, network), images, classes, ids)
        with torch.no_grad():
            return (answered(self._logits(network, moved)) == classes).sum()

    def judged(self, counts: Tensor, *, final: bool) -> RobustAccuracy:
        right, robust, images = counts.tolist()
        eps = self.recipe.eps if self.recipe.adversarial else 0.0
        return RobustAccuracy(right / max(images, 1), robust / max(images, 1), int(images), eps)

    def restored(self, values: dict[str, Any]) -> RobustAccuracy:
        return RobustAccuracy(**({"attacked_by": ON_CROSS_ENTROPY} if values["eps"] else {}) | values)
