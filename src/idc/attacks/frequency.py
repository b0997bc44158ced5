"""Low frequencies: perturbations that vary slowly over the image (Guo, Frank and Weinberger, UAI 2019)."""

import math
from functools import lru_cache

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor


@lru_cache(maxsize=16)
def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, (size, size) float32: row k holds the k-th cosine."""
    return torch.from_numpy(dct(np.eye(size), axis=0, norm="ortho")).to(torch.float32)


def low_pass(x: Tensor, share: float) -> Tensor:
    """Project (B, C, H, W) onto the lowest ``share`` (0 to 1] of the frequencies of each side, at least one."""

    def projector(size: int) -> Tensor:
        low = _cosines(size)[: max(1, math.ceil(share * size))].to(x)
        return low.T @ low

    return projector(x.shape[-2]) @ x @ projector(x.shape[-1])
