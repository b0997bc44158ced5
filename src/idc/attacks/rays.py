"""RayS: a search along rays through the corners of a cube, told nothing but whether an answer is wrong."""

from dataclasses import dataclass

import torch
from torch import Tensor

from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.noise import Streams
from idc.types import answered

_NEAR, _LEAST = 1 / 64, 1e-6  # how exactly a boundary is found: as a share of the radius, and what float32 can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class RayS:
    """The decision-based attack of Chen and Gu (KDD 2020) for L-inf.

    It looks for the ray, +1 or -1 in each pixel, on which the nearest image of another answer lies: signs are turned in
    ever smaller blocks, and a turn stays if the boundary is nearer on the new ray, which one query tells. Scores and
    gradients, and what a model may do to them, have no part in it. An image for which the boundary is within the radius
    is done, but of a stochastic model, for which it may be so by chance.

    Args:
        threat: L-inf and its radius.
        queries: for each image; of a stochastic model a query counts once for each draw.
        draws: of the noise whose mean logits answer a query of a stochastic model.

    Raises:
        IDCError: for another norm, and for no queries or draws.
    """

    threat: Threat
    queries: int = 2000
    draws: int = 4

    def __post_init__(self) -> None:
        if self.threat.norm != "linf":
            raise IDCError(f"norm {self.threat.norm} for RayS", "linf", "use another attack")
        if min(self.queries, self.draws) < 1:
            given = f"queries = {self.queries} and draws = {self.draws} of RayS"
            raise IDCError(given, "1 or more of each", "give more")

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        """(B, C, H, W) within the radius: where the boundary was found there, just behind it; else, and of a stochastic
        model, as far as may be on the best ray."""
        if not len(images) or self.threat.eps == 0:
            return images.clone()
        search = _Search(self, target, images.flatten(1), images.shape[1:], classes, streams)
        size, start, width = images[0].numel(), 0, images[0].numel()
        while len(rows := search.open_rows()):
            search.turn(rows, start, start + width)
            start += width
            if start >= size:
                start, width = 0, max(1, -(-width // 2))
        far = search.far.clamp(max=self.threat.eps) if search.enough else torch.full_like(search.far, self.threat.eps)
        return self.threat.project((search.images + far[:, None] * search.signs).view_as(images), images)


class _Search:
    """The rays of a batch of images, and how far on each the boundary is."""

    def __init__(
        self, attack: RayS, target: Target, images: Tensor, shape: torch.Size, classes: Tensor, streams: Streams
    ) -> None:
        self.attack, self.target, self.images, self.classes, self.streams = attack, target, images, classes, streams
        self.shape, self.draws = shape, attack.draws if target.stochastic else 1
        self.enough = 0.0 if target.stochastic else attack.threat.eps  # a boundary as near as that is not improved on
        self.signs = torch.ones_like(images)
        self.far = torch.full((len(images),), torch.inf, device=images.device)
        self.asked = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self._nearer(torch.arange(len(images), device=images.device), self.signs)

    def open_rows(self) -> Tensor:
        """Images whose boundary is not within the radius yet, and that may be asked about."""
        return (self._may_ask() & (self.far > self.enough)).nonzero().flatten()

    def turn(self, rows: Tensor, start: int, end: int) -> None:
        """Turn the signs of a block of these images' rays, where that brings the boundary nearer."""
        signs = self.signs[rows]  # a copy
        signs[:, start:end] *= -1
        self._nearer(rows, signs)

    def _may_ask(self) -> Tensor:
        return self.asked + self.draws <= self.attack.queries

    def _nearer(self, rows: Tensor, signs: Tensor) -> None:
        rows, signs = (v[self._may_ask()[rows]] for v in (rows, signs))
        if not len(rows):
            return
        reach = self.far[rows].clamp(max=1.0)  # at 1 every pixel is at an end
        wrong = self._wrong(rows, signs, reach)
        rows = rows[wrong]
        self.signs[rows], self.far[rows] = signs[wrong], reach[wrong]
        low = torch.zeros_like(self.far)
        near = max(_NEAR * self.attack.threat.eps, _LEAST)
        while len(rows := rows[self._may_ask()[rows] & (self.far - low > near)[rows] & (self.far > self.enough)[rows]]):
            middle = (low[rows] + self.far[rows]) / 2
            wrong = self._wrong(rows, self.signs[rows], middle)
            self.far[rows[wrong]], low[rows[~wrong]] = middle[wrong], middle[~wrong]

    def _wrong(self, rows: Tensor, signs: Tensor, far: Tensor) -> Tensor:
        """(B,) whether the answer is wrong so far along these rays."""
        x = (self.images[rows] + far[:, None] * signs).clamp(0, 1).view(-1, *self.shape)
        streams = self.streams.take(rows).of("query")  # the same noise in each: no ray is nearer by luck
        self.asked[rows] += self.draws
        return answered(self.target.logits(ANSWER, x, streams, draws=self.draws).mean(0)) != self.classes[rows]
