"""Shares with their intervals."""

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """A share of ``n`` images with its 95% Wilson interval [low, high]."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"

    def to_dict(self) -> dict[str, float]:
        """The fields, JSON-ready."""
        return asdict(self)


def wilson(mean: float, n: int, *, z: float = 1.959964) -> Share:
    """The Wilson score interval of a share ``mean`` of ``n`` images (Wilson, JASA 1927).

    Args:
        mean: in [0, 1]; a mean over draws is treated as that share of whole images, which is conservative.
        n: images; 0 gives the whole of [0, 1].
        z: normal quantile; 1.96 for 95%.
    """
    if n == 0:
        return Share(mean=0.0, low=0.0, high=1.0, n=0)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Share(mean=mean, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)
