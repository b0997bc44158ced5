"""Certifies images one after the other: shared out over processes, a line an image, resumable after a kill.

An image's samples follow from the seed and its id. A call of the model holds samples of one image only, so neither
order nor number of processes changes so much as a rounding. The batch size changes the shape of the calls: the noise
stays the same, and so does every answer that rounding does not decide.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from idc.evaluation.identity import PROBED, describe_model, probe
from idc.evaluation.runner import Problem, hold_settings
from idc.evaluation.smoothing import ABSTAINS, Smoothed, Smoothing
from idc.evaluation.verdict import wilson
from idc.noise import Streams, derive_seed
from idc.storage import records
from idc.storage.fields import recorded

LINES, RESULT = "certified", "certify.json"
Line = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Certifier:
    """One certification of one classifier.

    Args:
        smoothed: the classifier and how it is asked.
        problem: the images.
        out: folder of the result.
        name: of the classifier, as the user knows it.
        seed: of all random numbers.
        rank, world: this process and how many there are.
    """

    smoothed: Smoothed
    problem: Problem
    out: Path
    name: str = ""
    seed: int = 0
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def settings(self) -> dict[str, Any]:
        """All that the result depends on."""
        return {
            "smoothing": recorded(self.smoothed.smoothing),
            "data": self.problem.about | {"images": len(self.problem)},
            "seed": self.seed,
            "classifier": describe_model(self.smoothed.base, self.name),
        }

    def prepare(self) -> None:
        """Create the folder and note the settings, or check them against those of the run that it holds.

        Raises:
            IDCError: if the folder holds a result of other settings or cannot be written.
        """
        answers = probe(self.smoothed.base, *self.problem.first(PROBED, self.device))
        hold_settings(self.out, self.settings() | {"answers": answers})

    @property
    def own(self) -> range:
        """The places of this process's images."""
        return range(self.rank, len(self.problem), self.world)

    def run(self, advance: Callable[[int], object] = lambda images: None) -> None:
        """Certify this process's share of what is not yet done.

        Args:
            advance: is told how many images have finished.

        Raises:
            IDCError: if the classifier's samples are not independent.
        """
        done = records.finished(self.out, LINES)
        if self.own:
            self.smoothed.check(self.problem.part(slice(self.own[0], self.own[0] + 1), self.device)[0])
        for index in self.own:
            if int(self.problem.ids[index]) not in done:
                records.append(self.out / f"{LINES}-{self.rank}.jsonl", [self._line(index)])
            advance(1)

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that has nothing left to do; ``prepare`` has seen that its settings are these."""
        return records.read_whole(
            self.out / RESULT, LINES, self.problem.ids.tolist(), ("settings", "accuracy", "curve", "cost")
        )

    def _line(self, index: int) -> Line:
        began = time.perf_counter()
        image, classes, ids = self.problem.part(slice(index, index + 1), self.device)
        found = self.smoothed.certify(image, Streams(ids, derive_seed(self.seed, "certify")))
        return {
            "id": int(ids),
            "class": int(classes),
            "prediction": found.prediction,
            "selected": found.selected,
            "radius": found.radius,
            "counts": found.counts,
            "seconds": round(time.perf_counter() - began, 6),
        }


def read_certified(folder: Path) -> list[Line]:
    """The finished images of a certification, by id.

    Raises:
        IDCError: if there is none.
    """
    return records.read_lines(folder, LINES, "certify")


def summarise_certified(lines: Sequence[Line], smoothing: Smoothing) -> dict[str, Any]:
    """What the certificates come to, with 95% Wilson intervals over images.

    Returns:
        ``accuracy`` of the smoothed classifier's predictions, an abstention counted as wrong, and ``abstained``, their
        share; ``uncertified``, the share without a radius; ``curve``, certified accuracy (right, with that radius or
        more) at multiples of sigma / 4 and at the largest radius, beyond which nothing can be proved; ``mean_radius``,
        wrong or uncertified images counted as 0, with ``standard_error``; ``largest_radius``; ``images``.
    """
    images = len(lines)

    def share(count: int) -> dict[str, float]:
        found: dict[str, float] = recorded(wilson(count / images, images))
        return found

    radii = [line["radius"] if line["selected"] == line["class"] else 0.0 for line in lines]
    step, last = smoothing.sigma / 4, smoothing.largest_radius
    grid = [*(k * step for k in range(math.ceil(last / step))), last]
    mean = sum(radii) / images
    variance = sum((r - mean) ** 2 for r in radii) / max(1, images - 1)
    return {
        "accuracy": share(sum(line["prediction"] == line["class"] for line in lines)),
        "abstained": share(sum(line["prediction"] == ABSTAINS for line in lines)),
        "uncertified": share(sum(not line["radius"] for line in lines)),
        "curve": [{"radius": at} | share(sum(r > 0 and r >= at for r in radii)) for at in grid],
        "mean_radius": mean,
        "standard_error": math.sqrt(variance / images),
        "largest_radius": last,
        "images": images,
    }
