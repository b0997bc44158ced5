"""The training loss: an intra-class term that fits the bridge and an inter-class term that parts the classes.

Paper, section "training objective"; the formulas: ``bridge_loss``. No (B, K, C, H, W) tensor is built: the target of
class j is ``target - gap (P_j - x0)``, so that its distance to the network's output is a scaled L1 distance between one
point per image and the K labels, in O(B*K + B*D + K*D) memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from idc.method.bridge import BridgeSample


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Per-image terms, each (B,); ``total = intra - weight * inter``."""

    total: Tensor
    intra: Tensor
    inter: Tensor


def label_logits(sample: BridgeSample, output: Tensor, labels: Tensor, *, temperature: float = 0.02) -> Tensor:
    """Logits of the answer at x_t: -d / temperature, with d the mean absolute distance to the labels on [0, 1].

    Their cross-entropy is not in the paper. The L1 fit alone hardly tells classes apart until one of them is more
    likely than not (its optimum is the per-pixel median over likely classes), which costs a small network its first
    epochs; the cross-entropy does not wait.

    Args:
        sample, output, labels: as for ``bridge_loss``.
        temperature: ``qr`` labels lie about 0.16 apart on [0, 1].

    Returns:
        (B, K).
    """
    return -answer_distances(sample.x_t - output, labels) / temperature


def answer_distances(x0_hat: Tensor, labels: Tensor) -> Tensor:
    """Mean absolute distances (B, K), on [0, 1], of x0_hat (B, C, H, W) to the labels (K, C, H, W), both on [-1, 1]."""
    flat = x0_hat.flatten(1)
    return torch.cdist(flat, labels.flatten(1), p=1.0) / (2 * flat.shape[1])


def squared_hinge(distances: Tensor, classes: Tensor, *, margin: float) -> Tensor:
    """relu(margin + d_c - min over j != c of d_j)^2: 0 as soon as the own label is nearer than any other by ``margin``.

    Not in the paper: the squared hinge loss of Crammer and Singer's margin (JMLR 2001), on distances.

    Args:
        distances: (B, K).
        classes: (B,) int64, the true classes.
        margin: in the unit of the distances.

    Returns:
        (B,).
    """
    right = distances.gather(1, classes[:, None]).squeeze(1)
    nearest = distances.scatter(1, classes[:, None], torch.inf).amin(1)
    return (margin + right - nearest).relu().square()


def label_distances(sample: BridgeSample, output: Tensor, labels: Tensor) -> Tensor:
    """``d_j = mean |target_j - U|`` for every class.

    Args:
        sample: of the bridge, (B, C, H, W) tensors.
        output: U(x_t, t), (B, C, H, W).
        labels: P, (K, C, H, W) on [-1, 1].

    Returns:
        (B, K).
    """
    gap = sample.gap.flatten(1)
    # |target - gap (P_j - x0) - U| = gap |(target - U) / gap + x0 - P_j|
    point = (sample.target - output).flatten(1) / gap + sample.x0.flatten(1)
    return torch.cdist(point, labels.flatten(1), p=1.0) * (gap / point.shape[1])


def bridge_loss(
    sample: BridgeSample, output: Tensor, labels: Tensor, classes: Tensor, *, inter_weight: float = 0.2
) -> LossTerms:
    """Intra- and inter-class loss (paper, section "training objective"), means over pixels, with m_{-1} = 0:

        target   = m_t (y - x0) + sqrt(var_t) eps
        target_j = m_{t-1} (P_j - x0) + m_t (y - P_j) + sqrt(var_t) eps = target - (m_t - m_{t-1}) (P_j - x0)
        d_j      = mean |target_j - U(x_t, t)|,    L_intra = d_c = mean |target - U(x_t, t)|
        L_inter  = min over j != c of d_j, or 0 where d_c is the smallest of all
        L        = L_intra - inter_weight L_inter

    Args:
        sample: of the bridge.
        output: U(x_t, t), (B, C, H, W) float32.
        labels: P, (K, C, H, W) on [-1, 1].
        classes: (B,) int64, the true classes.
        inter_weight: 0.2 in the paper; 0 leaves the term out and saves its cost.

    Returns:
        ``intra``: mean absolute error of the output. ``inter``: distance to the nearest wrong class's target where a
        wrong class is nearest, else 0.
    """
    intra = (sample.target - output).abs().flatten(1).mean(1)
    if inter_weight == 0:
        return LossTerms(total=intra, intra=intra, inter=torch.zeros_like(intra))
    with torch.no_grad():  # all K distances only choose a class; the gradient needs one of them
        distances = label_distances(sample, output, labels)
        right = distances.gather(1, classes[:, None]).squeeze(1)
        nearest, wrong = distances.scatter(1, classes[:, None], torch.inf).min(dim=1)
    target = sample.target - sample.gap * (labels[wrong] - sample.x0)
    inter = torch.where(right <= nearest, 0.0, (target - output).abs().flatten(1).mean(1))
    return LossTerms(total=intra - inter_weight * inter, intra=intra, inter=inter)
