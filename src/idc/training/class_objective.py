"""What the trainings of IDC and of a CNN on classes have in common: the batch, its targets, and the attack's course."""

import torch
from torch import Tensor

from idc.attacks.threat import Threat
from idc.data.mixing import mix
from idc.method.classifier import IDC
from idc.peers.cnn import CNN
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
        self.threat = Threat(recipe.norm, recipe.eps)  # refuses an impossible eps before anything is written
        self.eps = recipe.eps  # at this point of the run

    def to(self, device: torch.device, *, bf16: bool) -> None:
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    def batch(self, images: Tensor, classes: Tensor, random: torch.Generator) -> tuple[Tensor, Targets]:
        """Images (B, C, H, W) and what their answers should be: mixed with one another as the recipe says."""
        recipe = self.recipe
        mixed = mix(images, classes, recipe.mix, recipe.mix_rate, random)
        images = mixed.images if mixed else images
        return images, targets(classes, self.model.num_classes, mixed=mixed, smoothing=recipe.label_smoothing)
