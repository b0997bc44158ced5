"""What every classifier offers, and the range in which its images lie."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from idc.errors import IDCError

Logits = Callable[[Tensor], Tensor]  # images (B, C, H, W) in [0, 1] -> logits (B, K)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The closed interval in which every pixel lies."""

    lower: float = 0.0
    upper: float = 1.0


@runtime_checkable
class Classifier(Protocol):
    """What an attack, an evaluation or a profile may ask of a model. ``IDC``, every peer and a user's own module fit.

    ``stochastic`` says whether two calls on the same images may differ. ``surrogates`` maps a name to a function
    images -> logits that is easier to differentiate than the real answer: the model's own list of weak spots.

    A model may also have ``networks``, the modules whose calls count as network evaluations (by default itself),
    ``card``, a mapping whose "Training" says what its training took, and ``shares_draws = True``: it and its surrogates
    then take ``draws=n`` and answer (n*B, K), draw by draw, doing what needs no noise only once for all of them.
    """

    @property
    def num_classes(self) -> int: ...
    @property
    def input_shape(self) -> tuple[int, int, int]: ...
    @property
    def stochastic(self) -> bool: ...
    def surrogates(self) -> Mapping[str, Logits]: ...
    def __call__(self, images: Tensor) -> Tensor: ...


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
        IDCError: with what was found and how to mend it.
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
    low, high = (v.item() for v in torch.aminmax(images.detach()))
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # also catches NaN, for which every comparison is false
        raise IDCError(
            f"pixels in [{low:.4g}, {high:.4g}]",
            "finite values in [0, 1]",
            "divide 8-bit images by 255, undo any normalisation and remove NaN",
        )


def networks_of(classifier: Classifier) -> tuple[nn.Module, ...]:
    """The modules whose calls count as network evaluations: those in ``networks``, or the classifier itself."""
    named = getattr(classifier, "networks", None)
    if isinstance(named, tuple | list) and named and all(isinstance(m, nn.Module) for m in named):
        return tuple(named)
    return (classifier,) if isinstance(classifier, nn.Module) else ()  # others may mean something else by that name


def straight_through(exact: Logits, smooth: Logits) -> Logits:
    """The values of ``exact`` with the gradient of ``smooth``: for a step that cannot be differentiated.

    Both take (B, C, H, W) and return tensors of the same shape, logits or images.
    """

    def both(images: Tensor) -> Tensor:
        approximate = smooth(images)
        return approximate + (exact(images) - approximate).detach()

    return both
