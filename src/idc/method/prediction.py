"""What ``IDC.predict`` answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idc.errors import IDCError
from idc.method.calibration import Calibration
from idc.storage.fields import short
from idc.text import counted

_NAMED = 6  # answers in a repr
DRAWS = 10  # of the noise, whose mean distance an answer is by default


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for B images.

    ``classes`` (B,) int64; ``distances`` (B, K), mean over draws, on [0, 1]; ``votes`` (B, K), the share of draws
    whose own answer is each class; ``confidence`` (B, K), softmax of -distances/temperature: by the temperature of
    ``calibration``, else by that of the model's logits, which is no probability; ``draws``, how many there are: 1 of an
    answer without noise, whatever was asked for.
    """

    classes: Tensor
    distances: Tensor
    votes: Tensor
    confidence: Tensor
    class_names: tuple[str, ...]
    draws: int
    calibration: Calibration | None = None

    def __repr__(self) -> str:
        more = ", ..." if len(self.names) > _NAMED else ""
        return f"Prediction({counted(str(len(self.names)), 'image')}: {', '.join(self.names[:_NAMED])}{more})"

    @property
    def agreement(self) -> Tensor:
        """(B,) share of draws whose own answer is ``classes``."""
        return self.votes.gather(1, self.classes[:, None])[:, 0]

    @property
    def names(self) -> list[str]:
        """The answers by name."""
        return [self.class_names[c] for c in self.classes.tolist()]

    @property
    def doubt(self) -> Tensor:
        """(B,) how far the translation is from every label: the distance to the nearest."""
        return self.distances.min(dim=1).values

    def rejected(self, share: float = 0.05) -> Tensor:
        """(B,) bool, whether an image is none of the classes: it lies farther from every label than all but a ``share``
        of the validation images that are answered rightly.

        Raises:
            IDCError: for a share out of range, or an answer that is not calibrated.
        """
        if self.calibration is None:
            flags = "--one-step, --visits, --eta or --mirrored"
            remedy = f"train it with this version of idc, or take its own answer (no {flags})"
            raise IDCError("rejecting by an answer that is not calibrated", "a model with a calibration", remedy)
        return self.doubt > self.calibration.threshold(share)


def decide(
    each: Tensor,
    *,
    temperature: float,
    class_names: tuple[str, ...],
    calibration: Calibration | None = None,
) -> Prediction:
    """The nearest label by the mean over draws.

    Args:
        each: (N, B, K) distances of each draw that differs.
        temperature: of the confidence, without a ``calibration``.

    Raises:
        IDCError: for distances that are NaN or infinite: none of them is the least.
    """
    if not torch.isfinite(each).all():
        raise IDCError("distances to the labels that are NaN or infinite", "finite ones", "take other weights, in fp32")
    mean = each.mean(dim=0)
    votes = torch.nn.functional.one_hot(each.argmin(dim=2), mean.shape[1]).to(mean.dtype).mean(dim=0)
    confidence = torch.softmax(-mean / (calibration.temperature if calibration else temperature), dim=1)
    return Prediction(mean.argmin(dim=1), mean, votes, confidence, class_names, len(each), calibration)


def identities(ids: Tensor | Sequence[int] | None, count: int) -> Tensor:
    """(count,) int64 of the ids that ``IDC.predict`` is given; numbered from 0 for None.

    Raises:
        IDCError: unless they are whole numbers, one an image.
    """
    try:
        found = torch.arange(count) if ids is None else torch.as_tensor(ids)
        if found.shape == (count,) and not found.is_floating_point() and not found.is_complex():
            return found.long()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise IDCError(f"ids = {short(ids)}", f"{count} whole numbers, one an image", "give images.ids of a data set, say")
