"""What the trainings of IDC and of a CNN on classes have in common: the batch, its targets, and the attack's course."""

import torch
from torch import Tensor

from idc.attacks.threat import Threat
from idc.data.mixing import mix
from idc.method.classifier import IDC
from idc.peers.cnn import CNN
from idc.training.adversarial import WeightShift
from idc.training.objective import ModelObjective
from idc.training.recipe import CNNRecipe, Recipe
from idc.training.targets import Targets, targets


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

    def to(self, device: torch.device, *, bf16: bool) -> None:
        self.model.to(device)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
        self.shift = WeightShift(self.network, self.recipe.weight_perturbation)

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

    def batch(self, images: Tensor, classes: Tensor, random: torch.Generator) -> tuple[Tensor, Targets]:
        """Images (B, C, H, W) and what their answers should be: mixed with one another as the recipe says."""
        recipe = self.recipe
        mixed = mix(images, classes, recipe.mix, recipe.mix_rate, random)
        images = mixed.images if mixed else images
        return images, targets(classes, self.model.num_classes, mixed=mixed, smoothing=recipe.label_smoothing)
