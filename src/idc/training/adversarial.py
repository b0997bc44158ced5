"""Adversarial training: the inner maximisation, and the losses that are made of it.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018 (PGD-AT); Zhang et al.,
"Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019 (TRADES). An evaluation uses the attacks
of ``idc.evaluation``; these few steps are for training and for choosing weights while it goes on.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from idc.attacks.threat import Threat

Loss = Callable[[Tensor], Tensor]  # images -> a sum over them


def ascend(
    loss: Loss, images: Tensor, threat: Threat, *, steps: int, step: float, start: float, random: torch.Generator
) -> Tensor:
    """Projected steepest ascent of ``loss`` from a random point near ``images``: the last of ``steps`` iterates.

    Args:
        loss: differentiable by its argument.
        images: (B, C, H, W) in [0, 1], the centre of the set.
        step: length of a step, in the threat's norm.
        start: how far from the centre the start may lie, as a share of eps.
        random: of the start.
    """
    noise = torch.randn if threat.norm == "l2" else torch.rand
    delta = noise(images.shape, generator=random, device=images.device, dtype=images.dtype)
    delta = threat.steepest(delta) if threat.norm == "l2" else 2 * delta - 1
    x = threat.project(images + start * threat.eps * delta, images)
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(x), x)
        x = threat.project(x.detach() + step * threat.steepest(gradient), images)
    return x.detach()


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """(B,) Kullback-Leibler divergence of the answer to perturbed images from the one to clean images."""
    return F.kl_div(F.log_softmax(logits, 1), F.log_softmax(clean, 1), reduction="none", log_target=True).sum(1)
