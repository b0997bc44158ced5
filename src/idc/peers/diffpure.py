"""DiffPure (Nie et al., "Diffusion Models for Adversarial Purification", ICML 2022): diffuse, denoise, classify."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from idc.errors import IDCError
from idc.peers.diffusion import Diffusion
from idc.types import ClassifierDefaults, Logits, check_images, completed, says_required


class DiffPure(nn.Module, ClassifierDefaults):
    """A classifier behind a purifier: images (B, C, H, W) in [0, 1] -> logits (B, K).

    The image is diffused to t*, a share of the schedule, and denoised again in ``steps`` evaluations of the network.

    Args:
        diffusion: the denoiser; a class-conditional one is asked without a class.
        classifier: of the purified images.
        depth: t* in [0, 1); 0.1 in the paper for CIFAR-10. At 0 nothing is purified.
        steps: evaluations of the denoiser; t* T / steps must be a whole number that divides T.
        eta: share of the sampler's noise: 1 is DDPM's (the paper's SDE), 0 is DDIM.

    Raises:
        IDCError: if the two models do not fit, or the steps do not divide the schedule.
    """

    def __init__(
        self, diffusion: Diffusion, classifier: nn.Module, *, depth: float = 0.1, steps: int = 10, eta: float = 1.0
    ) -> None:
        super().__init__()
        if not says_required(classifier) or classifier.input_shape != diffusion.config.image_shape:
            raise IDCError("diffpure", f"a classifier of {diffusion.config.image_shape}", "use models of the same data")
        if not 0 <= depth < 1:
            raise IDCError(f"depth = {depth}", "t*, a share of the schedule in [0, 1)", "use 0.1, as the paper does")
        if not 0 <= eta <= 1:
            raise IDCError(f"eta = {eta}", "a number in [0, 1]", "use 1 (DDPM) or 0 (DDIM)")
        self.diffusion = diffusion
        self.classifier: Any = completed(classifier)
        cards = {"diffusion": diffusion.card, "classifier": self.classifier.card}
        known = [f"{name} {card['Training']}" for name, card in cards.items() if "Training" in card]
        self.card = {"Training": "; ".join(known)} if known else {}
        self.config = {"depth": depth, "steps": steps, "eta": eta}
        self.depth, self.steps, self.eta = depth, steps, eta
        self.level = round(depth * diffusion.config.timesteps)
        self._schedulers: dict[int, Any] = {}  # by steps; a call of the model need not make them anew
        self._scheduler(steps)

    @property
    def num_classes(self) -> int:
        return int(self.classifier.num_classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.diffusion.config.image_shape

    @property
    def stochastic(self) -> bool:
        return self.level > 0 or bool(self.classifier.stochastic)

    @property
    def class_names(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self.classifier.class_names
        return names or tuple(map(str, range(self.num_classes)))

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is counted as a network evaluation."""
        return (self.diffusion.unet, self.classifier)

    def _scheduler(self, steps: int) -> Any:
        """A sampler that visits ``steps`` timesteps, evenly from t* down."""
        if steps in self._schedulers:
            return self._schedulers[steps]
        if self.level and (steps < 1 or not self._allows(steps)):
            good = [n for n in range(1, self.level + 1) if self._allows(n)]
            raise IDCError(f"steps = {steps}", f"one of {', '.join(map(str, good[:12]))} for this t*", "change either")
        stride = max(self.level // steps if steps > 0 else 0, 1)
        scheduler = self.diffusion.scheduler(timestep_spacing="leading", steps_offset=stride - 1, set_alpha_to_one=True)
        scheduler.set_timesteps(self.diffusion.config.timesteps // stride)
        self._schedulers[steps] = scheduler
        return scheduler

    def purify(self, images: Tensor, *, steps: int | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same, diffused and denoised; beyond [0, 1] by a little, and differentiable.

        Noise comes from the global generator, once for the diffusion and once a step.
        """
        if not self.level:
            return images
        x = self._diffused(images)
        scheduler = self._scheduler(steps or self.steps)
        for t in scheduler.timesteps[-(steps or self.steps) :]:
            eps = self.diffusion(x, t.to(x.device))
            noise = torch.randn_like(x) if self.eta > 0 else None
            x = scheduler.step(eps, int(t), x, eta=self.eta, variance_noise=noise).prev_sample
        return (x + 1) / 2

    def _diffused(self, images: Tensor) -> Tensor:
        last = torch.tensor(self.level - 1, device=images.device)
        return self.diffusion.noised(2 * images - 1, last, torch.randn_like(images))

    def _one_step(self, images: Tensor) -> Tensor:
        x, last = self._diffused(images), torch.tensor(self.level - 1, device=images.device)
        return (self.diffusion.denoised(x, last, self.diffusion(x, last)) + 1) / 2

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.input_shape)
        logits: Tensor = self.classifier(self.purify(images).clamp(0, 1))
        return logits

    def surrogates(self) -> Mapping[str, Logits]:
        """The classifier alone; and behind the purifier without its clamp: the whole chain, a chain of few steps, the
        one-step estimate of the clean image, and the whole chain taken for the identity (BPDA)."""
        if not self.level:
            return dict(self.classifier.surrogates())
        few = next(n for n in range(2 if self.level > 1 else 1, self.level + 1) if self._allows(n))

        def read(purified: Tensor) -> Tensor:
            logits: Tensor = self.classifier(purified + (purified.clamp(0, 1) - purified).detach())
            return logits

        def identity(images: Tensor) -> Tensor:
            with torch.no_grad():
                away = self.purify(images) - images
            return read(images + away)

        return {
            "chain": lambda images: read(self.purify(images)),
            "few-steps": lambda images: read(self.purify(images, steps=few)),
            "one-step": lambda images: read(self._one_step(images)),
            "identity": identity,
            "classifier": lambda images: self.classifier(images),
        }

    def _allows(self, steps: int) -> bool:
        stride = self.level // steps
        return self.level % steps == 0 and self.diffusion.config.timesteps % stride == 0
