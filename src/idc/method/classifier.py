"""``IDC``: the image-to-image diffusion classifier, from images to distances, logits and predictions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from idc.compute.hardware import uses_bf16
from idc.compute.modes import evaluation_mode
from idc.data.held import Held, as_images
from idc.errors import IDCError
from idc.method.bridge import Bridge
from idc.method.calibration import Calibration, of_card
from idc.method.config import IDCConfig, card_head, config_from_dict
from idc.method.labels import distances_to_labels, fingerprint, inner_products, orthogonal_labels, to_unit
from idc.method.prediction import DRAWS, Prediction, decide, identities
from idc.method.reverse import Noise, Reverse, Step, image_end, noise_of_images, noise_source, of_each
from idc.method.surrogates import surrogates
from idc.method.unet import BridgeUNet
from idc.storage.fields import short
from idc.storage.saved import SavedClassifier
from idc.types import Logits, check_images

__all__ = ["IDC", "IDCConfig", "Prediction"]


class IDC(SavedClassifier):
    """Translates an image into one of K image labels and answers with the nearest.

    Images are always (B, C, H, W), floating point, in [0, 1].

    Args:
        config: see ``IDCConfig``.
        labels: (K, C, H, W) in [0, 1], if ``config.label_kind`` says that they are one's own.
    """

    key, part = "classifier", "unet"

    def __init__(self, config: IDCConfig, labels: Tensor | None = None) -> None:
        super().__init__(config)
        self.config: IDCConfig = config
        self.bridge = Bridge(config.bridge)
        self.bridge.check_visits(config.visits)
        self.unet: nn.Module = self.build(config)
        if labels is None or not config.own_labels:
            labels = orthogonal_labels(
                config.num_classes, config.image_shape, seed=config.label_seed,
                kind=config.label_kind, cell=config.label_cell,
            )  # fmt: skip
        self.labels: Tensor
        self.register_buffer("labels", labels, persistent=config.own_labels)
        self.checkpointing = False  # recompute each evaluation in the backward pass: the memory of one, not of all

    @property
    def labels_sha256(self) -> str:
        """See ``idc.method.labels.fingerprint``."""
        return fingerprint(self.labels)

    @property
    def one_step_visits(self) -> tuple[int, ...]:
        """Visits of the one-step answer: T-1 alone, which draws no noise."""
        return (self.config.bridge.timesteps - 1,)

    @property
    def one_step(self) -> "IDC":
        """This model with the one-step answer: one network evaluation, no noise. The weights are shared."""
        return self.with_answer(visits=self.one_step_visits)

    @property
    def answers_in_one_step(self) -> bool:
        """Whether the answer is the one-step answer."""
        return self.config.visits == self.one_step_visits

    @property
    def stochastic(self) -> bool:
        """Whether the answer draws noise."""
        return len(self.config.visits) > 1 and self.config.bridge.eta > 0

    @property
    def calibration(self) -> Calibration | None:
        """What validation images said of this answer, when it was trained; None if nothing is known of it."""
        return of_card(self.card, visits=self.config.visits, eta=self.config.bridge.eta)

    shares_draws = True  # see Classifier: the first evaluation sees no noise
    one_pass = answers_in_one_step  # see Classifier

    def with_answer(
        self, *, visits: Sequence[int] | None = None, eta: float | None = None, mirrored: bool = False
    ) -> "IDC":
        """This model with another answer. The weights are shared, not copied.

        Args:
            visits: timesteps from T-1 down; by default this model's. (T-1,) is the one-step answer.
            eta: share of the noise, in [0, 1]; by default this model's.
            mirrored: for the image and its mirror image, in twice the FLOPs, see ``UNetSpec``; without calibration.

        Raises:
            IDCError: for visits or eta out of range, or ``mirrored`` of an answer in several steps.
        """
        bridge = self.config.bridge if eta is None else replace(self.config.bridge, eta=eta)
        chosen = self.config.visits if visits is None else self.bridge.check_visits(visits)
        changes = mirrored and not self.config.unet.mirrored
        network = cast(BridgeUNet, self.unet).as_mirrored() if changes else self.unet
        other = self.with_network(network)
        spec = replace(self.config.unet, mirrored=mirrored or self.config.unet.mirrored)
        other.config = replace(self.config, bridge=bridge, visits=chosen, unet=spec)
        if changes:
            other.card = {key: value for key, value in self.card.items() if key != "calibration"}
        return other

    def with_precision(self, precision: str) -> "IDC":
        """This model with its network in another precision; bridge, distances and logits stay float32.

        Args:
            precision: "fp32", "bf16", or "auto": bf16 where the device multiplies it.

        Raises:
            IDCError: for another word.
        """
        other = self.with_network(self.unet)
        other.bf16 = uses_bf16(precision, self.labels.device)
        return other

    # -- the chain -----------------------------------------------------------------------------------------------------

    def reverse(self, *, clip: bool | None = None) -> Reverse:
        """The reverse process of this network; ``clip`` as configured, unless it is given."""
        clip = self.config.clip if clip is None else clip
        return Reverse(self.unet, self.bridge, clip, bf16=self.bf16, checkpointing=self.checkpointing)

    def _steps(self, images: Tensor, noise: Noise, draws: int = 1) -> Iterator[Step]:
        """The reverse process from ``images`` on, visits and eta as configured; see ``Reverse.steps``."""
        config = self.config
        end = image_end(images, self.labels)
        return self.reverse().steps(end, config.visits, eta=config.bridge.eta, noise=noise, draws=draws)

    def _differing(self, draws: int) -> int:
        """How many of ``draws`` of the answer are not the same.

        Raises:
            IDCError: for less than one.
        """
        if not isinstance(draws, Integral) or draws < 1:
            remedy = "leave it out, or use 10 or more for a stable answer"
            raise IDCError(f"draws = {short(draws)}", "a whole number, at least 1", remedy)
        return self.bridge.differing(draws, self.config.visits, self.config.bridge.eta)

    def trajectory(
        self, images: Tensor, *, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> list[Step]:
        """Every evaluation of the reverse process, for pictures and analysis; arguments as for ``translate``."""
        check_images(images, self.input_shape)
        return list(self._steps(images, noise_source(generator, noise)))

    def translate(
        self, images: Tensor, *, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """The image label that the network sees in each image, x0_hat.

        Args:
            images: (B, C, H, W) in [0, 1].
            generator: of the noise, on any device; fresh noise from the global one if None.
            noise: instead, (len(visits) - 1, B, C, H, W) standard normal, one slice a reverse step.

        Returns:
            (B, C, H, W) in [0, 1], differentiable.

        Raises:
            IDCError: for images out of range.
        """
        last = self.trajectory(images, generator=generator, noise=noise)[-1]
        return to_unit(last.x0_hat, clip=self.config.clip)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _read(self, last: Step) -> Tensor:
        return distances_to_labels(last.x0_hat, self.labels, clip=self.config.clip)

    def distances(
        self, images: Tensor, *, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """``d_k = mean |x0_hat - P_k|`` over pixels, translation and labels on [0, 1] (paper, classification).

        Arguments as for ``translate``. Returns (B, K) in [0, 1], differentiable.
        """
        return self._read(self.trajectory(images, generator=generator, noise=noise)[-1])

    def forward(
        self, images: Tensor, *, generator: torch.Generator | None = None, noise: Tensor | None = None, draws: int = 1
    ) -> Tensor:
        """Logits ``-d_k / tau``, (B, K): not probabilities. d_k: ``distances``; tau: ``config.temperature``.

        Arguments as for ``translate``.

        With ``draws`` above 1, (draws*B, K), draw by draw, from one first evaluation; ``noise`` then has as many rows.
        """
        check_images(images, self.input_shape)
        many, rows = self._differing(draws), draws * images.shape[0]
        if noise is not None and noise.shape[1] != rows:
            raise IDCError(f"noise for {noise.shape[1]} images", f"{rows}, one a draw and image", "draw as many")
        *_, last = self._steps(images, noise_source(generator, noise), many)
        return of_each(-self._read(last) / self.config.temperature, draws // many)

    @torch.no_grad()
    def predict(
        self,
        images: Tensor | Held | Sequence[Held],
        *,
        draws: int = DRAWS,
        generator: torch.Generator | None = None,
        ids: Tensor | Sequence[int] | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> Prediction:
        """Classify: the nearest label by the mean distance over ``draws``.

        The noise of an image depends on ``seed`` and its id alone, unless ``generator`` is given: the answer does not
        change with the batch. The first, noise-free evaluation is shared by all draws; an answer that draws no noise at
        all is evaluated once.

        Args:
            images: (B, C, H, W) in [0, 1], on any device; or paths, PIL images or numpy arrays (H, W, C), one or
                several, which are scaled to the model's size as files of a data set are (see ``as_images``).
            draws: of the noise, at least 1.
            generator: of the noise, instead of per-image noise.
            ids: (B,) identities of the images, whole numbers; 0..B-1 by default.
            seed: of the per-image noise.
            batch_size: images times draws in one network pass at most.

        Raises:
            IDCError: for images, draws or ids out of range.
        """
        n = self._differing(draws)
        images = as_images(images, self.input_shape)
        check_images(images, self.input_shape)
        own, chunk = identities(ids, len(images)), max(1, batch_size // n)
        parts = []
        with evaluation_mode(self):
            for part, part_ids in zip(images.split(chunk), own.split(chunk), strict=True) if len(images) else ():
                device = self.labels.device
                source = noise_source(generator) if generator else noise_of_images(part_ids.to(device), seed, n)
                *_, last = self._steps(part.to(device), source, n)
                parts.append(self._read(last).view(n, len(part), -1))
        each = torch.cat(parts, dim=1) if parts else self.labels.new_zeros(n, 0, self.num_classes)
        return decide(each, temperature=self.config.temperature, class_names=self.class_names,
                      calibration=self.calibration)  # fmt: skip

    # -- weak spots ----------------------------------------------------------------------------------------------------

    def inner_products(self) -> tuple[Tensor, Tensor]:
        """Weights (K, C*H*W), offsets (K,) of the inner products in place of distances; see ``idc.method.labels``."""
        return inner_products(self.labels, published=(self.config.label_kind, self.config.label_cell) == ("qr", 1))

    def surrogates(self) -> Mapping[str, Logits]:
        """The model's own weak spots: functions images -> logits that are easier to differentiate than the answer.

        No clamp anywhere, and in place of the L1 distance an inner product (see ``inner_products``) or L2; of the
        one-step answer, of the whole chain, and of the mean of its x0_hats. The chain draws fresh noise from the global
        generator.
        """
        return surrogates(
            self.reverse(clip=False), self.labels, self.inner_products(),
            visits=self.config.visits, eta=self.config.bridge.eta, temperature=self.config.temperature,
        )  # fmt: skip

    # -- files ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def read(values: dict[str, Any]) -> IDCConfig:
        return config_from_dict(values)

    @staticmethod
    def build(config: IDCConfig) -> nn.Module:
        return BridgeUNet(config.unet, config.image_shape)

    @staticmethod
    def extent(config: IDCConfig) -> tuple[int, int]:
        return len(config.unet.multipliers) * config.unet.res_blocks, max(config.unet.channels)

    @staticmethod
    def beside(config: IDCConfig) -> dict[str, tuple[int, ...]]:
        return {"labels": (config.num_classes, *config.image_shape)} if config.own_labels else {}

    def card_head(self) -> list[str]:
        return card_head(self.config)

    def facts(self) -> dict[str, Any]:
        return {"labels_sha256": self.labels_sha256}

    def verify(self, values: dict[str, Any], folder: Path) -> None:
        if self.labels_sha256 != values["labels_sha256"]:
            raise IDCError(
                folder, "image labels equal to those it was trained with",
                "report this machine's LAPACK: the QR differs" if self.config.label_kind == "qr"
                else "use the version of idc that saved it",
            )  # fmt: skip
