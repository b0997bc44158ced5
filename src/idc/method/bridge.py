"""The Brownian bridge between an image label (t = 0) and an image (t = T-1).

BBDM (Li et al., CVPR 2023), forward and reverse process, with the paper's m_t and T:

    m_t evenly spaced from 0.001 to 0.999,    var_t = 2 s (m_t - m_t^2)
    forward:         x_t = (1 - m_t) x0 + m_t y + sqrt(var_t) eps
    reverse, t -> n: see ``Bridge.step``

Everything here works on [-1, 1]: ``y = 2x - 1`` is the image, ``x0`` the label of its class.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from idc.errors import IDCError
from idc.storage.fields import Rule, check, setting, written

Schedule = Literal["linear", "sin"]


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """Settings of a bridge.

    Args:
        timesteps: T >= 2.
        schedule: "linear" (m_t evenly spaced, the paper) or "sin", BBDM's name for m_t proportional to 1.0075^s with s
            evenly spaced on [0, T]; made for T = 1000, it keeps even m_0 near 1 when T is small.
        max_variance: s in var_t = 2 s (m_t - m_t^2).
        eta: share of the posterior noise that a reverse step injects; 1 in the paper, 0 is deterministic.
    """

    timesteps: int = setting(4, least=2, remedy="use 4, as the paper does")
    schedule: Schedule = setting("linear", remedy="use linear, as the paper does")
    max_variance: float = setting(1.0, above=0, remedy="use 1, as the paper does")
    eta: float = setting(1.0, least=0, most=1, remedy="use 1 as the paper does, or 0 for no noise")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class BridgeSample:
    """One noisy point of the bridge for each image, and all that a loss needs. Tensors are (B, C, H, W) unless said.

    ``target = x_t - x0`` is what the network predicts; in the forward process it is ``m_t (y - x0) + sqrt(var_t) eps``
    (a training may put an x_t of its own in place). ``gap`` (B, 1, 1, 1) is
    m_t - m_{t-1}, by which the target of another class differs (see ``idc.method.loss``).
    """

    x_t: Tensor
    x0: Tensor
    y: Tensor
    t: Tensor  # (B,)
    eps: Tensor
    target: Tensor
    gap: Tensor

    def take(self, rows: slice) -> "BridgeSample":
        """The sample of some of the images."""
        return BridgeSample(*(getattr(self, f.name)[rows] for f in fields(self)))


def mixing(spec: BridgeSpec) -> np.ndarray:
    """m_t, (T,) float64, rising from near 0 (label) to 0.999 (image)."""
    if spec.schedule == "linear":
        return np.linspace(0.001, 0.999, spec.timesteps)
    growth = 1.0075 ** np.linspace(0, spec.timesteps, spec.timesteps)
    m = growth / growth[-1]
    m[-1] = 0.999
    return np.asarray(m)


def default_visits(timesteps: int, *, steps: int = 200) -> tuple[int, ...]:
    """The timesteps at which a reverse process evaluates the network: from T-1 down to 0, no timestep twice.

    For T = 4 this is (3, 1, 0): the authors' (3, 1, 1, 0) without the evaluation that changes nothing. For a larger T
    at most ``steps`` are visited, evenly spaced as in BBDM's linear skip.
    """
    steps = max(3, min(steps, timesteps))
    body = (
        np.arange(timesteps - 1, 1, -(timesteps - 1) / max(1, steps - 2)).astype(int).tolist() if timesteps > 2 else []
    )
    return tuple(dict.fromkeys([timesteps - 1, *body, 1, 0]))


class Bridge(nn.Module):
    """The schedule and both directions of a Brownian bridge. It has no weights; its buffers follow the device."""

    def __init__(self, spec: BridgeSpec | None = None) -> None:
        super().__init__()
        self.spec = spec or BridgeSpec()
        m = mixing(self.spec)
        var = 2 * self.spec.max_variance * (m - m**2)
        self.m: tuple[float, ...] = tuple(m.tolist())
        self.var: tuple[float, ...] = tuple(var.tolist())
        self.m_t: Tensor
        self.var_t: Tensor
        self.gap: Tensor
        self.register_buffer("m_t", torch.tensor(m, dtype=torch.float32), persistent=False)
        self.register_buffer("var_t", torch.tensor(var, dtype=torch.float32), persistent=False)
        gap = torch.tensor(np.diff(m, prepend=0.0), dtype=torch.float32)
        self.register_buffer("gap", gap, persistent=False)

    def check_visits(self, visits: Sequence[int]) -> tuple[int, ...]:
        """``visits`` as a tuple.

        Raises:
            IDCError: unless it starts at T-1, never rises and stays within 0..T-1.
        """
        last = self.spec.timesteps - 1
        visits = list(visits) if isinstance(visits, Sequence) else visits
        given: tuple[int, ...] = Rule(tuple[int, ...], expected="timesteps such as [3, 1, 0]").value("visits", visits)
        falling = all(a >= b for a, b in pairwise(given))
        if not given or given[0] != last or given[-1] < 0 or not falling:
            raise IDCError(
                f"visits = {written(given[:12])}{',...' * (len(given) > 12)}",
                f"timesteps that begin with {last} and never rise, down to 0 at most",
                f"use {','.join(map(str, default_visits(last + 1)))}, or {last} for the one-step answer",
            )
        return given

    def sample(self, x0: Tensor, y: Tensor, t: Tensor, eps: Tensor) -> BridgeSample:
        """The forward process ``x_t = (1 - m_t) x0 + m_t y + sqrt(var_t) eps``.

        Args:
            x0: (B, C, H, W) labels in [-1, 1].
            y: (B, C, H, W) images in [-1, 1].
            t: (B,) int64 in 0..T-1.
            eps: (B, C, H, W) standard normal.
        """
        m = self.m_t[t].view(-1, 1, 1, 1)
        target = m * (y - x0) + self.var_t[t].sqrt().view(-1, 1, 1, 1) * eps
        return BridgeSample(x_t=x0 + target, x0=x0, y=y, t=t, eps=eps, target=target, gap=self.gap[t].view(-1, 1, 1, 1))

    def posterior_variance(self, t: int, n: int) -> float:
        """s2 of the reverse step t -> n (formula: ``step``): the variance that eta = 1 injects; 0 if n = t."""
        ratio = (1 - self.m[t]) / (1 - self.m[n])
        s2 = (self.var[t] - self.var[n] * ratio**2) * self.var[n] / self.var[t]
        return max(s2, 0.0)

    def draws_noise(self, visits: Sequence[int], eta: float) -> bool:
        """Whether the reverse process over ``visits`` injects any noise."""
        return eta > 0 and any(self.posterior_variance(t, n) > 0 for t, n in pairwise(visits))

    def differing(self, draws: int, visits: Sequence[int], eta: float) -> int:
        """How many of ``draws`` of the reverse process are not the same: all, or one if it injects no noise."""
        return draws if self.draws_noise(visits, eta) else 1

    def step(self, x_t: Tensor, x0_hat: Tensor, y: Tensor, t: int, n: int, *, eta: float, eps: Tensor | None) -> Tensor:
        """One reverse step from timestep ``t`` to ``n`` <= t (BBDM, reverse process; ``eta`` scales its noise)::

            s2  = (var_t - var_n ((1 - m_t) / (1 - m_n))^2) var_n / var_t
            x_n = (1 - m_n) x0_hat + m_n y + sqrt((var_n - s2) / var_t) (x_t - (1 - m_t) x0_hat - m_t y)
                  + eta sqrt(s2) eps

        Args:
            x_t, x0_hat, y: (B, C, H, W) on [-1, 1].
            eta: factor of the injected noise.
            eps: (B, C, H, W) standard normal; None only if eta = 0.

        Returns:
            x_n, (B, C, H, W).
        """
        m_t, m_n, var_t, var_n = self.m[t], self.m[n], self.var[t], self.var[n]
        s2 = self.posterior_variance(t, n)
        keep = (max(var_n - s2, 0.0) / var_t) ** 0.5
        # The three terms above, collected by tensor: one pass over each.
        x_n = (1 - m_n - keep * (1 - m_t)) * x0_hat + (m_n - keep * m_t) * y + keep * x_t
        if eps is None or eta == 0 or s2 == 0:
            return x_n
        return x_n + (eta * s2**0.5) * eps
