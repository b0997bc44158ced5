"""The networks and classifiers of ``image_labels.py``: K logits, a learned metric, an IDC that is read otherwise."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import torch
from label_readings import Parts, Read, Reading
from torch import Tensor, nn

from idc.compute.hardware import uses_bf16
from idc.compute.precision import compute_in_float32
from idc.errors import IDCError
from idc.method.classifier import IDC
from idc.method.config import IDCConfig, config_from_dict
from idc.method.reverse import image_end, noise_source
from idc.method.unet import BridgeUNet, UNetSpec
from idc.storage.saved import SavedClassifier
from idc.types import ClassifierDefaults, Logits, check_images


class LogitUNet(BridgeUNet):
    """The encoder of ``spec`` up to its last layer, pooled over places, and a linear layer to K logits in float32. Of
    the same seed, all but that layer begin as ``BridgeUNet``'s.

    Args:
        spec, shape: as of a ``BridgeUNet``.
        num_classes: K.
        temperature: by which the linear layer's output is divided.

    Raises:
        IDCError: for a network with a decoder, position maps or a condition.
    """

    def __init__(
        self, spec: UNetSpec, shape: tuple[int, int, int], num_classes: int, *, temperature: float = 1.0
    ) -> None:
        if spec.decoder or spec.position_channels or spec.condition != "none":
            raise IDCError("a network with a decoder, position maps or a condition", "an encoder alone", "take another")
        super().__init__(spec, shape)
        net: Any = self.net
        self.temperature = temperature
        self.linear = nn.Linear(net.conv_out.in_channels, num_classes)
        compute_in_float32(self.linear)
        net.conv_out = nn.Identity()

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """As ``BridgeUNet``'s, but (B, K)."""
        x = nn.functional.pixel_unshuffle(x_t, self.spec.patch) if self.spec.patch > 1 else x_t
        features: Tensor = self.net(x, t, return_dict=False)[0]
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits.float() / self.temperature


class KLogits(SavedClassifier):
    """Images (B, C, H, W) in [0, 1] -> K logits, by a ``LogitUNet`` at the last timestep.

    Args:
        config: classes, shape, network and temperature; what it says of labels means nothing here.
    """

    key, part = "k_logits", "unet"
    stochastic = False
    read = staticmethod(config_from_dict)

    def __init__(self, config: IDCConfig) -> None:
        super().__init__(config)
        self.config: IDCConfig = config
        self.unet: nn.Module = self.build(config)

    @staticmethod
    def build(config: IDCConfig) -> nn.Module:
        return LogitUNet(config.unet, config.image_shape, config.num_classes, temperature=config.temperature)

    extent = staticmethod(IDC.extent)

    def card_head(self) -> list[str]:
        return [f"# K logits, {self.num_classes} classes", ""]

    def with_precision(self, precision: str) -> Self:
        """As ``IDC.with_precision``."""
        other = self.with_network(self.unet)
        other.bf16 = uses_bf16(precision, next(self.parameters()).device)
        return other

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.input_shape)
        y = 2 * images - 1
        t = torch.full((), self.config.bridge.timesteps - 1, dtype=torch.int64, device=y.device)
        with torch.autocast(y.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.unet(y, t, y)
        return logits


class MetricUNet(BridgeUNet):
    """A ``BridgeUNet`` with a number for each of its D output values, ``metric``; see ``label_readings.Weighted``."""

    def __init__(self, spec: UNetSpec, shape: tuple[int, int, int]) -> None:
        super().__init__(spec, shape)
        channels, height, width = shape
        self.metric = nn.Parameter(torch.zeros(channels * height * width))


class MetricIDC(IDC):
    """An IDC whose network has a ``metric``, which its own answer does not use: ``ReadClassifier`` does."""

    @staticmethod
    def build(config: IDCConfig) -> nn.Module:
        return MetricUNet(config.unet, config.image_shape)


class ReadoutUNet(BridgeUNet):
    """A ``BridgeUNet`` with K rows of D weights, ``readout``; see ``label_readings.Learned``."""

    def __init__(self, spec: UNetSpec, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(spec, shape)
        channels, height, width = shape
        self.readout = nn.Parameter(torch.randn(num_classes, channels * height * width))


class ReadoutIDC(IDC):
    """An IDC whose network has a ``readout``, which its own answer does not use: ``ReadClassifier`` does."""

    @staticmethod
    def build(config: IDCConfig) -> nn.Module:
        return ReadoutUNet(config.unet, config.image_shape, config.num_classes)


class ReadClassifier(nn.Module, ClassifierDefaults):
    """An IDC whose one-step translation is read in another way.

    Args:
        model: the IDC.
        reading: how.
    """

    def __init__(self, model: IDC, reading: Reading) -> None:
        super().__init__()
        self.model, self.reading = model.one_step, reading
        self.bf16, self.card, self.config = model.bf16, model.card, model.config
        self.num_classes, self.input_shape, self.stochastic = model.num_classes, model.input_shape, False

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.model.class_names

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.model.networks

    def point(self, images: Tensor, *, clip: bool) -> Tensor:
        """x0_hat, (B, C, H, W) on [-1, 1]."""
        config = self.model.config
        steps = self.model.reverse(clip=clip).steps(
            image_end(images, self.model.labels), config.visits, eta=0.0, noise=noise_source(None)
        )
        return [step.x0_hat for step in steps][-1]

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.input_shape)
        return self.reading.answer(self.point(images, clip=True), self.model.unet)

    def surrogates(self) -> Mapping[str, Logits]:
        """The reading's, of the translation without clamp."""
        return {name: partial(self._smooth, read) for name, read in self.reading.surrogates(self.model.unet).items()}

    def _smooth(self, read: Read, images: Tensor) -> Tensor:
        return read(self.point(images, clip=False))


class RandomParts(ReadClassifier):
    """The vote of half of the parts, drawn afresh for each answer: each is a label set of its own, so that the labels
    which decide are not known beforehand. Surrogates are those of all parts, which the draws have as their mean.

    Args:
        model, reading: see ``ReadClassifier``.
    """

    reading: Parts

    def __init__(self, model: IDC, reading: Parts) -> None:
        super().__init__(model, reading)
        self.stochastic = self.shares_draws = True

    def forward(self, images: Tensor, draws: int = 1) -> Tensor:
        check_images(images, self.input_shape)
        distances = self.reading.distances_of_parts(self.point(images, clip=True)).repeat(1, draws, 1)
        order = torch.rand(distances.shape[1], len(distances), device=images.device).argsort(1).argsort(1)
        return self.reading.votes(distances, (order < len(distances) // 2).T)

    def _smooth(self, read: Read, images: Tensor, draws: int = 1) -> Tensor:
        return super()._smooth(read, images).repeat(draws, 1)
