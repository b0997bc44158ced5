"""Steps that pass a gradient as if they were not there: the straight-through estimator (Bengio et al., 2013), as BPDA's
identity (Athalye et al., ICML 2018), for a model's code as it is."""

from collections import deque
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_ROUND = {
    "round",
    "floor",
    "ceil",
    "trunc",
    "fix",
    "sign",
    "sgn",
    "heaviside",
    "clamp",
    "clip",
    "clamp_min",
    "clamp_max",
}
_DIVIDE = {"floordiv", "floor_divide"}
_COMPARE = {"gt": 1.0, "ge": 1.0, "lt": -1.0, "le": -1.0, "greater": 1.0, "greater_equal": 1.0, "less": -1.0,
            "less_equal": -1.0}  # fmt: skip
_BUCKET = {"bucketize", "searchsorted"}
_CONVERT = {"to", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long", "short", "char", "byte"}
# What is done to numbers that stand for a step, as far as their gradient is carried along.
_CARRY = {
    "add", "sub", "rsub", "mul", "div", "rdiv", "truediv", "true_divide", "neg", "mean", "sum", "cat", "stack", "clone",
    "contiguous", "reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze", "permute", "transpose", "expand",
    "repeat", "movedim", "getitem", "radd", "rmul", *_ROUND, *_DIVIDE,
}  # fmt: skip


class Undetached(TorchFunctionMode):
    """While it is active, ``detach``, ``data`` and ``no_grad`` hide nothing: the gradient is of all that is computed.

    Not of what the model does outside of torch, in TorchScript, in inference mode or in an autograd function of its
    own. What a model keeps of a call has a graph then, see ``let_go``.

    Attributes:
        undone: whether there was anything to undo since it was entered.
    """

    undone = False

    def __enter__(self) -> Self:
        self._graded, self.undone = torch.is_grad_enabled(), False
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.set_grad_enabled(self._graded)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            self.undone |= not args[0]
            return func(True) if args[0] else None
        name = getattr(func, "__name__", "")
        hides = name in ("detach", "detach_") or func == torch.Tensor.data.__get__  # type: ignore[attr-defined]
        if hides and args[0].requires_grad and torch.is_grad_enabled():
            self.undone = True
            return args[0] if name == "detach_" else args[0].view_as(args[0])
        return self._called(func, args, kwargs or {})

    def _called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Any other function."""
        return func(*args, **kwargs)


def let_go(module: nn.Module) -> None:
    """Take from what a module keeps (parameters, buffers, attributes, and lists and dictionaries of such) the graph of
    the calls that left it there, which would grow with every call."""
    for own in module.modules():
        _without_graph(vars(own))
        for held in list(vars(own).values()):
            _without_graph(held)


def _without_graph(held: Any) -> None:
    """The same for the tensors in a list or dictionary."""
    items = held.items() if type(held) is dict else enumerate(held) if isinstance(held, list | deque) else ()
    for key, value in list(items):
        if isinstance(value, Tensor) and value.grad_fn is not None:
            alone = value.detach()  # not in place: the graph may have to tell
            held[key] = nn.Parameter(alone, requires_grad=False) if isinstance(value, nn.Parameter) else alone


class StraightThrough(Undetached):
    """While it is active, steps have their values and the gradient of the identity, and nothing is detached.

    Rounding of every kind, ``sign``, ``heaviside`` and ``clamp`` (also outside), whole-number division, comparisons,
    ``bucketize`` and conversions to whole numbers that are turned into floating point again, the one-hot vector of an
    ``argmax`` (the gradient of softmax). Not: choices by ``where``, indices or sorting, and functions without a slope
    in floating point (a saturated sigmoid).
    """

    def __init__(self) -> None:
        super().__init__()
        # By identity, each with the tensor itself, so that no other takes its place.
        self._soft: dict[int, tuple[Tensor, Tensor]] = {}
        self._largest: dict[int, tuple[Tensor, Tensor]] = {}

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._soft.clear()
        self._largest.clear()

    def _called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        full = getattr(func, "__name__", "")
        name = full.strip("_")
        inplace = full.endswith("_") and not full.endswith("__")
        if name == "one_hot" and id(args[0]) in self._largest:
            return self._one_hot(func, args, kwargs)
        soft = tuple(self._softened(a) for a in (args[:1] if name == "getitem" else args))
        soft += args[len(soft) :]  # an index stays what it is
        if any(a is not b for a, b in zip(soft, args, strict=True)) and name in _CARRY | _CONVERT and not inplace:
            return self._carried(func, name, args, kwargs, soft)
        found = self._step(func, name, args, kwargs)
        if inplace and found is not None and args[0].is_floating_point():
            return args[0].copy_(found)
        return func(*args, **kwargs) if found is None else found

    def _step(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a step of ``args`` gives, with a gradient; None of anything else."""
        x: Any = args[0] if args else None
        if name in _BUCKET and isinstance(x, Tensor):
            return self._noted(func(*args, **kwargs), x if name == "bucketize" else args[1])
        other: Any = args[1] if len(args) > 1 else kwargs.get("other")
        if name in _COMPARE and (_smooth(x) or _smooth(other)):
            return self._noted(func(*args, **kwargs), _COMPARE[name] * (x - other))
        if not isinstance(x, Tensor) or not _smooth(x):
            return None
        if name in _ROUND:
            return _straight(_plain(func)(x, *args[1:], **kwargs), x)
        if name in _DIVIDE or (name in ("div", "divide") and kwargs.get("rounding_mode")):
            return _straight(_plain(func)(*args, **kwargs), x / other)
        if name in _CONVERT:
            found = func(*args, **kwargs)
            return found if found.is_floating_point() else self._noted(found, x)
        if name == "argmax" and x.ndim == 2 and (args[1:] or (kwargs.get("dim"),))[0] in (1, -1):
            found = func(*args, **kwargs)
            self._largest[id(found)] = (found, x)
            return found
        return None

    def _one_hot(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        logits, found = self._largest[id(args[0])][1], func(*args, **kwargs)
        whole = F.pad(logits.softmax(1), (0, found.shape[-1] - logits.shape[1]))
        return self._noted(found, whole.view_as(found))

    def _carried(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], soft: tuple[Any, ...]
    ) -> Any:
        """What ``func`` makes of numbers that stand for a step, and of the gradient that they carry."""
        found = func(*args, **kwargs)
        own = soft[0] if name in _CONVERT else self._step(func, name, soft, kwargs)
        own = func(*soft, **kwargs) if own is None else own
        return _straight(found, own.to(found.dtype)) if found.is_floating_point() else self._noted(found, own)

    def _noted(self, found: Tensor, smooth: Tensor) -> Tensor:
        """``found``, of whole numbers or truth values, which goes on to stand for ``smooth`` as well."""
        self._soft[id(found)] = (found, _straight(found.to(smooth.dtype), smooth.expand(found.shape)))
        return found

    def _softened(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._soft[id(value)][1] if id(value) in self._soft else value
        if isinstance(value, list | tuple) and any(isinstance(v, Tensor) and id(v) in self._soft for v in value):
            return type(value)([self._softened(v) for v in value])
        return value


def _plain(func: Any) -> Callable[..., Any]:
    """``func``, or for one that writes into its tensor, the same on a copy."""
    name = getattr(func, "__name__", "")
    if not name.endswith("_") or name.endswith("__"):
        return func
    return lambda x, *args, **kwargs: func(x.detach().clone(), *args, **kwargs)


def _smooth(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.requires_grad


def _straight(value: Tensor, smooth: Tensor) -> Tensor:
    """The values of the one, the gradient of the other."""
    zero = smooth - smooth.detach()
    return value.detach() + zero.nan_to_num(0.0)
