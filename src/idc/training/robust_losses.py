"""Losses of the answers to clean and to attacked images: TRADES and MART, on logits, whatever gives them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from idc.training.adversarial import divergence
from idc.training.targets import Targets


def classify(logits: Tensor, targets: Targets, method: str, beta: float) -> dict[str, Tensor]:
    """The cross-entropy of logits (B, K) as "total", or the losses of ``method``, trades or mart, of logits (2B, K):
    those of clean images and then those of attacked ones."""
    if len(logits) == len(targets.classes):
        return {"total": F.cross_entropy(logits, targets.answer)}
    clean, attacked = logits.chunk(2)
    if method == "trades":
        return trades(clean, attacked, targets.answer, beta)
    return mart(clean, attacked, targets.classes, beta)


def trades(clean: Tensor, attacked: Tensor, answer: Tensor, beta: float) -> dict[str, Tensor]:
    """CE(clean, answer) + beta KL(clean || attacked), means over a batch (Zhang et al., ICML 2019, equation 5).

    Args:
        clean, attacked: logits (B, K).
        answer: (B,) classes, or (B, K) shares of them.

    Returns:
        "total", "natural" and "divergence", each ().
    """
    natural, away = F.cross_entropy(clean, answer), divergence(attacked, clean).mean()
    return {"total": natural + beta * away, "natural": natural, "divergence": away}


def mart(clean: Tensor, attacked: Tensor, classes: Tensor, beta: float) -> dict[str, Tensor]:
    """BCE(attacked, y) + beta KL(clean || attacked) (1 - p_y(clean)), means over a batch, with a boosted cross-entropy
    BCE = -log p_y - log(1 - max over k != y of p_k) (Wang et al., "Improving Adversarial Robustness Requires Revisiting
    Misclassified Examples", ICLR 2020, equations 8 and 11). Their code adds 1e-4 within the second logarithm; here
    it is taken of the other classes' probabilities, which needs no such bound.

    Args:
        clean, attacked: logits (B, K).
        classes: (B,).

    Returns:
        "total", "boosted" and "divergence" (weighted), each ().
    """
    own = F.one_hot(classes, clean.shape[1]).bool()
    found = F.log_softmax(attacked, 1)
    nearest = F.one_hot(found.masked_fill(own, -torch.inf).argmax(1), clean.shape[1]).bool()
    rest = found.masked_fill(nearest, -torch.inf).logsumexp(1)  # log(1 - p) of the likeliest wrong class
    boosted = (-found[own] - rest).mean()
    away = (divergence(attacked, clean) * (1 - F.softmax(clean, 1)[own])).mean()
    return {"total": boosted + beta * away, "boosted": boosted, "divergence": away}
