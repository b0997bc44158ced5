"""How a network's output becomes logits: by image labels as a whole, in parts or with learned weights, or as K logits.

A point is what the network says of an image: the translation x0_hat, (B, C, H, W) on [-1, 1], or K logits, (B, K). Each
reading says how the point is answered, learned, and climbed by the attack of the training; see ``Reading``.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.method.classifier import IDC
from idc.method.labels import distances_to_labels, inner_products, orthogonal_labels
from idc.training.recipe import Recipe

Shape = tuple[int, int, int]
Read = Callable[[Tensor], Tensor]  # point -> (B, K)


class Reading(Protocol):
    """From a network's output to logits. ``network`` is given to each since its weights may be part of the reading."""

    def point(self, x_t: Tensor, output: Tensor) -> Tensor:
        """What the network says: of x_t (B, C, H, W) on [-1, 1] and its output."""

    def answer(self, point: Tensor, network: nn.Module) -> Tensor:
        """(B, K) logits of the model's answer."""

    def learned(self, point: Tensor, network: nn.Module) -> Tensor:
        """(B, K) log-probabilities, of which the training raises that of the true class."""

    def climbed(self, point: Tensor, network: nn.Module) -> Tensor:
        """(B, K) log-probabilities, of which the attack of the training lowers that of the true class."""

    def surrogates(self, network: nn.Module) -> Mapping[str, Read]:
        """Functions of a point without clamp that are easier to differentiate than the answer."""


class Logits:
    """K logits, by their cross-entropy: PGD-AT."""

    def point(self, x_t: Tensor, output: Tensor) -> Tensor:
        return output

    def answer(self, point: Tensor, network: nn.Module) -> Tensor:
        return point

    def learned(self, point: Tensor, network: nn.Module) -> Tensor:
        return F.log_softmax(point, 1)

    climbed = learned

    def surrogates(self, network: nn.Module) -> Mapping[str, Read]:
        return {}


