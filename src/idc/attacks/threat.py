"""What an attacker may do to an image: a norm, a radius, the range of a pixel."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from idc.errors import IDCError
from idc.noise import Streams
from idc.types import Bounds

Norm = Literal["linf", "l2", "l1"]
_SPARSE = 0.05  # share of the coordinates that a step in L1 moves, unless told otherwise


def _each(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to go with images."""
    return values.view(-1, *[1] * (like.ndim - 1))


def l2(delta: Tensor) -> Tensor:
    """(B, ...) -> (B,) Euclidean length."""
    return torch.linalg.vector_norm(delta.flatten(1), dim=1)


@dataclass(frozen=True, slots=True)
class Threat:
    """The set of images that an attacker may present in place of a given one.

    Args:
        norm: "linf", "l2" or "l1".
        eps: radius of the ball: units of pixels on [0, 1] (linf), Euclidean length over all pixels (l2), sum of the
            changes of all pixels (l1).
        bounds: of every pixel.

    Raises:
        IDCError: for another norm or a radius that is not a number of 0 or more.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise IDCError(f"norm {self.norm!r}", "linf, l2 or l1", "correct --norm")
        if not 0 <= self.eps < float("inf"):
            raise IDCError(f"eps = {self.eps}", "0 or more, on [0, 1]", "write 8/255 or 0.0314")
        if self.norm == "linf" and self.eps > 1:
            raise IDCError(
                f"eps = {self.eps:g}", "at most 1 (pixels lie in [0, 1])", "divide by 255: write 8/255, not 8"
            )

    def refuse_l1(self, attack: str) -> None:
        """Raise IDCError if this is a set of L1, in which ``attack`` has no form here."""
        if self.norm == "l1":
            raise IDCError(f"norm l1 for {attack}", "linf or l2", "use --protocol adaptive, quick, apgd or pgd")

    def project(self, x: Tensor, images: Tensor, radius: Tensor | None = None) -> Tensor:
        """The point of the set nearest to ``x``; both (B, C, H, W). In L1 exactly (Croce and Hein, ICML 2021, section
        2.2), elsewhere up to the order of the two clamps. ``radius`` (B,) gives each image a ball of its own in place
        of ``eps``."""
        if self.norm == "l1":
            sizes = torch.full((len(x),), self.eps, device=x.device) if radius is None else radius
            x = _moved(images, _in_l1_ball(x - images, images, self.bounds, sizes), sizes)
        elif self.norm == "linf":
            eps = self.eps if radius is None else _each(radius, x)
            x = torch.clamp(x, images - eps, images + eps)
        else:
            delta = x - images
            size = self.eps if radius is None else radius
            x = images + delta * _each((size / l2(delta).clamp(min=1e-12)).clamp(max=1), delta)
        return x.clamp(self.bounds.lower, self.bounds.upper)

    def steepest(self, gradient: Tensor, share: Tensor | None = None) -> Tensor:
        """The direction of unit norm along which a linear loss rises fastest; 0 where the gradient is 0 or not
        finite.

        In L1 that would be a single coordinate. There it is the signs of the largest of them (Tramer and Boneh, NeurIPS
        2019): a ``share`` (B,) of all, by default a twentieth.
        """
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        if self.norm == "linf":
            return gradient.sign()
        if self.norm == "l1":
            size = gradient.flatten(1).abs()
            shares = torch.full((len(size),), _SPARSE, device=size.device) if share is None else share
            last = (shares * size.shape[1]).long().clamp(1, size.shape[1]) - 1
            least = size.sort(dim=1, descending=True).values.gather(1, last[:, None])
            signs = torch.where(size >= least, gradient.flatten(1).sign(), 0)
            return (signs / signs.abs().sum(1, keepdim=True).clamp(min=1)).view_as(gradient)
        # First to unit maximum: the square of a small float32 gradient would vanish.
        gradient = gradient / _each(gradient.flatten(1).abs().amax(1).clamp(min=1e-30), gradient)
        return gradient / _each(l2(gradient).clamp(min=1e-12), gradient)

    def free(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The gradient at ``x``; in L1 without the coordinates that a bound keeps from following it: a step of equal
        lengths that goes for the same few pixels when they are used up would move nothing."""
        if self.norm != "l1":
            return gradient
        stuck = ((x >= self.bounds.upper) & (gradient > 0)) | ((x <= self.bounds.lower) & (gradient < 0))
        return torch.where(stuck, 0, gradient)

    def random(self, images: Tensor, streams: Streams) -> Tensor:
        """A random point of the set: uniform in the cube (linf); of uniform direction and length (l2, l1)."""
        shape = tuple(images.shape[1:])
        if self.norm == "linf":
            delta = self.eps * (2 * streams.uniform(shape) - 1)
        else:
            direction = streams.normal(shape)
            if self.norm == "l1":  # uniform on the sphere: exponential lengths, random signs
                direction = direction.sign() * -streams.of("sizes").uniform(shape).log()
            unit = direction / _each(_length(direction, self.norm), direction)
            delta = unit * _each(self.eps * streams.of("length").uniform((1,))[:, 0], unit)
        return self.project(images + delta.to(images), images)

    def size(self, x: Tensor, images: Tensor) -> Tensor:
        """(B,) the norm of the perturbation."""
        return _length(x - images, self.norm)


