"""What the paper's attacks see of a model, as its code really runs them (method.md)."""

from dataclasses import replace

import torch
from torch import Tensor

from idc.attacks.target import Target

PUBLISHED = "published"


def published(target: Target, *, probabilities: bool = True) -> Target:
    """``target`` with the function that the published attacks see, under the name ``PUBLISHED``.

    Args:
        probabilities: a softmax of the logits is attacked as if it were logits, as published; False gives logits. The
            other flaw, noise that repeats in every call, is a setting of the attacks.
    """

    def softmax(images: Tensor, **draws: int) -> Tensor:
        return torch.softmax(target.answer(images, **draws), dim=1)

    surrogates = {**target.surrogates, PUBLISHED: softmax if probabilities else target.answer}
    return replace(target, surrogates=surrogates, _noisy={})
