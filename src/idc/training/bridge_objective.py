"""IDC's own training: the losses of the Brownian bridge."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from idc.accuracy import BridgeAccuracy, accuracy, from_counts
from idc.compute.hardware import unet_format
from idc.compute.modes import evaluation_mode
from idc.data import ImageSet
from idc.errors import IDCError
from idc.method.bridge import BridgeSample
from idc.method.calibration import FACT as CALIBRATION
from idc.method.calibration import calibrate
from idc.method.classifier import IDC
from idc.method.loss import answer_distances, label_logits
from idc.storage.fields import recorded, written
from idc.training.adversarial import random_start
from idc.training.bridge_losses import bridge_terms
from idc.training.class_objective import ClassObjective
from idc.training.objective import Call
from idc.training.recipe import Recipe
from idc.training.robust_losses import classify
from idc.training.targets import Targets


class BridgeObjective(ClassObjective):
    """IDC: the intra-class and inter-class losses of the Brownian bridge (see ``idc.method.loss``).

    With ``recipe.eps`` the image end of the bridge is attacked in every step, by PGD on the one-step answer through its
    smooth surrogate (no clamp, inner product with the labels). ``recipe.method`` says what is made of it: the losses of
    the attacked images (as PGD-AT); those of clean ones and the distance between the x0 predictions of both
    (consistency); or TRADES or MART in place of the cross-entropy of ``idc.method.loss.label_logits``.

    With ``recipe.mix`` an image is part of two classes: its loss is ``share L(a) + (1 - share) L(b)``, each L the whole
    loss, intra-class, inter-class and cross-entropy, of the same output with one of them as the true class, and so is
    what an attack raises (see ``idc.training.targets``). That needs an x_t which shows no label, as at T-1 alone: at an
    earlier t, x_t is made of one label and would contradict the other.

    Args:
        model: a fresh classifier.
        recipe: its weights of the losses and of the timesteps, and the attack.
    """

    model: IDC
    recipe: Recipe

    def __init__(self, model: IDC, recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self.replays = recipe.replays
        self.answers: list[tuple[Tensor, Tensor]] = []  # of the last final validation: distances, true classes

    def check(self, train: ImageSet) -> None:
        super().check(train)
        timesteps = self.model.config.bridge.timesteps
        if self.recipe.t_weights and len(self.recipe.t_weights) != timesteps:
            given = written(self.recipe.t_weights)
            raise IDCError(f"t_weights = {given}", f"{timesteps} numbers, one a timestep", "or give none: uniform")
        if not self.recipe.t_weights or any(self.recipe.t_weights[:-1]):
            alone = f"--t-weights {'0,' * (timesteps - 1)}1 --visits {timesteps - 1}"
            early = "timesteps before the last one, whose input shows the true label"
            self.recipe.refuse(early, "mix", remedy=f"leave mix out, or give {alone}")

    def to(self, device: torch.device, *, bf16: bool) -> None:
        self.format = unet_format(device, batch_norm=self.model.config.unet.norm == "batch")
        super().to(device, bf16=bf16)
        self.model.unet.to(memory_format=self.format)  # type: ignore[call-overload]  # torch's stubs lack it
        self.labels = 2 * self.model.labels - 1
        self.products = self.model.inner_products()
        weights = self.recipe.t_weights or (1.0,) * self.model.config.bridge.timesteps
        self.t_weights = torch.tensor(weights, device=device)

    def begin(self, done: float, *, replay: int) -> None:
        super().begin(done, replay=replay)
        if replay == 0:
            self.moved: Tensor | None = None

    def end(self) -> None:
        super().end()
        if self.moved is not None:
            self._climb_free(self.moved)

    def _loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        images, targets = self.batch(images, classes, random)
        if self.recipe.sigma > 0:
            noise = torch.randn(images.shape, generator=random, device=images.device)
            images = (images + self.recipe.sigma * noise).clamp(0, 1)  # as idc certify asks the model
        moved = images
        if self.attacks:
            attack = self._attacked_free if self.recipe.replays > 1 else self._attacked
            moved = attack(images, targets.answer, random)
        both = self.attacks and self.recipe.compares
        # Clean and attacked images go through the same point of the bridge, in one call of the network.
        y = 2 * (torch.cat([images, moved]) if both else moved) - 1
        copies = len(y) // len(images)
        t = torch.multinomial(self.t_weights, len(images), replacement=True, generator=random).repeat(copies)
        eps = torch.randn(images.shape, generator=random, device=y.device).repeat(copies, 1, 1, 1)
        x0 = self.labels[targets.classes.repeat(copies)]
        sample = self.model.bridge.sample(x0, y.contiguous(memory_format=self.format), t, eps)
        if self.recipe.rollout > 0:
            sample = self._rolled_out(sample, len(images), random)
        if self.shifts:
            with self.autocast:
                output = self.network(sample.x_t, t, sample.y)
            self.shift.up(self._losses(sample, output, targets)["total"])
        return self._losses(sample, call(sample.x_t, t, sample.y), targets)

    def _rolled_out(self, sample: BridgeSample, count: int, random: torch.Generator) -> BridgeSample:
        """``sample``, copies of ``count`` images, with the x_t of ``recipe.rollout`` of them as the chain meets it:
        made of what the network predicts at T-1, where x_t is the image. The network learns to correct itself rather
        than to trust x_t, which shows the label as long as it is made of it."""
        last = self.model.one_step_visits[0]
        with torch.no_grad(), evaluation_mode(self.network), self.autocast:
            output = self.network(sample.y, torch.full_like(sample.t, last), sample.y)
        predicted = self.model.bridge.sample((sample.y - output).clamp(-1, 1), sample.y, sample.t, sample.eps).x_t
        chosen = torch.rand(count, generator=random, device=sample.t.device) < self.recipe.rollout
        chosen = chosen.repeat(len(sample.t) // count)  # alike for a clean image and its attacked copy
        x_t = torch.where((chosen & (sample.t < last)).view(-1, 1, 1, 1), predicted.to(sample.x_t.dtype), sample.x_t)
        return replace(sample, x_t=x_t, target=x_t - sample.x0)

    def _losses(self, sample: BridgeSample, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Means over the images; of two copies of each, the first are clean and the second attacked. Then the bridge's
        losses are those of clean images, with MART, whose cross-entropy is that of attacked ones, of these."""
        recipe, count = self.recipe, len(targets.classes)
        both = len(output) > count
        part, own = sample, output
        if both:
            chosen = slice(count, None) if recipe.method == "mart" else slice(count)
            part, own = sample.take(chosen), output[chosen]
        found = bridge_terms(part, own, self.labels, targets, recipe)
        if recipe.ce_weight > 0:
            compared = both and recipe.method != "consistency"
            given = (sample, output) if compared else (part, own)
            logits = label_logits(*given, self.labels, temperature=recipe.ce_temperature)
            entropy = classify(logits, targets, recipe.method, recipe.beta)
            found["total"] = found["total"] + recipe.ce_weight * entropy.pop("total")
            found |= entropy
        if both and recipe.method == "consistency":
            clean, attacked = (sample.x_t - output).chunk(2)
            away = (attacked - clean).abs().mean()
            found |= {"total": found["total"] + recipe.beta * away, "consistency": away}
        return found

    # -- the attack ----------------------------------------------------------------------------------------------------

    def _one_step(self, network: nn.Module, images: Tensor) -> Tensor:
        """x0_hat (B, C, H, W) on [-1, 1] of the one-step answer, without its clamp."""
        y = 2 * images - 1
        t = torch.full((), self.model.one_step_visits[0], dtype=torch.int64, device=y.device)
        with self.autocast:
            return y - network(y, t, y)

    def answer_logits(self, network: nn.Module, images: Tensor) -> Tensor:
        distances = answer_distances(self._one_step(network, images).float(), self.labels)
        return -distances / self.recipe.ce_temperature

    def _surrogate(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, K) of the one-step answer without its clamp: inner products of x0_hat with the labels."""
        weights, offsets = self.products
        products = self._one_step(network, images).flatten(1) @ weights.T - offsets
        return products / (weights.shape[1] * self.recipe.attack_temperature)

    def _attacked_free(self, images: Tensor, answer: Tensor, random: torch.Generator) -> Tensor:
        """The point that the batch's earlier replays climbed to, as a leaf whose gradient the training's backward pass
        leaves (Shafahi et al., "Adversarial Training for Free!", NeurIPS 2019; theirs goes on from batch to batch, this
        one starts each at random, so that a resumed run is the same)."""
        if self.moved is None:
            self.centre, self.moved = images, random_start(images, self.threat, random)
        self.moved = self.moved.detach().requires_grad_(True)
        return self.moved

    def _climb_free(self, moved: Tensor) -> None:
        assert moved.grad is not None  # of the training's loss, at the timestep that it drew
        threat = self.threat
        step = self.step_length(threat.eps)
        self.moved = threat.project(moved.detach() + step * threat.steepest(moved.grad), self.centre)

    # -- validation ----------------------------------------------------------------------------------------------------

    def validate(
        self, network: nn.Module, data: ImageSet, *, final: bool, bf16: bool, shard: tuple[int, int]
    ) -> Tensor:
        """Counts (4,), with ``recipe.eps`` (8,): of images as they are, and under ``worst``."""
        model = self.model.with_network(network)
        measure = partial(accuracy, model, data, draws=self._draws(final), bf16=bf16, shard=shard)
        self.answers = []
        keep = (lambda found, classes: self.answers.append((found.distances, classes))) if final else None
        found = measure(seen=keep)[1]
        if not self.recipe.eps:
            return found

        def move(images: Tensor, classes: Tensor, ids: Tensor) -> Tensor:
            return self._worst(partial(self._surrogate, network), images, classes, ids)

        return torch.cat([found, measure(move=move)[1]])

    def judged(self, counts: Tensor, *, final: bool) -> BridgeAccuracy:
        return from_counts(counts, self._draws(final), eps=self.recipe.eps)

    def facts(self) -> dict[str, Any]:
        """The calibration of the model's answer, see ``idc.method.calibration``."""
        if not self.answers:
            return {}
        distances, classes = (torch.cat(each) for each in zip(*self.answers, strict=True))
        config = self.model.config
        found = calibrate(
            distances, classes, draws=self._draws(True) or 1, visits=config.visits, eta=config.bridge.eta
        )  # fmt: skip
        return {CALIBRATION: recorded(found)} if found else {}

    def restored(self, values: dict[str, Any]) -> BridgeAccuracy:
        return BridgeAccuracy.from_dict(values)

    def _draws(self, final: bool) -> int:
        """Of the chain, if the model has one."""
        return 0 if self.model.answers_in_one_step else 10 if final else 1

    def pictures(self, network: nn.Module, data: ImageSet, *, count: int = 8) -> tuple[str, Tensor]:
        """Images, their one-step and multi-step translations, their true labels."""
        model = self.model.with_network(network)
        images = data.images[:count].float().div(255)
        with torch.no_grad():
            one = model.one_step.translate(images)
            many = model.translate(images, generator=torch.Generator().manual_seed(0))
        rows = [images, one, many, model.labels[data.labels[:count]]]
        grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        return "image, one-step, multi-step, label", grid.clamp(0, 1).float().cpu()
