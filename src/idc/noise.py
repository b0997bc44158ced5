"""Noise that belongs to an image, not to its place in a batch.

Verdicts on a stochastic classifier must not depend on batch size, order or sharding. So the noise of an image is a pure
function of (seed, image id, draw, step, pixel): a counter-based generator (the SplitMix64 finaliser; Steele, Lea and
Flood, OOPSLA 2014) followed by Box-Muller, in batched integer arithmetic on the images' own device. Nothing here reads
or changes the global generator.
"""

import hashlib
import math

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own shift keeps the sign)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shift(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ _shift(value, 31)


def derive_seed(*keys: object) -> int:
    """A 63-bit seed from any printable keys: the same on every machine, unrelated for different keys."""
    return int.from_bytes(hashlib.sha256(repr(keys).encode()).digest()[:8], "big") >> 1


def normal(ids: Tensor, shape: tuple[int, ...], *, seed: int, draws: int = 1, step: int = 0) -> Tensor:
    """Standard normal noise for each image and draw.

    Args:
        ids: (B,) int64, the images' identities (for example their index in the data set).
        shape: the shape of one image, such as (C, H, W).
        seed: of the whole evaluation.
        draws: independent draws for each image.
        step: which reverse step the noise is for; different steps are independent.

    Returns:
        (draws, B, *shape) float32 on the device of ``ids``.
    """
    pixels = math.prod(shape)
    draw = torch.arange(draws, device=ids.device).view(-1, 1)
    key = _mix(_mix(ids.view(1, -1) + _signed(derive_seed("noise", seed, step))) + draw)
    counter = torch.arange(2 * ((pixels + 1) // 2), device=ids.device) * _signed(0x9E3779B97F4A7C15)
    bits = _mix(key.unsqueeze(-1) + counter)
    uniform = (_shift(bits, 40).to(torch.float32) + 0.5) * 2.0**-24
    half = uniform.shape[-1] // 2
    radius = torch.sqrt(-2 * torch.log(uniform[..., :half]))
    angle = 2 * math.pi * uniform[..., half:]
    values = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
    return values[..., :pixels].reshape(draws, len(ids), *shape)