def _length(delta: Tensor, norm: Norm) -> Tensor:
    """(B, ...) -> (B,)."""
    if norm == "l2":
        return l2(delta)
    sizes = delta.flatten(1).abs()
    return sizes.amax(1) if norm == "linf" else sizes.sum(1)


def _in_l1_ball(delta: Tensor, images: Tensor, bounds: Bounds, radius: Tensor) -> Tensor:
    """The change nearest to ``delta`` of an L1 norm of ``radius`` (B,) at most that keeps ``images`` within ``bounds``,
    as float64.

    It is sign(delta) min(max(|delta| - t, 0), room), for the t >= 0 at which the norm is the radius, or 0 if it is
    smaller; ``room`` is what the bound leaves in that direction. The norm falls with t, linearly between the points
    |delta| - room and |delta| of all coordinates: sorted, they give the t of each row exactly.
    """
    change = delta.flatten(1).double()
    size, sign, own = change.abs(), change.sign(), images.flatten(1).double()
    room = torch.where(sign > 0, bounds.upper - own, own - bounds.lower).clamp(min=0)
    points, order = torch.cat([(size - room).clamp(min=0), size], 1).sort(dim=1)
    slopes = torch.where(order < size.shape[1], -1.0, 1.0).to(change).cumsum(1)
    falls = slopes[:, :-1] * points.diff(dim=1)
    whole = torch.minimum(size, room).sum(1, keepdim=True)
    norms = torch.cat([whole, whole + falls.cumsum(1)], 1)  # at each of the points
    wanted = radius.to(change)[:, None]
    at = ((norms > wanted).sum(1, keepdim=True) - 1).clamp(min=0)
    point, norm, slope = (v.gather(1, at) for v in (points, norms, slopes))
    t = torch.where(whole > wanted, point + (norm - wanted) / (-slope).clamp(min=1), 0)
    return (sign * torch.minimum((size - t).clamp(min=0), room)).view_as(delta)


def _moved(images: Tensor, change: Tensor, radius: Tensor) -> Tensor:
    """``images`` + ``change``, whose L1 norm is ``radius`` (B,) at most, so rounded that the difference is no longer
    either: what rounding adds in thousands of coordinates is taken back in as many of them as it takes."""
    x = (images + change).to(images)
    moved = (x.double() - images).abs().flatten(1)
    nearer = torch.nextafter(x, images)  # rounding went too far by less than this
    room = torch.where(moved > change.flatten(1).abs(), (x.double() - nearer).abs().flatten(1), 0)
    before, excess = room.cumsum(1) - room, moved.sum(1, keepdim=True) - radius[:, None]
    return torch.where((before < excess) & (room > 0), nearer.flatten(1), x.flatten(1)).view_as(x)
