"""What ``IDC.predict`` answers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from idc.errors import IDCError


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for B images.

    ``classes`` (B,) int64; ``distances`` (B, K), mean over draws, on [0, 1]; ``votes`` (B, K), the share of draws
    whose own answer is each class; ``confidence`` (B, K), softmax of -distances/temperature (not calibrated).
    """

    classes: Tensor
    distances: Tensor
    votes: Tensor
    confidence: Tensor
    class_names: tuple[str, ...]
    draws: int

    @property
    def agreement(self) -> Tensor:
        """(B,) share of draws whose own answer is ``classes``."""
        return self.votes.gather(1, self.classes[:, None])[:, 0]

    @property
    def names(self) -> list[str]:
        """The answers by name."""
        return [self.class_names[c] for c in self.classes.tolist()]


def decide(each: Tensor, *, temperature: float, class_names: tuple[str, ...], draws: int) -> Prediction:
    """The nearest label by the mean over draws.

    Args:
        each: (N, B, K) distances of each draw that differs.
        temperature: of the confidence.
        draws: that were asked for, N or, where all are alike and N = 1, more.

    Raises:
        IDCError: for distances that are NaN or infinite: none of them is the least.
    """
    if not torch.isfinite(each).all():
        raise IDCError("distances to the labels that are NaN or infinite", "finite ones", "take other weights, in fp32")
    mean = each.mean(dim=0)
    votes = torch.nn.functional.one_hot(each.argmin(dim=2), mean.shape[1]).to(mean.dtype).mean(dim=0)
    confidence = torch.softmax(-mean / temperature, dim=1)
    return Prediction(mean.argmin(dim=1), mean, votes, confidence, class_names, draws)
