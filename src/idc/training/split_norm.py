"""BatchNorm with statistics of their own for a second, differently augmented half of a batch.

AdvProp (Xie et al., CVPR 2020) and DAJAT (Addepalli et al., NeurIPS 2022): images of two distributions share a network,
but not the statistics of its BatchNorm, which would fit neither. Here they share its weights and biases too (in both
papers each has its own): what is saved is the network without the second statistics.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.errors import IDCError


class SplitBatchNorm2d(nn.BatchNorm2d):
    """A ``BatchNorm2d`` that ``split_norms`` has changed in place. Outside of ``halves`` it is one of the plain kind.

    A batch is ``block`` images of the first kind and of the second in turn.
    """

    strong_mean: Tensor
    strong_var: Tensor
    block: int

    def forward(self, x: Tensor) -> Tensor:
        if not self.block:
            return super().forward(x)
        blocks = x.split(self.block)
        base = super().forward(torch.cat(blocks[0::2]))
        strong = F.batch_norm(
            torch.cat(blocks[1::2]), self.strong_mean, self.strong_var, self.weight, self.bias, self.training,
            self.momentum or 0.0, self.eps,
        )  # fmt: skip
        pairs = zip(base.split(self.block), strong.split(self.block), strict=True)
        return torch.cat([block for pair in pairs for block in pair])


def split_norms(network: nn.Module) -> None:
    """Give every BatchNorm of ``network`` second statistics, in place; its parameters stay the same objects.

    Raises:
        IDCError: if it has none.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
        raise IDCError("strong_branch of a network without BatchNorm", "norm: batch", "give --preset nano-encoder-bn")
    found: list[Any] = [m for m in network.modules() if type(m) is nn.BatchNorm2d and m.track_running_stats]
    for module in found:
        module.__class__, module.block = SplitBatchNorm2d, 0
        module.register_buffer("strong_mean", module.running_mean.clone())
        module.register_buffer("strong_var", module.running_var.clone())


def plain_norms(network: nn.Module) -> nn.Module:
    """A copy of ``network`` without the second statistics: a network as ``split_norms`` was given it."""
    network = deepcopy(network)
    found: list[Any] = [m for m in network.modules() if isinstance(m, SplitBatchNorm2d)]
    for module in found:
        del module.strong_mean, module.strong_var, module.block
        module.__class__ = nn.BatchNorm2d
    return network


@contextmanager
def halves(network: nn.Module, block: int) -> Iterator[None]:
    """Inside, each batch of ``network`` is so many images of the first kind and as many of the second, in turn."""
    found = [(m, m.block) for m in network.modules() if isinstance(m, SplitBatchNorm2d)]
    for module, _ in found:
        module.block = block
    try:
        yield
    finally:
        for module, before in found:
            module.block = before
