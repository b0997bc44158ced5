"""The batches of a run: images and augmentation of a step follow from (seed, step, process) alone."""

import torch
from torch import Tensor

from idc.data import ImageSet
from idc.noise import derive_seed
from idc.training.settings import Settings


class Batches:
    """One process's share of the batches.

    Args:
        train: on the device where batches are made.
        recipe: its batch size, augmentation and seed.
        replays: steps in a row that see the same images.
        rank, world: this process and how many there are.
    """

    def __init__(self, train: ImageSet, recipe: Settings, *, replays: int, rank: int, world: int) -> None:
        self.train, self.recipe, self.replays, self.rank, self.world = train, recipe, replays, rank, world
        self.size = max(1, min(recipe.batch_size, len(train)) // world)
        self.per_epoch = len(train) // (self.size * world)
        self.random = torch.Generator(train.images.device)
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1], augmented, and classes (B,) of a step; ``random``, and the global generator,
        of which dropout draws, are then at that step's beginning."""
        replay = step % self.replays
        chosen = self._chosen(step)
        self._seed(step - replay)
        images = self.recipe.augmentation(self.train.images[chosen], self.random)
        if replay:
            self._seed(step)  # the same images, but noise of its own for each time
        return images, self.train.labels[chosen]

    def _chosen(self, step: int) -> Tensor:
        epoch, index = divmod(step // self.replays, self.per_epoch)
        if self.order[0] != epoch:
            random = torch.Generator().manual_seed(derive_seed(self.recipe.seed, "order", epoch))
            self.order = epoch, torch.randperm(len(self.train), generator=random).to(self.train.images.device)
        first = (index * self.world + self.rank) * self.size
        return self.order[1][first : first + self.size]

    def _seed(self, step: int) -> None:
        seed = derive_seed(self.recipe.seed, "step", step, self.rank)
        torch.manual_seed(seed + 1)
        self.random.manual_seed(seed)
