"""Clean accuracy of a classifier on a split, one-step and multi-step, independent of batch size and sharding."""

from dataclasses import asdict, dataclass

import torch

from idc.classifier import IDC
from idc.data import ImageSet


@dataclass(frozen=True, slots=True)
class CleanAccuracy:
    """Shares of ``images`` answered rightly: by the one-step answer, by the mean distance over ``draws`` of the default
    multi-step answer, and by a single such draw on average."""

    one_step: float
    multi_step: float
    single_draw: float
    draws: int
    images: int

    @property
    def score(self) -> float:
        """Mean of the two answers' accuracy."""
        return (self.one_step + self.multi_step) / 2

    def to_dict(self) -> dict[str, float]:
        """The fields, JSON-ready."""
        return asdict(self)

    def shares(self) -> dict[str, float]:
        """Both answers by name."""
        return {"one-step": self.one_step, "multi-step": self.multi_step}

    def text(self) -> str:
        """Both answers, for people."""
        plural = "s" if self.draws > 1 else ""
        return (
            f"accuracy {self.one_step:.1%} one-step, {self.multi_step:.1%} multi-step "
            f"({self.images} images, {self.draws} draw{plural})"
        )


def clean_accuracy(
    model: IDC,
    data: ImageSet,
    *,
    draws: int = 10,
    seed: int = 0,
    bf16: bool = False,
    batch_size: int = 500,
    shard: tuple[int, int] = (0, 1),
) -> tuple[CleanAccuracy, torch.Tensor]:
    """Measure the accuracy of ``model`` on ``data``.

    Args:
        draws: of the noise for each image.
        seed: of the per-image noise.
        bf16: run the network in bf16 (distances stay float32).
        shard: (rank, world): every world-th image from rank on.

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
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            one = model.predict(images, draws=1, visits=model.one_step_visits)
            many = model.predict(images, draws=draws, ids=ids, seed=seed)
        counts += torch.stack([
            (one.classes == classes).sum(), (many.classes == classes).sum(),
            many.votes.gather(1, classes[:, None]).sum(), torch.tensor(len(chosen)),
        ]).to(counts)  # fmt: skip
    return from_counts(counts, draws), counts


def from_counts(counts: torch.Tensor, draws: int) -> CleanAccuracy:
    """Accuracy from the (summed) counts of ``clean_accuracy``."""
    one, many, single, images = counts.tolist()
    total = max(images, 1.0)
    return CleanAccuracy(one / total, many / total, single / total, draws, int(images))
