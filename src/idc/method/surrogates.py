"""What is easier to differentiate than IDC's answer: functions images -> logits, for the adaptive attack."""

from functools import partial

import torch
from torch import Tensor

from idc.method.labels import distances_to_labels
from idc.method.reverse import Reverse, image_end, noise_source, of_each
from idc.types import Logits


def surrogates(
    reverse: Reverse,
    labels: Tensor,
    products: tuple[Tensor, Tensor],
    *,
    visits: tuple[int, ...],
    eta: float,
    temperature: float,
) -> dict[str, Logits]:
    """See ``IDC.surrogates``.

    Args:
        reverse: the model's reverse process, without clamps.
        labels: (K, C, H, W) in [0, 1].
        products: weights and offsets of the inner products, see ``idc.method.labels.inner_products``.
        visits, eta: of the model's answer.
        temperature: of its logits.
    """
    flat, (weights, offsets) = 2 * labels.flatten(1) - 1, products

    def inner(x0_hat: Tensor) -> Tensor:
        return (x0_hat.flatten(1) @ weights.T - offsets) / (flat.shape[1] * temperature)

    def l2(x0_hat: Tensor) -> Tensor:
        return -torch.cdist(x0_hat.flatten(1), flat).square() / (2 * flat.shape[1] * temperature)

    def l1(x0_hat: Tensor) -> Tensor:
        return -distances_to_labels(x0_hat, labels, clip=False) / temperature

    def logits(
        images: Tensor, draws: int = 1, *, visits: tuple[int, ...], read: Logits, average: bool = False
    ) -> Tensor:
        many = reverse.bridge.differing(draws, visits, eta)
        steps = reverse.steps(image_end(images, labels), visits, eta=eta, noise=noise_source(None), draws=many)
        first, *rest = (s.x0_hat for s in steps)
        mean = torch.stack([first.repeat(many, 1, 1, 1), *rest]).mean(0) if average else [first, *rest][-1]
        return of_each(read(mean), draws // many)

    first, chain = partial(logits, visits=visits[:1]), partial(logits, visits=visits)
    found: dict[str, Logits] = {"one-step-inner": partial(first, read=inner), "one-step-l2": partial(first, read=l2)}
    if len(visits) > 1:
        found |= {f"chain-{name}": partial(chain, read=f) for name, f in (("inner", inner), ("l2", l2), ("l1", l1))}
        found["mean-x0-inner"] = partial(chain, read=inner, average=True)
    return found
