"""What is easier to differentiate than IDC's answer: functions images -> logits, for the adaptive attack."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idc.labels import distances_to_labels
from idc.reverse import noise_source
from idc.types import Logits

if TYPE_CHECKING:
    from idc.classifier import IDC


def surrogates(model: "IDC") -> Mapping[str, Logits]:
    """See ``IDC.surrogates``."""
    labels, temperature = 2 * model.labels.flatten(1) - 1, model.config.temperature
    weights, offsets = model.inner_products()

    def inner(x0_hat: Tensor) -> Tensor:
        return (x0_hat.flatten(1) @ weights.T - offsets) / (labels.shape[1] * temperature)

    def l2(x0_hat: Tensor) -> Tensor:
        return -torch.cdist(x0_hat.flatten(1), labels).square() / (2 * labels.shape[1] * temperature)

    def l1(x0_hat: Tensor) -> Tensor:
        return -distances_to_labels(x0_hat, model.labels, clip=False) / temperature

    first, all_visits = model.one_step_visits, model.config.visits
    found = {
        "one-step-inner": _logits(model, first, inner),
        "one-step-l2": _logits(model, first, l2),
    }
    if all_visits != first:
        readers: dict[str, Logits] = {"inner": inner, "l2": l2, "l1": l1}
        found |= {f"chain-{name}": _logits(model, all_visits, read) for name, read in readers.items()}
        found["mean-x0-inner"] = _logits(model, all_visits, inner, average=True)
    return found


def _logits(model: "IDC", visits: tuple[int, ...], read: Logits, *, average: bool = False) -> Logits:
    """The answer that ``read`` finds in the last x0_hat, or in the mean of all, without clamps."""

    def logits(images: Tensor, draws: int = 1) -> Tensor:
        eta = model.config.bridge.eta
        many = draws if model.bridge.draws_noise(visits, eta) else 1
        steps = model.reverse(clip=False).steps(
            model.image_end(images), visits, eta=eta, noise=noise_source(None), draws=many
        )
        first, *rest = (s.x0_hat for s in steps)
        mean = torch.stack([first.repeat(many, 1, 1, 1), *rest]).mean(0) if average else [first, *rest][-1]
        return of_each(read(mean), draws // many)

    return logits


def of_each(logits: Tensor, copies: int) -> Tensor:
    """(B, K) for each of ``copies`` draws that do not differ."""
    return logits.repeat(copies, 1) if copies > 1 else logits
