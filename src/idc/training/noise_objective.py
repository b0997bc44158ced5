"""Training the diffusion model of a peer: DDPM's loss (Ho, Jain and Abbeel, NeurIPS 2020, equation 14)."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idc.compute.hardware import unet_format
from idc.data import ImageSet
from idc.errors import IDCError
from idc.noise import normal
from idc.peers.diffusion import Diffusion
from idc.training.objective import Call, ModelObjective
from idc.training.recipe import NoiseRecipe

_LEVELS = 10  # timesteps of a validation, evenly over the schedule


@dataclass(frozen=True, slots=True)
class NoiseError:
    """Mean squared error of the predicted noise, on ``images`` at evenly spread timesteps; 1 is a prediction of 0."""

    mse: float
    images: int

    @property
    def score(self) -> float:
        """Smaller errors are better."""
        return 1 / (1 + self.mse)

    def to_dict(self) -> dict[str, float]:
        """The fields, JSON-ready."""
        return asdict(self)

    def shares(self) -> dict[str, float]:
        """Nothing is answered."""
        return {}

    def text(self) -> str:
        """For people."""
        return f"noise error {self.mse:.4f} ({self.images} images)"


class NoiseObjective(ModelObjective):
    """The squared error of the predicted noise, at uniform timesteps.

    Args:
        model: a fresh diffusion model.
        recipe: the training's settings.
    """

    model: Diffusion

    def __init__(self, model: Diffusion, recipe: NoiseRecipe) -> None:
        self.model, self.recipe = model, recipe

    def check(self, train: ImageSet) -> None:
        if train.shape != self.model.config.image_shape:
            raise IDCError(f"images of {train.shape}", f"{self.model.config.image_shape}", "use data of that shape")

    def to(self, device: torch.device, *, bf16: bool) -> None:
        self.model.to(device)
        self.network.to(memory_format=unet_format(device))  # type: ignore[call-overload]  # torch's stubs lack it

    def loss(self, call: Call, images: Tensor, classes: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        config, device = self.model.config, images.device
        t = torch.randint(config.timesteps, (len(images),), generator=random, device=device)
        eps = torch.randn(images.shape, generator=random, device=device)
        known = None
        if config.num_classes:
            hidden = torch.rand(len(images), generator=random, device=device) < self.recipe.drop
            known = torch.where(hidden, self.model.no_class, classes)
        away = self._error(call, 2 * images - 1, t, eps, known)
        if self.recipe.min_snr:
            snr = self.model.alphas[t] / (1 - self.model.alphas[t])
            away = away * snr.clamp(max=self.recipe.min_snr) / snr
        return {"total": away.mean()}

    def _error(self, call: Call, x0: Tensor, t: Tensor, eps: Tensor, classes: Tensor | None) -> Tensor:
        """(B,) mean squared error; ``call`` is the U-Net."""
        x_t = self.model.noised(x0, t, eps)
        found = self.model.through(call, x_t, t, classes)
        return (found.float() - eps).square().flatten(1).mean(1)

    @torch.no_grad()
    def validate(
        self, network: nn.Module, data: ImageSet, *, final: bool, bf16: bool, shard: tuple[int, int]
    ) -> Tensor:
        """(2,) float64: summed errors, images."""
        device, total = data.images.device, self.model.config.timesteps
        counts = torch.zeros(2, dtype=torch.float64, device=device)
        for chosen in torch.arange(len(data))[shard[0] :: shard[1]].split(200):
            images, classes, ids = data.images[chosen].float().div(255), data.labels[chosen], data.ids[chosen]
            noise = normal(ids.to(device), tuple(images.shape[1:]), seed=self.recipe.seed, draws=_LEVELS)
            for level, eps in enumerate(noise):
                t = torch.full((len(images),), int((level + 0.5) * total / _LEVELS), device=device)
                known = classes if self.model.config.num_classes else None
                counts[0] += self._error(network, 2 * images - 1, t, eps, known).sum() / _LEVELS
            counts[1] += len(images)
        return counts

    def judged(self, counts: Tensor, *, final: bool) -> NoiseError:
        error, images = counts.tolist()
        return NoiseError(error / max(images, 1), int(images))

    def restored(self, values: dict[str, Any]) -> NoiseError:
        return NoiseError(**values)

    @torch.no_grad()
    def pictures(self, network: nn.Module, data: ImageSet, *, count: int = 8) -> tuple[str, Tensor]:
        """Samples, one of each class if it knows any, in 50 steps."""
        model = self.model.with_network(network).eval()
        random = torch.Generator().manual_seed(0)
        found = model.samples(count, random).clamp(0, 1).cpu()
        return "samples", torch.cat(list(found), dim=2)