class Whole:
    """The nearest of the model's labels, as IDC answers: softmax(-d / ce_temperature) is learned, with d the mean
    absolute distance on [0, 1]; the inner products with the labels over attack_temperature are climbed.

    Args:
        model: its labels, on their device.
        recipe: the temperatures.
    """

    def __init__(self, model: IDC, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.labels = model.labels
        self.products = model.inner_products()

    def point(self, x_t: Tensor, output: Tensor) -> Tensor:
        return x_t - output

    def distances(self, point: Tensor, network: nn.Module) -> Tensor:
        """(B, K)."""
        return distances_to_labels(point, self.labels, clip=False)

    def inner(self, point: Tensor, network: nn.Module) -> Tensor:
        """(B, K) inner products over the number of pixels."""
        weights, offsets = self.products
        return (point.flatten(1) @ weights.T - offsets) / weights.shape[1]

    def answer(self, point: Tensor, network: nn.Module) -> Tensor:
        return -self.distances(point.clamp(-1, 1), network) / self.model.config.temperature

    def learned(self, point: Tensor, network: nn.Module) -> Tensor:
        return F.log_softmax(-self.distances(point, network) / self.recipe.ce_temperature, 1)

    def climbed(self, point: Tensor, network: nn.Module) -> Tensor:
        return F.log_softmax(self.inner(point, network) / self.recipe.attack_temperature, 1)

    def surrogates(self, network: nn.Module) -> Mapping[str, Read]:
        return {"inner": lambda point: self.inner(point, network), "l1": lambda point: -self.distances(point, network)}


class Weighted(Whole):
    """The nearest label by ``d_k = sum_i w_i |x_i - P_ki| / D`` with learned weights w = D softmax(network.metric), all
    above 0 and of mean 1."""

    @staticmethod
    def weights(network: Any) -> Tensor:
        """(D,)."""
        metric: Tensor = network.metric
        return metric.numel() * torch.softmax(metric, 0)

    def distances(self, point: Tensor, network: nn.Module) -> Tensor:
        weights = self.weights(network)
        unit = (point.flatten(1) + 1) / 2
        return torch.cdist(unit * weights, self.labels.flatten(1) * weights, p=1.0) / len(weights)

    def inner(self, point: Tensor, network: nn.Module) -> Tensor:
        """Those of the weighted L2 distance, on the scale of ``inner_products``."""
        weights, signed = self.weights(network), 2 * self.labels.flatten(1) - 1
        scale = self.products[0].abs().sum() / signed.abs().sum()
        offsets = (weights * signed.square()).sum(1) / 2
        return scale * (point.flatten(1) @ (weights * signed).T - offsets) / len(weights)


class Learned(Whole):
    """K logits ``network.readout @ x0_hat / (2 D)``: what minus the distance to a Hadamard label is, but for a
    constant, as long as x0_hat is within [-1, 1]; here the labels are learned, and may be anything."""

    def inner(self, point: Tensor, network: Any) -> Tensor:
        found: Tensor = point.flatten(1) @ network.readout.T / (2 * network.readout.shape[1])
        return found

    def answer(self, point: Tensor, network: nn.Module) -> Tensor:
        return self.inner(point, network) / self.model.config.temperature

    def learned(self, point: Tensor, network: nn.Module) -> Tensor:
        return F.log_softmax(self.inner(point, network) / self.recipe.ce_temperature, 1)

    climbed = learned

    def surrogates(self, network: nn.Module) -> Mapping[str, Read]:
        """Without the clamp of the answer."""
        return {"inner": lambda point: self.inner(point, network)}


class Parts(Whole):
    """Disjoint parts of the output, each of which answers by the nearest part of a label. The answer is their vote; the
    mean distance breaks ties. The mean over parts of each part's log-probabilities is learned, and climbed.

    Args:
        side: of a part, a square of so many pixels in all channels; 0: each channel is a part.
    """

    def __init__(self, model: IDC, recipe: Recipe, *, side: int) -> None:
        super().__init__(model, recipe)
        self.places = places(model.input_shape, side).to(model.labels.device)
        self.codes = model.labels.flatten(1)[:, self.places].transpose(0, 1)  # (P, K, n)
        each = [inner_products(code, published=False) for code in self.codes]
        self.weights, self.offsets = (torch.stack(values) for values in zip(*each, strict=True))

    def split(self, point: Tensor) -> Tensor:
        """(B, C, H, W) -> (P, B, n)."""
        return point.flatten(1)[:, self.places].transpose(0, 1)

    def distances_of_parts(self, point: Tensor) -> Tensor:
        """(P, B, K), mean absolute differences on [0, 1]."""
        own = (self.split(point) + 1) / 2
        return torch.cdist(own.contiguous(), self.codes.contiguous(), p=1.0) / own.shape[2]

    def inner_of_parts(self, point: Tensor) -> Tensor:
        """(P, B, K)."""
        own = self.split(point)
        return (own @ self.weights.transpose(1, 2) - self.offsets[:, None]) / own.shape[2]

    def votes(self, distances: Tensor, chosen: Tensor | None = None) -> Tensor:
        """(B, K): of distances (P, B, K), how many parts answer each class, less half the mean distance, which is
        below 1/2: it only breaks ties. With ``chosen`` (P, B), those parts alone."""
        votes = F.one_hot(distances.argmin(2), distances.shape[2]).to(distances.dtype)
        if chosen is None:
            return votes.sum(0) - distances.mean(0) / 2
        share = chosen.to(distances.dtype)[..., None]
        return (share * votes).sum(0) - (share * distances).sum(0) / share.sum(0) / 2

    def answer(self, point: Tensor, network: nn.Module) -> Tensor:
        return self.votes(self.distances_of_parts(point.clamp(-1, 1)))

    def learned(self, point: Tensor, network: nn.Module) -> Tensor:
        return F.log_softmax(-self.distances_of_parts(point) / self.recipe.ce_temperature, 2).mean(0)

    def climbed(self, point: Tensor, network: nn.Module) -> Tensor:
        return F.log_softmax(self.inner_of_parts(point) / self.recipe.attack_temperature, 2).mean(0)

    def surrogates(self, network: nn.Module) -> Mapping[str, Read]:
        """The mean inner product; means over parts of log-probabilities and of margins; and the votes as
        probabilities, which climbs first the parts that are undecided."""
        heat = self.recipe.ce_temperature
        return {
            "inner": lambda point: self.inner_of_parts(point).mean(0),
            "log-probabilities": lambda point: self.learned(point, network),
            "margins": lambda point: margins(-self.distances_of_parts(point)).mean(0),
            "soft vote": lambda point: torch.softmax(-self.distances_of_parts(point) / heat, 2).mean(0),
        }


def margins(scores: Tensor) -> Tensor:
    """(..., K) -> (..., K): each score less the largest of the others."""
    top = scores.topk(2, dim=-1)
    first = F.one_hot(top.indices[..., 0], scores.shape[-1]).bool()
    return scores - torch.where(first, top.values[..., 1:], top.values[..., :1])


def places(shape: Shape, side: int) -> Tensor:
    """(P, n) int64: the places of each part in a flattened (C, H, W); see ``Parts``."""
    channels, height, width = shape
    every = torch.arange(channels * height * width).view(shape)
    if not side:
        return every.flatten(1)
    squares = every.unfold(1, side, side).unfold(2, side, side)  # (C, H/side, W/side, side, side)
    return squares.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)


def codes(num_classes: int, shape: Shape, seed: int = 0, *, side: int, cell: int) -> Tensor:
    """Labels (K, C, H, W) of which every part is a set of Hadamard labels of its own; ``side``: see ``Parts``."""
    channels, height, width = shape
    own = (channels, side, side) if side else (1, height, width)
    rows = places(shape, side)
    labels = torch.empty(num_classes, channels * height * width)
    for number, part in enumerate(rows):
        code = orthogonal_labels(num_classes, own, seed=seed * len(rows) + number, kind="hadamard", cell=cell)
        labels[:, part] = code.flatten(1)
    return labels.view(num_classes, *shape)
