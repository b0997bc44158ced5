"""What validation images say of a model's answers: how sure of one to be, how far from every label is too far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idc.errors import IDCError
from idc.storage.fields import check, setting, take

FACT = "calibration"  # of a model's card
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
_TURNS = 60  # of the bisection, which halves the exponent's range each time
_COLDEST, _HOTTEST = 1e-6, 1e3


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of one answer of a model on validation images, none of which it was trained on.

    Args:
        temperature: tau for which softmax(-distances / tau) has the least negative log likelihood (temperature scaling:
            Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
        doubt: the distances to the nearest label that the ``SHARES`` of the rightly answered images exceed.
        images: how many were asked.
        draws: of the noise, whose mean was taken.
        visits, eta: of the answer that it is of; another one of the same weights has other distances.
    """

    temperature: float = setting(above=0)
    doubt: tuple[float, ...] = setting(least=0)
    images: int = setting(least=1)
    draws: int = setting(least=1)
    visits: tuple[int, ...] = setting(least=0)
    eta: float = setting(least=0, most=1)

    def __post_init__(self) -> None:
        check(self)
        if len(self.doubt) != len(SHARES):
            raise IDCError(f"{len(self.doubt)} distances", f"{len(SHARES)}, one a share", "calibrate the model again")

    def threshold(self, share: float) -> float:
        """The distance to the nearest label that a ``share`` of the rightly answered validation images exceeds, between
        the ``SHARES`` by interpolation.

        Raises:
            IDCError: for a share that is not among or between them.
        """
        if not SHARES[-1] <= share <= SHARES[0]:
            expected = f"a share from {SHARES[-1]:g} to {SHARES[0]:g} of the right answers, to be refused wrongly"
            raise IDCError(f"reject = {share}", expected, "use 0.05, for example")
        return float(np.interp(share, SHARES[::-1], self.doubt[::-1]))


def calibrate(
    distances: Tensor, classes: Tensor, *, draws: int, visits: tuple[int, ...], eta: float
) -> Calibration | None:
    """The calibration of an answer by its ``distances`` (N, K) for images of true ``classes`` (N,); None if none of
    them is answered rightly. Other arguments: see ``Calibration``."""
    nearest, answers = distances.min(dim=1) if len(distances) else (distances.new_zeros(0), classes)
    right = nearest[answers == classes]
    if not len(right):
        return None
    doubt = np.quantile(right.double().cpu().numpy(), [1 - share for share in SHARES])
    heat = temperature(distances, classes)
    return Calibration(heat, tuple(doubt.tolist()), len(classes), draws, tuple(visits), eta)


def temperature(distances: Tensor, classes: Tensor) -> float:
    """tau for which softmax(-distances / tau) has the least negative log likelihood of ``classes``.

    That is convex in 1 / tau, so its slope, mean of d_y - E[d], has one root, which a bisection finds. A target is 1 -
    1/(N+2), not 1 (Platt, 1999): of N images that are all answered rightly no certainty follows.

    Args:
        distances: (N, K), N at least 1.
        classes: (N,), true.
    """
    d, count = distances.double(), len(classes)
    targets = torch.full_like(d, 1 / ((count + 2) * max(1, d.shape[1] - 1)))
    targets.scatter_(1, classes[:, None], 1 - 1 / (count + 2))
    wanted = (targets * d).sum(1).mean()
    low, high = np.log(_COLDEST), np.log(_HOTTEST)
    for _ in range(_TURNS):
        middle = (low + high) / 2
        found = (torch.softmax(-d / np.exp(middle), dim=1) * d).sum(1).mean()
        low, high = (middle, high) if found < wanted else (low, middle)  # too sure: warmer
    return float(np.exp((low + high) / 2))


def of_card(card: Mapping[str, Any], *, visits: tuple[int, ...], eta: float) -> Calibration | None:
    """The calibration that a model's card has of the answer with these ``visits`` and ``eta``; None if it has none.

    Raises:
        IDCError: for one that is not whole.
    """
    held = card.get(FACT)
    if not isinstance(held, Mapping):
        return None
    try:
        found = Calibration(**take(Calibration, held))
    except TypeError as error:
        raise IDCError(f"{FACT} of the model's card", "a whole one", "take the model as it was saved") from error
    return found if (found.visits, found.eta) == (tuple(visits), eta) else None
