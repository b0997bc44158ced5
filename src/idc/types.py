"""What every classifier offers, and the range in which its images lie."""

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from idc.errors import IDCError

Logits = Callable[[Tensor], Tensor]  # images (B, C, H, W) in [0, 1] -> logits (B, K)
NOT_FINITE = -2  # in place of a class, where logits are NaN or infinite


def answered(logits: Tensor) -> Tensor:
    """Logits (..., K) -> (...) int64, the class of the largest; ``NOT_FINITE`` where one of them is NaN or infinite:
    that is no answer, though ``argmax`` names a class for it."""
    return torch.where(torch.isfinite(logits).all(-1), logits.argmax(-1), NOT_FINITE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The closed interval in which every pixel lies."""

    lower: float = 0.0
    upper: float = 1.0


@typing.runtime_checkable
class Classifier(typing.Protocol):
    """What an attack, an evaluation or a profile may ask of a model. ``IDC`` and every peer fit.

    A user's module only has to say ``REQUIRED`` (``completed`` adds the rest); any other is wrapped, see
    ``idc.evaluation.adapter.as_classifier``.

    ``stochastic`` says whether two calls on the same images may differ. ``surrogates`` maps a name to a function
    images -> logits that is easier to differentiate than the real answer: the model's own list of weak spots,
    of which the first is what a basic attack follows.
    With ``shares_draws`` the model and its surrogates take ``draws=n`` and answer (n*B, K), draw by draw, doing what
    needs no noise only once for all of them. ``networks`` are the modules whose calls count as network evaluations;
    ``card`` is what a model card says ("Training": what the training took); ``config`` is what the weights do not show,
    a dataclass or a mapping, or None; ``class_names`` are () if unknown; ``bf16``: it multiplies in bf16;
    ``compiled``: its networks are compiled; ``one_pass``: answer and surrogates are read off one pass
    of a network.
    """

    compiled: bool

    @property
    def num_classes(self) -> int: ...
    @property
    def input_shape(self) -> tuple[int, int, int]: ...
    @property
    def stochastic(self) -> bool: ...
    def surrogates(self) -> Mapping[str, Logits]: ...
    @property
    def shares_draws(self) -> bool: ...
    @property
    def networks(self) -> tuple[nn.Module, ...]: ...
    @property
    def card(self) -> Mapping[str, Any]: ...
    @property
    def config(self) -> Any: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def bf16(self) -> bool: ...
    @property
    def one_pass(self) -> bool: ...
    def __call__(self, images: Tensor) -> Tensor: ...


class ClassifierDefaults:
    """What holds of a ``Classifier`` that does not say otherwise."""

    shares_draws: bool = False
    card: Any = MappingProxyType({})
    config: Any = None
    bf16: bool = False
    compiled: bool = False

    @property
    def one_pass(self) -> bool:
        return False

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

    def surrogates(self) -> Mapping[str, Logits]:
        """None: the answer is as easy to differentiate as anything near it."""
        return {}

    @property
    def networks(self) -> tuple[Any, ...]:
        """All of it counts as one network."""
        return (self,)


REQUIRED = ("num_classes", "input_shape", "stochastic", "surrogates")


def says_required(module: nn.Module) -> bool:
    """Whether a module says what a classifier has to, and nothing else by the names ``networks`` and ``card``."""
    networks, card = getattr(module, "networks", (module,)), getattr(module, "card", {})
    return all(hasattr(module, name) for name in REQUIRED) and are_modules(networks) and isinstance(card, Mapping)


def are_modules(networks: object) -> bool:
    """Whether these can be a classifier's ``networks``."""
    return isinstance(networks, tuple | list) and bool(networks) and all(isinstance(m, nn.Module) for m in networks)


def completed(module: nn.Module) -> Classifier:
    """A module that ``says_required``, with the defaults of the rest set on it where it does not say them."""
    rest: dict[str, Any] = {"networks": (module,), "card": {}, "config": None, "class_names": ()}
    rest |= dict.fromkeys(("shares_draws", "bf16", "compiled", "one_pass"), False)
    for name, value in rest.items():
        if not hasattr(module, name):
            setattr(module, name, value)
    return cast(Classifier, module)


def name_classes(names: Sequence[object], count: int) -> tuple[str, ...]:
    """``count`` class names as texts; none are numbered.

    Raises:
        IDCError: for another number of names.
    """
    if count > 1_000_000:  # before so many are numbered
        raise IDCError(f"{count} classes", "at most 1,000,000", "correct their number")
    found = tuple(map(str, names)) or tuple(map(str, range(count)))
    if len(found) != count:
        raise IDCError(f"{len(found)} class names", f"{count}, one a class", "name every class once")
    return found


def check_images(images: Tensor, shape: tuple[int, int, int]) -> None:
    """Refuse what a classifier would silently misread: a wrong shape, integers, NaN, values outside [0, 1].

    Args:
        images: expected (B, C, H, W), floating point, in [0, 1].
        shape: the (C, H, W) that the model takes.

    Raises:
        IDCError: with what was found and how to fix it.
    """
    if not isinstance(images, Tensor):
        raise IDCError(f"images of type {type(images).__name__}", "a torch.Tensor", "use torch.from_numpy")
    if images.ndim != 4 or tuple(images.shape[1:]) != shape:
        raise IDCError(
            f"images of shape {tuple(images.shape)}",
            f"(B, {', '.join(map(str, shape))})",
            "resize them, or add the batch dimension with images[None]",
        )
    if not images.is_floating_point():
        raise IDCError(f"images of {images.dtype}", "floating point in [0, 1]", "divide 8-bit images by 255")
    if torch.compiler.is_exporting() or images.numel() == 0:  # a graph cannot refuse values
        return
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()  # one wait for a GPU, not two
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # also catches NaN, for which every comparison is false
        raise IDCError(
            f"pixels in [{low:.4g}, {high:.4g}]",
            "finite values in [0, 1]",
            "divide 8-bit images by 255, undo any normalisation and remove NaN",
        )


def straight_through(exact: Logits, smooth: Logits) -> Logits:
    """The values of ``exact`` with the gradient of ``smooth``: for a step that cannot be differentiated.

    Both take (B, C, H, W) and return tensors of the same shape, logits or images.
    """

    def both(images: Tensor) -> Tensor:
        approximate = smooth(images)
        return approximate + (exact(images) - approximate).detach()

    return both
