"""Convolutional peers: PreActResNet-18 and WideResNet, as published, and the packaged ResNet-18 that we did not train.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016; Zagoruyko and Komodakis, "Wide Residual Networks",
BMVC 2016. Both with the three stages' (four stages') strides for 32x32 images.
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.compute.hardware import cnn_format
from idc.errors import IDCError
from idc.storage.fields import check, setting, short
from idc.storage.saved import SavedClassifier
from idc.types import ClassifierDefaults, check_images, name_classes

_WRN = re.compile(r"wrn-(\d{1,4})-(\d{1,4})")
ARCHITECTURES = "preact-resnet18, wrn-28-10 (any wrn-DEPTH-WIDEN)"


@dataclass(frozen=True, slots=True)
class CNNConfig:
    """All that defines a CNN but its weights.

    Args:
        arch: "preact-resnet18", or "wrn-DEPTH-WIDEN" such as "wrn-28-10".
        num_classes: K.
        image_shape: (C, H, W).
        width: channels of the first stage; 64 (preact-resnet18) or 16 (wrn, times WIDEN) as published.
        class_names: K names; () numbers them.
    """

    arch: str
    num_classes: int = setting(least=1)
    image_shape: tuple[int, int, int] = setting(least=1)
    width: int = setting(0, least=0, remedy="use 64, or 16 for a wrn")
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        wide = _WRN.fullmatch(self.arch)
        if self.arch != "preact-resnet18" and not wide:
            raise IDCError(f"arch {short(self.arch)}", f"one of {ARCHITECTURES}", "correct its name")
        if wide and ((int(wide[1]) - 4) % 6 or int(wide[1]) < 10 or int(wide[2]) < 1):
            raise IDCError(f"arch {short(self.arch)}", "a depth of 6 n + 4", "use wrn-28-10, as published")
        object.__setattr__(self, "width", self.width or (16 if wide else 64))
        object.__setattr__(self, "class_names", name_classes(self.class_names, self.num_classes))


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU; a 1x1 shortcut where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        changes = stride != 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(x))
        passed = x if self.shortcut is None else self.shortcut(out)
        out = self.conv1(out)
        return self.conv2(F.relu(self.norm2(out))) + passed


class ResidualNetwork(nn.Module):
    """A convolution, stages of ``PreActBlock``, and a linear layer on the pooled features: images -> logits.

    Args:
        channels: of the images.
        num_classes: K.
        first: channels of the first convolution.
        stages: (channels, blocks, stride) of each.
        last_norm: BatchNorm and ReLU after the last stage (Wide ResNet; PreActResNet-18 as it is widely used has none).
    """

    def __init__(
        self, channels: int, num_classes: int, first: int, stages: list[tuple[int, int, int]], *, last_norm: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        blocks, before = [], first
        for after, count, stride in stages:
            for index in range(count):
                blocks.append(PreActBlock(before, after, stride if index == 0 else 1))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before) if last_norm else None
        self.linear = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.conv(x))
        if self.norm is not None:
            x = F.relu(self.norm(x))
        return self.linear(x.mean((2, 3)))


def stages_of(config: CNNConfig) -> list[tuple[int, int, int]]:
    """(channels, blocks, stride) of each stage of the network."""
    if wide := _WRN.fullmatch(config.arch):
        blocks, width = (int(wide[1]) - 4) // 6, config.width * int(wide[2])
        return [(width, blocks, 1), (2 * width, blocks, 2), (4 * width, blocks, 2)]
    return [(config.width * 2**i, 2, 1 if i == 0 else 2) for i in range(4)]


def build_network(config: CNNConfig) -> ResidualNetwork:
    """The network of a configuration, with fresh weights."""
    wide = config.arch != "preact-resnet18"
    return ResidualNetwork(config.image_shape[0], config.num_classes, config.width, stages_of(config), last_norm=wide)


def normalised(images: Tensor) -> Tensor:
    """[0, 1] -> [-2, 2], what the networks see."""
    return (images - 0.5) * 4


class CNN(SavedClassifier):
    """A convolutional classifier: images (B, C, H, W) in [0, 1] -> logits (B, K). It normalises them itself, to
    [-2, 2]; it draws no noise, and its own gradient is its only weak spot.

    Args:
        config: see ``CNNConfig``.
        network: to use instead of a fresh one.
    """

    key, part = "cnn", "network"
    stochastic = False

    def __init__(self, config: CNNConfig, network: nn.Module | None = None) -> None:
        super().__init__(config)
        self.config: CNNConfig = config
        self.network: nn.Module = self.build(config) if network is None else network
        self.network.to(memory_format=cnn_format(config.width))  # type: ignore[call-overload]  # torch's stubs lack it

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.input_shape)
        logits: Tensor = self.network(normalised(images))
        return logits.float()

    @staticmethod
    def read(values: dict[str, Any]) -> CNNConfig:
        return CNNConfig(**values)

    build = staticmethod(build_network)

    @staticmethod
    def extent(config: CNNConfig) -> tuple[int, int]:
        stages = stages_of(config)
        return sum(count for _, count, _ in stages), stages[-1][0]

    def card_head(self) -> list[str]:
        return [f"# {self.config.arch}, {self.num_classes} classes", ""]


class PackagedResNet18(nn.Module, ClassifierDefaults):
    """The CIFAR-10 ResNet-18 in pyautoattack's wheel, trained the standard way by others; it takes [0, 1] as it is.

    Raises:
        IDCError: if the installed pyautoattack lacks it.
    """

    num_classes, input_shape, stochastic = 10, (3, 32, 32), False
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self) -> None:
        super().__init__()
        import pyautoattack

        folder = Path(pyautoattack.__file__).parent / "examples"
        spec = importlib.util.spec_from_file_location("pyautoattack_resnet", folder / "resnet.py")
        try:
            if spec is None or spec.loader is None:
                raise ImportError(folder)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            weights = torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True)
            network: nn.Module = module.ResNet18()
            network.load_state_dict(weights)
        except (OSError, ImportError, AttributeError, RuntimeError) as error:
            raise IDCError("pyautoattack-resnet18", "pyautoattack with its examples", "reinstall it") from error
        self.network = network.eval()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is counted as a network evaluation."""
        return (self.network,)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.input_shape)
        logits: Tensor = self.network(images)
        return logits
