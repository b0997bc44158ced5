"""Adversarial training of a network by the cross-entropy of a reading of its output; see ``label_readings``."""

from collections.abc import Callable
from typing import Any

import torch
from label_readings import Reading
from torch import Tensor, nn
from torch.nn import functional as F

from idc.accuracy import ON_CROSS_ENTROPY
from idc.attacks.threat import Threat
from idc.compute.hardware import unet_format
from idc.compute.modes import frozen
from idc.data import ImageSet
from idc.method.bridge import Bridge
from idc.noise import Streams, derive_seed
from idc.storage.saved import SavedClassifier
from idc.training.adversarial import ascend, random_start
from idc.training.cnn_objective import RobustAccuracy
from idc.training.objective import Call, ModelObjective, check_fits
from idc.training.recipe import Recipe
from idc.types import answered


class ReadObjective(ModelObjective):
    """``ce_weight`` times the cross-entropy of the reading, on images attacked along its smooth form, with the attack,
    the timestep and the noise of ``BridgeObjective`` at T-1. Its x_t there holds a thousandth of the true label as
    well, and this one none: every network sees the same, whatever it answers by.

    Args:
        model: whose ``trained`` network is called as a ``BridgeUNet`` is.
        recipe: the cross-entropy's weight and the attack.
        make: the reading, of the model on its device.
        noise: whether x_t has the bridge's noise; without it, it is the image.
    """

    model: SavedClassifier

    def __init__(
        self, model: SavedClassifier, recipe: Recipe, make: Callable[[Any, Recipe], Reading], *, noise: bool = True
    ) -> None:
        self.model, self.recipe, self.make, self.noise = model, recipe, make, noise
        self.bridge = Bridge(model.config.bridge)
        self.eps = recipe.eps

    def check(self, train: ImageSet) -> None:
        check_fits(train, self.model.input_shape, self.model.num_classes)

    def to(self, device: torch.device, *, bf16: bool) -> None:
        self.format = unet_format(device, batch_norm=self.model.config.unet.norm == "batch")
        self.model.to(device)
        self.network.to(memory_format=self.format)  # type: ignore[call-overload]  # torch's stubs lack it
        self.bridge.to(device)
        self.reading = self.make(self.model, self.recipe)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    def begin(self, done: float, *, replay: int) -> None:
        """The radius rises in the first ``eps_warmup`` of the run."""
        self.eps = self.recipe.eps * min(1.0, done / self.recipe.eps_warmup if self.recipe.eps_warmup else 1.0)

    def _timesteps(self, images: Tensor) -> Tensor:
        return torch.full((len(images),), self.model.config.bridge.timesteps - 1, device=images.device)

    def loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        threat = Threat(self.recipe.norm, self.eps)
        with frozen(self.network):
            start = random_start(images, threat, random)
            moved = self._climb(self.network, images, classes, start, threat, self.recipe.attack_steps)
        y, t = (2 * moved - 1).contiguous(memory_format=self.format), self._timesteps(images)
        x_t = y
        if self.noise:
            eps = torch.randn(y.shape, generator=random, device=y.device)
            x_t = self.bridge.sample(torch.zeros_like(y), y, t, eps).x_t
        point = self.reading.point(x_t, call(x_t, t, y))
        entropy = F.nll_loss(self.reading.learned(point, self.network), classes)
        return {"total": self.recipe.ce_weight * entropy, "entropy": entropy}

    def _point(self, network: nn.Module, images: Tensor) -> Tensor:
        """What the network says of images as they are."""
        y = 2 * images - 1
        with self.autocast:
            output = network(y, self._timesteps(images), y)
        return self.reading.point(y, output)

    def _climb(
        self, network: nn.Module, images: Tensor, classes: Tensor, start: Tensor, threat: Threat, steps: int
    ) -> Tensor:
        def entropy(x: Tensor) -> Tensor:
            return F.nll_loss(self.reading.climbed(self._point(network, x), network), classes, reduction="sum")

        step = self.recipe.attack_step or min(1.25, 2.5 / steps) * threat.eps
        return ascend(entropy, images, threat, steps=steps, step=step, start=start)

    # -- validation ----------------------------------------------------------------------------------------------------

    def validate(
        self, network: nn.Module, data: ImageSet, *, final: bool, bf16: bool, shard: tuple[int, int]
    ) -> Tensor:
        """(3,) float64: right as they are, right under PGD-10 with a start of their own, images."""
        counts = torch.zeros(3, dtype=torch.float64, device=data.images.device)
        threat = Threat(self.recipe.norm, self.recipe.eps)
        for chosen in torch.arange(len(data))[shard[0] :: shard[1]].split(500):
            images, classes = data.images[chosen].float().div(255), data.labels[chosen]
            start = threat.random(images, Streams(data.ids[chosen], derive_seed(self.recipe.seed, "validation")))
            worst = self._climb(network, images, classes, start, threat, 10)
            right = [self._right(network, x, classes) for x in (images, worst)]
            counts += torch.stack([*right, classes.new_tensor(len(chosen))])
        return counts

    def _right(self, network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        with torch.no_grad():
            return (answered(self.reading.answer(self._point(network, images), network)) == classes).sum()

    def judged(self, counts: Tensor, *, final: bool) -> RobustAccuracy:
        right, robust, images = counts.tolist()
        shares = right / max(images, 1), robust / max(images, 1)
        return RobustAccuracy(*shares, int(images), self.recipe.eps, attacked_by=ON_CROSS_ENTROPY)

    def restored(self, values: dict[str, Any]) -> RobustAccuracy:
        return RobustAccuracy(**{"attacked_by": ON_CROSS_ENTROPY} | values)
