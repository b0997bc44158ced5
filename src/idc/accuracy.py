"""Accuracy of a classifier on a split, one-step and multi-step, independent of batch size and sharding."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from idc.data import ImageSet
from idc.method.classifier import IDC
from idc.method.prediction import Prediction
from idc.text import eps_text

ON_MARGIN = "PGD-10 on the margin"  # what validation images are attacked by
ON_CROSS_ENTROPY = "PGD-10"  # what they were attacked by before, in records that name no attack
Move = Callable[[Tensor, Tensor, Tensor], Tensor]  # images, classes, ids -> images


@dataclass(frozen=True, slots=True)
class BridgeAccuracy:
    """Shares of ``images`` answered rightly: by the one-step answer, by the mean distance over ``draws`` of the default
    multi-step answer, and by a single such draw on average; with ``eps`` the first two also of attacked images. With 0
    draws the model answers in one step, and the others repeat that."""

    one_step: float
    multi_step: float
    single_draw: float
    draws: int
    images: int
    attacked_one_step: float = 0.0
    attacked_multi_step: float = 0.0
    eps: float = 0.0
    attacked_by: str = ON_MARGIN

    @property
    def score(self) -> float:
        """Mean of the two answers' accuracy, of attacked images if there are any."""
        one, many = (self.attacked_one_step, self.attacked_multi_step) if self.eps else (self.one_step, self.multi_step)
        return (one + many) / 2

    @property
    def advice(self) -> str:
        """What to do about a chain that falls far behind the one-step answer; empty if it does not."""
        behind = self.one_step - self.multi_step > 0.1
        text = (
            "the multi-step answer lags behind: train its timesteps (--t-weights) or for longer (--epochs, --minutes), "
            "or let idc predict, evaluate and serve answer in one step (their --one-step)"
        )
        return text if behind else ""

    def to_dict(self) -> dict[str, float | str]:
        """The fields, JSON-ready; with 0 draws without those that repeat others, without eps those of no attack."""
        repeated = () if self.draws else ("multi_step", "single_draw", "draws", "attacked_multi_step")
        unmade = () if self.eps else ("attacked_one_step", "attacked_multi_step", "eps", "attacked_by")
        out = (*repeated, *unmade)
        return {name: value for name, value in asdict(self).items() if name not in out}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BridgeAccuracy":
        """What gave these values as its ``to_dict``."""
        one, attacked = values["one_step"], values.get("attacked_one_step", 0.0)
        repeated = {"multi_step": one, "single_draw": one, "draws": 0, "attacked_multi_step": attacked}
        repeated["attacked_by"] = ON_CROSS_ENTROPY if values.get("eps") else ON_MARGIN
        return cls(**repeated | values)

    def shares(self) -> dict[str, float]:
        """The answers by name."""
        found = {"one-step": self.one_step, "multi-step": self.multi_step}
        if self.eps:
            under = f"under {self.attacked_by} at {eps_text(self.eps)}"
            found |= {f"one-step {under}": self.attacked_one_step, f"multi-step {under}": self.attacked_multi_step}
        return {name: value for name, value in found.items() if self.draws or name.startswith("one-step")}

    def text(self) -> str:
        """The answers, for people."""
        shares = ", ".join(f"{value:.1%} {name}" for name, value in self.shares().items())
        draws = f", {self.draws} draw{'s' * (self.draws > 1)}" if self.draws else ""
        return f"accuracy {shares} ({self.images} images{draws})"


def accuracy(
    model: IDC,
    data: ImageSet,
    *,
    draws: int = 10,
    seed: int = 0,
    bf16: bool = False,
    batch_size: int = 500,
    shard: tuple[int, int] = (0, 1),
    move: Move | None = None,
    seen: Callable[[Prediction, Tensor], object] | None = None,
) -> tuple[BridgeAccuracy, torch.Tensor]:
    """Measure the accuracy of ``model`` on ``data``.

    Args:
        draws: of the noise for each image; 0: the one-step answer stands for the other too.
        seed: of the per-image noise.
        bf16: run the network in bf16 (distances stay float32).
        shard: (rank, world): every world-th image from rank on.
        move: what is done to images (B, C, H, W) first, given their classes and ids.
        seen: is told what the model itself answers, and the true classes, batch by batch.

    Returns:
        The accuracy of this shard, and its counts (4,) float64: right one-step, right multi-step, mean right single
        draws, images; counts of shards add up.
    """
    device = model.labels.device
    counts = torch.zeros(4, dtype=torch.float64, device=device)
    part = torch.arange(len(data))[shard[0] :: shard[1]]
    for chosen in part.split(batch_size):
        images = data.images[chosen].to(device).to(torch.float32).div_(255)
        classes, ids = data.labels[chosen].to(device), data.ids[chosen]
        images = images if move is None else move(images, classes, ids.to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            one = model.one_step.predict(images, draws=1)
            many = model.predict(images, draws=draws, ids=ids, seed=seed) if draws else one
        if seen:
            seen(many, classes)
        counts += torch.stack([
            (one.classes == classes).sum(), (many.classes == classes).sum(),
            many.votes.gather(1, classes[:, None]).sum(dtype=torch.float64), classes.new_tensor(len(chosen)),
        ]).to(counts)  # fmt: skip
    return from_counts(counts, draws), counts


def from_counts(counts: torch.Tensor, draws: int, *, eps: float = 0.0) -> BridgeAccuracy:
    """Accuracy from the (summed) counts of ``accuracy``; with ``eps`` those of attacked images follow, (8,)."""
    one, many, single, images, *attacked = counts.tolist()
    total = max(images, 1.0)
    found = BridgeAccuracy(one / total, many / total, single / total, draws, int(images))
    if not attacked:
        return found
    return replace(found, attacked_one_step=attacked[0] / total, attacked_multi_step=attacked[1] / total, eps=eps)
