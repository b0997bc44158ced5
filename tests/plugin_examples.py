"""One plug-in of each kind, as a user writes them and docs/extending shows them: named as ``plugin_examples:...``."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from idc.attacks.gradient import pgd
from idc.attacks.objective import CrossEntropy, Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.evaluation.protocol import Protocol
from idc.noise import Streams
from idc.training.bridge_objective import BridgeObjective


def model() -> nn.Module:
    """A classifier of 1x8x8 images into 4 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 4))


def digits() -> nn.Module:
    """A classifier of the digits at 1x32x32."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))


@dataclass(frozen=True)
class OneStep:
    """An attack: a whole step along the gradient."""

    threat: Threat

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        noise = streams.of("noise")
        _, gradient, _ = target.gradient(ANSWER, images, classes, noise, objective=CrossEntropy())
        return self.threat.project(images + self.threat.eps * self.threat.steepest(gradient), images)


def protocol(threat: Threat) -> Protocol:
    """Two attacks, judged by 3 draws."""
    attacks = (("one step", OneStep(threat)), ("margin", pgd(threat, steps=2, objective=Margin())))
    return Protocol("mine", threat, attacks, draws=3)


FIXED = Protocol("fixed", Threat("l2", 0.5), (("pgd", pgd(Threat("l2", 0.5), steps=2)),), draws=2)


def stripes(num_classes: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Image labels: horizontal stripes, finer for each class."""
    channels, height, width = shape
    rows = torch.arange(height) / height
    waves = torch.cos(torch.pi * torch.arange(1, num_classes + 1)[:, None] * rows)
    return ((1 + waves) / 2)[:, None, :, None].expand(-1, channels, -1, width)


class IntraOnly(BridgeObjective):
    """A training objective: the bridge's loss within a class alone."""

    def loss(self, call, images, classes, random):
        terms = super().loss(call, images, classes, random)
        return terms | {"total": terms["intra"]}


# -- none of any kind --------------------------------------------------------------------------------------------------


def grey(num_classes, shape, seed):
    return torch.full((num_classes, *shape), 0.5)


def too_bright(num_classes, shape, seed):
    return 2 * stripes(num_classes, shape, seed)


def too_few(num_classes, shape, seed):
    return stripes(num_classes - 1, shape, seed)


def no_attack(threat):
    return lambda target, images, classes, streams: images


def wide(threat):
    return pgd(Threat(threat.norm, 2 * threat.eps))


def adaptive(threat):
    return Protocol("adaptive", threat, ())


@dataclass(frozen=True)
class Leaves:
    """An attack that keeps to no ball, though it says so."""

    threat: Threat

    def __call__(self, target, images, classes, streams):
        return 1 - images


@dataclass(frozen=True)
class Gaps:
    """An attack without a point for the first image."""

    threat: Threat

    def __call__(self, target, images, classes, streams):
        return images.index_fill(0, torch.tensor(0), float("nan"))


@dataclass(frozen=True)
class Raises:
    """An attack with a mistake."""

    threat: Threat

    def __call__(self, target, images, classes, streams):
        return images / (1 // 0)


class NoTotal(BridgeObjective):
    """Training objectives whose loss is none."""

    given = staticmethod(lambda loss: {"inner": loss})

    def loss(self, call, images, classes, random):
        return self.given(super().loss(call, images, classes, random)["total"])


class NoGradient(NoTotal):
    given = staticmethod(lambda loss: {"total": loss.detach()})


class NoMean(NoTotal):
    given = staticmethod(lambda loss: {"total": loss.expand(2)})


class NoTensor(NoTotal):
    given = staticmethod(lambda loss: {"total": loss.item()})


class NoDict(NoTotal):
    given = staticmethod(lambda loss: loss)


class NoLoss(BridgeObjective):
    """A training objective with a mistake."""

    def loss(self, call, images, classes, random):
        return {"total": super().loss(call, images, classes, random)["inner"]}
