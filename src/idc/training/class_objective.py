"""What the trainings of IDC and of a CNN on classes have in common: the batch, its targets, and the attack's course."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from idc.attacks.threat import Threat
from idc.compute.modes import evaluation_mode, frozen
from idc.data import ImageSet
from idc.data.mixing import mix
from idc.data.strong import strongly_augmented
from idc.method.classifier import IDC
from idc.noise import Streams, derive_seed
from idc.peers.cnn import CNN
from idc.training.adversarial import WeightShift, ascend, divergence, random_start, worst
from idc.training.objective import Call, ModelObjective, check_fits
from idc.training.recipe import CNNRecipe, Recipe
from idc.training.split_norm import halves, plain_norms, split_norms
from idc.training.targets import Targets, annealed, rectified, targets
from idc.training.teachers import Teachers


class ClassObjective(ModelObjective):
    """An objective on classes, maybe under attack.

    Args:
        model: a fresh classifier.
        recipe: all settings.
    """

    model: IDC | CNN
    recipe: Recipe | CNNRecipe

    def __init__(self, model: IDC | CNN, recipe: Recipe | CNNRecipe) -> None:
        self.model, self.recipe = model, recipe
        Threat(recipe.norm, recipe.eps)  # refuses an impossible eps before anything is written
        self.eps, self.done = recipe.eps, 0.0
        self.averaged: Callable[[], nn.Module] = lambda: self.network
        self.teachers = Teachers(recipe.teachers) if recipe.teachers else None
        if recipe.strong_branch:
            split_norms(self.network)

    def check(self, train: ImageSet) -> None:
        check_fits(train, self.model.input_shape, self.model.num_classes)
        if self.teachers:
            self.teachers.check(train)

    def to(self, device: torch.device, *, bf16: bool) -> None:
        self.model.to(device)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
        self.shift = WeightShift(self.network, self.recipe.weight_perturbation)
        if self.teachers:
            self.teachers.to(device, bf16=bf16)

    def follow(self, averaged: Callable[[], nn.Module]) -> None:
        self.averaged = averaged

    def begin(self, done: float, *, replay: int) -> None:
        """The radius rises in the first ``eps_warmup`` of the run."""
        self.done, warmup = done, self.recipe.eps_warmup
        self.eps = self.recipe.eps * min(1.0, done / warmup if warmup else 1.0)

    def end(self) -> None:
        self.shift.back()

    @property
    def attacks(self) -> bool:
        """Whether this step attacks its images; where the radius still rises, the first one does not."""
        return self.recipe.adversarial and self.eps > 0

    @property
    def shifts(self) -> bool:
        """Whether this step takes its gradient at perturbed weights."""
        return self.attacks and self.recipe.weight_perturbation > 0 and self.done >= self.recipe.awp_start

    @property
    def threat(self) -> Threat:
        """What the attack may do in this step."""
        return Threat(self.recipe.norm, self.eps)

    def step_length(self, usual: float) -> float:
        """Of a step of the attack, unless the recipe says it ``usual``."""
        return self.recipe.step_share * self.eps or self.recipe.attack_step or usual

    def usual_step(self) -> float:
        """Length of a step of the attack where the recipe leaves it open."""
        return min(1.25, 2.5 / self.recipe.attack_steps) * self.eps

    def branches(self, network: nn.Module, block: int) -> AbstractContextManager[None]:
        """Inside, a batch of ``network`` is so many images as they are and as many strongly augmented ones in turn, if
        the recipe says so."""
        return halves(network, block) if self.recipe.strong_branch else nullcontext()

    def save(self, network: nn.Module, folder: Path, card: dict[str, Any]) -> None:
        super().save(plain_norms(network) if self.recipe.strong_branch else network, folder, card)

    def load(self, network: nn.Module, folder: Path) -> None:
        if not self.recipe.strong_branch:
            super().load(network, folder)
            return
        plain = plain_norms(network)  # of which the file holds all; the second statistics stay as they are
        super().load(plain, folder)
        network.load_state_dict(network.state_dict() | plain.state_dict())

    def answer_logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, K) that the cross-entropy is of, of ``network`` for images (B, C, H, W)."""
        raise NotImplementedError

    def _surrogate(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, K) along which the attack goes: the answer's, where nothing is easier to differentiate."""
        return self.answer_logits(network, images)

    def _attacked(self, images: Tensor, answer: Tensor, random: torch.Generator) -> Tensor:
        """``images`` moved to raise the cross-entropy of the surrogate towards ``answer``, see ``Targets``, or for
        TRADES the divergence from its answer to clean images, with BatchNorm's statistics as they are."""
        network, trades = self.network, self.recipe.method == "trades"  # not distributed: for images alone
        with frozen(network):
            if trades:
                with torch.no_grad():
                    before = self._surrogate(network, images).clone()  # a compiled network may write over it

            def loss(x: Tensor) -> Tensor:
                logits = self._surrogate(network, x)
                return divergence(logits, before).sum() if trades else cross_entropy(logits, answer, reduction="sum")

            start = random_start(images, self.threat, random, share=0.01 if trades else 1.0)
            steps, step = self.recipe.attack_steps, self.step_length(self.usual_step())
            return ascend(loss, images, self.threat, steps=steps, step=step, start=start)

    def _worst(self, logits: Callable[[Tensor], Tensor], images: Tensor, classes: Tensor, ids: Tensor) -> Tensor:
        """Validation images under ``worst`` within the whole radius, also while it still rises, from starts by id."""
        threat = Threat(self.recipe.norm, self.recipe.eps)
        streams = Streams(ids, derive_seed(self.recipe.seed, "validation"))
        return worst(logits, images, classes, threat, start=threat.random(images, streams))

    def loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        with self.branches(self.network, len(images)):
            return self._loss(call, images, classes, random)

    def _loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """``loss`` within ``branches``."""
        raise NotImplementedError

    def batch(self, images: Tensor, classes: Tensor, random: torch.Generator) -> tuple[Tensor, Targets]:
        """Images (B, C, H, W) and what their answers should be: mixed with one another, followed by as many strongly
        augmented ones, and with targets made softer, as the recipe says."""
        recipe = self.recipe
        if recipe.strong_branch:
            images = torch.cat([images, strongly_augmented(images, random)])
            classes = classes.repeat(2)
        mixed = mix(images, classes, recipe.mix, recipe.mix_rate, random)
        images = mixed.images if mixed else images
        made = targets(classes, self.model.num_classes, mixed=mixed, smoothing=recipe.label_smoothing)
        if recipe.rectify:
            share = annealed(recipe.rectify, self.done)
            made = replace(made, answer=rectified(made.answer, self._softened(images), share))
        return images, made

    @torch.no_grad()
    def _softened(self, images: Tensor) -> Tensor:
        """(B, K): what the teachers, or else the network with its averaged weights, make of unattacked images."""
        heat = annealed(self.recipe.rectify_temperature, self.done)
        if self.teachers:
            return self.teachers(images, heat=heat)
        teacher = self.averaged()
        with evaluation_mode(teacher), self.branches(teacher, len(images) // 2):
            logits = self.answer_logits(teacher, images)
        return (logits / heat).softmax(1)
