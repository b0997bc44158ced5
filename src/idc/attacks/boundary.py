"""FAB: towards the decision boundary, and along it to the point nearest to the image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from idc.attacks.minimum_norm import Nearest
from idc.attacks.objective import Margin, likely_targets
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.noise import Streams
from idc.types import Bounds, answered

_LARGEST_SHARE = 0.1  # of the image's own projection in a step
_OVERSHOOT, _BACK = 1.05, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class FAB:
    """The targeted Fast Adaptive Boundary attack (Croce and Hein, ICML 2020), all targets of all images in one batch.

    The margin between the wanted and the true class is taken as linear; the point and the image are projected onto its
    zero within the box, and the next point lies between both, a little further. A point that is adversarial is kept if
    it is nearer than those before, and the next one starts nine tenths of the way from the image to it. An image leaves
    when one of its points lies within the threat. Not for an answer with noise, whose boundary moves: its images come
    back as they are.

    Args:
        threat: norm, radius, bounds.
        surrogate: the function whose gradient is followed.
        steps: gradients for each target.
        targets: likeliest wrong classes.
        nearest: no image leaves, and the nearest adversarial example comes back, wherever it lies.
    """

    threat: Threat
    surrogate: str = ANSWER
    steps: int = 100
    targets: int = 9
    nearest: bool = False

    def __post_init__(self) -> None:
        self.threat.refuse_l1("FAB")

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        result = images.clone()
        if not len(images) or self.threat.eps == 0 or target.noisy(self.surrogate, images):
            return result
        goals = likely_targets(target.logits(self.surrogate, images, streams)[0], classes, self.targets)
        many, goals = len(goals), goals.flatten()
        row = torch.arange(len(images), device=images.device).repeat(many)
        x, held = images[row], Nearest(images[row], self.threat)
        for at in range(self.steps):
            ids = streams.take(row).of("noise", at)
            margin, gradient, logits = target.gradient(
                self.surrogate, x, classes[row], ids, objective=Margin(), targets=goals
            )
            margin, gradient = margin.nan_to_num(), gradient.nan_to_num()
            wrong = answered(logits) != classes[row]
            if self.nearest:
                held.offer(x[wrong], wrong.nonzero()[:, 0])
            else:
                inside = wrong & (self.threat.size(x, images[row]) <= self.threat.eps)
                result[row[inside]] = x[inside]
                keep = ~torch.isin(row, row[inside])
                x, row, goals, margin, gradient, wrong = (v[keep] for v in (x, row, goals, margin, gradient, wrong))
                if not len(row):
                    break
            stepped = self._step(x, images[row], margin, gradient)
            back = images[row] + _BACK * (x - images[row])
            x = torch.where(wrong.view(-1, 1, 1, 1), back, stepped)
        if self.nearest:
            run = held.size.view(many, -1).argmin(0) * len(images) + torch.arange(len(images), device=images.device)
            return held.x[run]
        return result

    def _step(self, x: Tensor, images: Tensor, margin: Tensor, gradient: Tensor) -> Tensor:
        """From points that are not adversarial over the linear boundary, biased towards the images."""
        gap_of_image = -margin - (gradient * (images - x)).flatten(1).sum(1)
        own = to_plane(x, gradient, -margin, self.threat)
        other = to_plane(images, gradient, gap_of_image, self.threat)
        far, near = (self.threat.size(d, torch.zeros_like(d)).clamp(min=1e-8) for d in (other, own))
        share = (near / (near + far)).clamp(max=_LARGEST_SHARE).view(-1, 1, 1, 1)
        moved = (1 - share) * (x + _OVERSHOOT * own) + share * (images + _OVERSHOOT * other)
        return moved.clamp(self.threat.bounds.lower, self.threat.bounds.upper)


def to_plane(x: Tensor, normal: Tensor, gap: Tensor, threat: Threat) -> Tensor:
    """The smallest change d of each point with normal . d = gap that keeps it in the box; the largest step that way
    where the box does not reach so far.

    Every pixel moves against its share of the gap as fast as the norm lets it (all alike in L-inf, as |normal| in L2)
    until it meets the box. What they gain together grows piecewise linearly in time; its breakpoints are sorted.

    Args:
        x, normal: (B, C, H, W); gap: (B,).

    Returns:
        (B, C, H, W).
    """
    weight = normal.flatten(1).abs()
    direction = normal.flatten(1).sign() * gap.sign()[:, None]
    room = _room(x.flatten(1), direction, threat.bounds)
    speed = torch.ones_like(weight) if threat.norm == "linf" else weight
    met, order = (room / speed.clamp(min=1e-30)).sort(dim=1)
    gain, rate = ((weight * v).gather(1, order).cumsum(1) for v in (room, speed))
    reached = gain + met * (rate[:, -1:] - rate)  # at each breakpoint
    stopped = (reached < gap.abs()[:, None]).sum(1, keepdim=True)  # pixels that have met the box
    before = (stopped - 1).clamp(min=0)
    some = stopped > 0
    done = torch.where(some, gain.gather(1, before), 0)
    left = rate[:, -1:] - torch.where(some, rate.gather(1, before), 0)
    time = torch.where(left > 0, (gap.abs()[:, None] - done) / left.clamp(min=1e-30), met[:, -1:])
    return (direction * torch.minimum(time * speed, room)).view_as(x)


def _room(x: Tensor, direction: Tensor, bounds: Bounds) -> Tensor:
    """How far each pixel may move in its direction."""
    return torch.where(direction > 0, bounds.upper - x, torch.where(direction < 0, x - bounds.lower, 0)).clamp(min=0)
