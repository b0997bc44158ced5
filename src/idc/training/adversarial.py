"""Adversarial training: the inner maximisation, and the losses that are made of it.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018 (PGD-AT); Zhang et al.,
"Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019 (TRADES). An evaluation uses the attacks
of ``idc.evaluation``; these few steps are for training and for choosing weights while it goes on.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.attacks.objective import Margin
from idc.attacks.threat import Threat

Loss = Callable[[Tensor], Tensor]  # images -> a sum over them


def random_start(images: Tensor, threat: Threat, random: torch.Generator, *, share: float = 1.0) -> Tensor:
    """A random point of the set: uniform in the cube (linf), of uniform direction (l2), scaled by ``share``."""
    noise = torch.randn if threat.norm == "l2" else torch.rand
    delta = noise(images.shape, generator=random, device=images.device, dtype=images.dtype)
    delta = threat.steepest(delta) if threat.norm == "l2" else 2 * delta - 1
    return threat.project(images + share * threat.eps * delta, images)


def ascend(loss: Loss, images: Tensor, threat: Threat, *, steps: int, step: float, start: Tensor) -> Tensor:
    """Projected steepest ascent of ``loss``: the last of ``steps`` iterates.

    Args:
        loss: differentiable by its argument.
        images: (B, C, H, W) in [0, 1], the centre of the set.
        step: length of a step, in the threat's norm.
        start: (B, C, H, W), a point of the set.
    """
    x = start
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(x), x)
        x = threat.project(x.detach() + step * threat.steepest(gradient), images)
    return x.detach()


def worst(
    logits: Callable[[Tensor], Tensor], images: Tensor, classes: Tensor, threat: Threat, *, start: Tensor
) -> Tensor:
    """What validation images are attacked by: ten steps of PGD on the margin, images as of ``ascend``.

    The gradient of the cross-entropy is a mean over all wrong classes, and the flatter the answer, the less it is of
    the one that is nearest to win: it would flatter a training with soft targets.
    """
    margin = Margin()
    return ascend(
        lambda x: margin(logits(x), classes).sum(), images, threat, steps=10, step=threat.eps / 4, start=start
    )


class WeightShift:
    """Weights moved within a share of their norm to where the loss is worse, and back.

    Running statistics come back too: they are those of the network as it is, not of the moved one.

    Wu, Xia and Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020.

    Args:
        network: whose weights of more than one dimension are moved.
        share: length of the shift over the weight's own norm.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        self.weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
        self.share = share
        self.buffers = list(network.buffers())
        self.before: list[Tensor] = []

    def up(self, loss: Tensor) -> None:
        """Move along the gradient of ``loss``, a mean over the batch."""
        gradients = torch.autograd.grad(loss, self.weights, allow_unused=True)
        self.before = [w.detach().clone() for w in (*self.weights, *self.buffers)]
        with torch.no_grad():
            for weight, gradient in zip(self.weights, gradients, strict=True):
                if gradient is not None:
                    weight.add_(gradient * (self.share * weight.norm() / gradient.norm().clamp(min=1e-12)))

    def back(self) -> None:
        """Exactly to where they were."""
        with torch.no_grad():
            for weight, before in zip((*self.weights, *self.buffers), self.before, strict=False):
                weight.copy_(before)
        self.before = []


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """(B,) Kullback-Leibler divergence of the answer to perturbed images from the one to clean images."""
    return F.kl_div(F.log_softmax(logits, 1), F.log_softmax(clean, 1), reduction="none", log_target=True).sum(1)
