"""Noise that belongs to an image, not to its place in a batch.

Verdicts on a stochastic classifier must not depend on batch size, order or sharding. So the noise of an image is a pure
function of (seed, image id, draw, step, pixel): a counter-based generator (the SplitMix64 finaliser; Steele, Lea and
Flood, OOPSLA 2014) followed by Box-Muller, in batched integer arithmetic on the images' own device. Nothing here reads
or changes the global generator.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

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


def _keys(ids: Tensor, draw: Tensor, seed: int, step: int) -> Tensor:
    return _mix(_mix(ids + _signed(derive_seed("noise", seed, step))) + draw)


def _uniform(keys: Tensor, count: int) -> Tensor:
    """``keys`` (...) -> (..., count) float32 in (0, 1), never 0 or 1."""
    counter = torch.arange(count, device=keys.device) * _signed(0x9E3779B97F4A7C15)
    return (_shift(_mix(keys.unsqueeze(-1) + counter), 40).to(torch.float32) + 0.5) * 2.0**-24


def _gaussian(keys: Tensor, count: int) -> Tensor:
    """``keys`` (...) -> (..., count) float32 standard normal."""
    uniform = _uniform(keys, 2 * ((count + 1) // 2))
    half = uniform.shape[-1] // 2
    radius = torch.sqrt(-2 * torch.log(uniform[..., :half]))
    angle = 2 * math.pi * uniform[..., half:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)[..., :count]


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
    draw = torch.arange(draws, device=ids.device).view(-1, 1)
    return _gaussian(_keys(ids.view(1, -1), draw, seed, step), math.prod(shape)).reshape(draws, len(ids), *shape)


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """The random numbers of a batch of images: each image's own, whatever batch it is in.

    Args:
        ids: (B,) int64, the images' identities.
        seed: of all of them.
    """

    ids: Tensor
    seed: int

    def of(self, *keys: object) -> "Streams":
        """Other streams of the same images, unrelated to these and to those of any other keys."""
        return Streams(self.ids, derive_seed(self.seed, *keys))

    def take(self, rows: Tensor) -> "Streams":
        """The streams of some of the images."""
        return Streams(self.ids[rows], self.seed)

    def salted(self) -> Tensor:
        """(B,) identities that no other streams of these images have: several streams may then share a batch."""
        return _mix(self.ids + _signed(derive_seed("salted", self.seed)))

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """``(B, *shape)`` float32, uniform in (0, 1)."""
        keys = _keys(self.ids, torch.zeros_like(self.ids), self.seed, 0)
        return _uniform(keys, math.prod(shape)).reshape(len(self.ids), *shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """``(B, *shape)`` float32, standard normal."""
        return normal(self.ids, shape, seed=self.seed)[0]

    def feeding(self, draws: range) -> "PerImage":
        """A context in which a model that is given the images once for each of ``draws`` (draw by draw) takes its
        randomness from these streams."""
        draw = torch.arange(draws.start, draws.stop, device=self.ids.device).repeat_interleave(len(self.ids))
        return PerImage(self.ids.repeat(len(draws)), draw, self.seed)


class PerImage(TorchFunctionMode):
    """While it is active, random tensors with one row an image come from the images' own streams.

    It answers torch's calls for random numbers that name no generator and whose first dimension is the batch:
    ``randn``, ``rand``, ``randn_like``, ``rand_like``, ``normal_``, ``uniform_``, ``bernoulli`` and dropout. Everything
    else is left to the global generator. The n-th such call draws what ``normal(..., step=n)`` would.

    Args:
        ids: (R,) the image of each row.
        draw: (R,) its draw.
        seed: of the streams.
    """

    def __init__(self, ids: Tensor, draw: Tensor, seed: int) -> None:
        super().__init__()
        self.ids, self.draw, self.seed, self.calls = ids, draw, seed, 0

    def _rows(self, shape: tuple[int, ...], device: torch.device, fill: Callable[[Tensor, int], Tensor]) -> Tensor:
        keys = _keys(self.ids, self.draw, self.seed, self.calls)
        self.calls += 1
        return fill(keys, math.prod(shape[1:])).reshape(shape).to(device)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = _RANDOM.get(func)
        if kind is None or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        like = args[0] if args and isinstance(args[0], Tensor) else None
        shape = tuple(like.shape) if like is not None else _size(args, kwargs)
        if not shape or shape[0] != len(self.ids):
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            device = like.device if like is not None else torch.device(kwargs.get("device") or "cpu")
            if kind == "dropout":
                return self._dropout(func, like, args, kwargs)
            if kind == "bernoulli":
                p = kwargs.get("p", args[1] if len(args) > 1 else like)
                return (self._rows(shape, device, _uniform) < p).to(like.dtype)  # type: ignore[operator, union-attr]
            values = self._rows(shape, device, _gaussian if "normal" in kind or "randn" in kind else _uniform)
            if kind in ("normal_", "uniform_"):
                first, second = _two(args, kwargs, kind)
                scaled = first + second * values if kind == "normal_" else first + (second - first) * values
                return like.copy_(scaled)  # type: ignore[union-attr]
            dtype = kwargs.get("dtype") or (like.dtype if like is not None else torch.get_default_dtype())
            return values.to(dtype).requires_grad_(bool(kwargs.get("requires_grad")))

    def _dropout(self, func: Any, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
        training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
        if not training or p in (0, 1):
            return func(*args, **kwargs)
        keep = self._rows(tuple(x.shape), x.device, _uniform) >= p
        return x * keep.to(x.dtype) / (1 - p)


_RANDOM: dict[Any, str] = {
    torch.randn: "randn", torch.randn_like: "randn", torch.rand: "rand", torch.rand_like: "rand",
    torch.Tensor.normal_: "normal_", torch.Tensor.uniform_: "uniform_", torch.bernoulli: "bernoulli",
    torch.Tensor.bernoulli: "bernoulli", torch.nn.functional.dropout: "dropout", torch.dropout: "dropout",
}  # fmt: skip


def _size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    given = kwargs.get("size", args[0] if len(args) == 1 and not isinstance(args[0], int) else args)
    return tuple(int(v) for v in given)


def _two(args: tuple[Any, ...], kwargs: dict[str, Any], kind: str) -> tuple[float, float]:
    names = ("mean", "std") if kind == "normal_" else ("from", "to")
    values = [args[i] if len(args) > i else kwargs.get(n, d) for i, n, d in ((1, names[0], 0.0), (2, names[1], 1.0))]
    return float(values[0]), float(values[1])
