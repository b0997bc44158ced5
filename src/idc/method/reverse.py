"""The reverse process: from the image end of the bridge to the network's prediction of the label (BBDM, sampling).

``x_{T-1} := y``; at each visited t ``x0_hat = x_t - U(x_t, t)``, and from there to the next by ``Bridge.step``; the
last x0_hat is the result.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from idc import noise as streams
from idc.method.bridge import Bridge

Noise = Callable[[int, Tensor], Tensor]  # (reverse step, x) -> standard normal like x


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of the network: x_t went in, x0_hat came out; (B, C, H, W) on [-1, 1]."""

    t: int
    x_t: Tensor
    x0_hat: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Reverse:
    """The chain of a network's evaluations along a bridge.

    Args:
        network: U(x_t, t, y), which predicts x_t - x0.
        bridge: its schedule.
        clip: clamp x0_hat to [-1, 1] after each evaluation.
        bf16: the network computes in bf16; all else stays float32.
        checkpointing: recompute each evaluation in the backward pass: the memory of one, not of all.
    """

    network: nn.Module
    bridge: Bridge
    clip: bool
    bf16: bool = False
    checkpointing: bool = False

    def x0_hat(self, x_t: Tensor, t: int, y: Tensor) -> Tensor:
        """One evaluation: the label that the network sees at timestep ``t``; all (B, C, H, W)."""
        # A 0-d timestep, filled on the device: no host copy, and the network broadcasts it.
        t_now = torch.full((), t, dtype=torch.int64, device=x_t.device)
        with torch.autocast(x_t.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            if self.checkpointing and torch.is_grad_enabled():
                again = self.network.training  # dropout must fall as it did
                moved = checkpoint(self.network, x_t, t_now, y, use_reentrant=False, preserve_rng_state=again)
            else:
                moved = self.network(x_t, t_now, y)
        x0_hat = x_t - moved
        return x0_hat.clamp(-1, 1) if self.clip else x0_hat

    def steps(self, y: Tensor, visits: Sequence[int], *, eta: float, noise: Noise, draws: int = 1) -> Iterator[Step]:
        """Every evaluation from the image end on. The first sees no noise, so all draws share it.

        Args:
            y: (B, C, H, W) images on [-1, 1].
            visits: timesteps, from T-1 down.
            eta: share of the noise, in [0, 1].
            noise: of each reverse step.
            draws: of the noise.

        Yields:
            (B, ...) at first, then (draws*B, ...), draw by draw.
        """
        x = x0_hat = y
        for index, t in enumerate(visits):
            if index:
                before = visits[index - 1]
                if index == 1 and draws > 1:
                    x, y, x0_hat = (v.repeat(draws, 1, 1, 1) for v in (x, y, x0_hat))
                eps = noise(index - 1, x) if eta > 0 and self.bridge.posterior_variance(before, t) > 0 else None
                moved = self.bridge.step(x, x0_hat, y, before, t, eta=eta, eps=eps)
                if before == t:  # nothing moved: the same evaluation again would give the same x0_hat
                    yield Step(t, x, x0_hat)
                    continue
                x = moved
            x0_hat = self.x0_hat(x, t, y)
            yield Step(t, x, x0_hat)


def image_end(images: Tensor, labels: Tensor) -> Tensor:
    """The image end of the bridge: images in [0, 1] on [-1, 1], of the labels' type."""
    return 2 * images.to(labels.dtype) - 1


def of_each(logits: Tensor, copies: int) -> Tensor:
    """(B, K) for each of ``copies`` draws that do not differ: (copies*B, K)."""
    return logits.repeat(copies, 1) if copies > 1 else logits


def noise_source(generator: torch.Generator | None, fixed: Tensor | None = None) -> Noise:
    """Noise of a generator (None: the global one), or what is in ``fixed``, a slice a reverse step."""

    def draw(step: int, x: Tensor) -> Tensor:
        if fixed is not None:
            return fixed[step].to(x)
        device = x.device if generator is None else generator.device
        return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)

    return draw


def noise_of_images(ids: Tensor, seed: int, draws: int) -> Noise:
    """Each image's own noise, whatever batch it is in: ``ids`` (B,) are their identities."""

    def draw(step: int, x: Tensor) -> Tensor:
        return streams.normal(ids, tuple(x.shape[1:]), seed=seed, draws=draws, step=step).flatten(0, 1).to(x.dtype)

    return draw
