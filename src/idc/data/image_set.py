"""One split of labelled images in memory."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idc.data.splits import balanced
from idc.errors import IDCError


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """One split of a labelled image set.

    Attributes:
        images: (N, C, H, W) uint8. On the CPU it may be a view of the cache file: do not write into it.
        labels: (N,) int64 in [0, num_classes).
        ids: (N,) int64, the index of each image in its source split, whatever the limit, seed or skipped files.
        class_names: one name per class, in the order of the labels.
        source: what was asked for. split: "train", "validation", "test" or "all"; of tensors "as given".
        fingerprint: sha256 over the pixels, labels, ids and class names; the same on every machine.
        skipped: the names of the files that were left out: unreadable images, and what is no image that can be read.
        summary: a line for people: source, splits, classes, counts, what was held out and what is left out.
        has_splits: whether the source's splits are its own, and not ours.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    class_names: tuple[str, ...]
    source: str
    split: str
    fingerprint: str
    skipped: tuple[str, ...] = ()
    summary: str = ""
    has_splits: bool = True

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"ImageSet({len(self):,} of {self.source}, {self.split}: {self.num_classes} classes, {shape})"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), ids=self.ids.to(device))

    def take(self, which: int | Sequence[int] | Tensor) -> "ImageSet":
        """A smaller set: a class-balanced subset of `which` images (see `load`'s limit), or the images at indices.

        Raises:
            IDCError: a number below 1, or an index outside of the set.
        """
        if isinstance(which, int):
            rows = torch.from_numpy(balanced(self.labels.cpu().numpy(), self.ids.cpu().numpy(), which))
        else:
            rows = torch.as_tensor(which, dtype=torch.int64).flatten().cpu()
            if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
                raise IDCError(f"index {rows.tolist()[:5]}", f"indices from 0 to {len(self) - 1}", "lower the indices")
        rows = rows.to(self.images.device)
        images, labels, ids = self.images[rows], self.labels[rows], self.ids[rows]
        fingerprint = digest(self.class_names, images, labels, ids)
        return replace(self, images=images, labels=labels, ids=ids, fingerprint=fingerprint)

    def in_order(self, class_names: Sequence[str]) -> "ImageSet":
        """The same images with their labels numbered in the order of ``class_names``, which are this set's own.

        Raises:
            IDCError: they are other names.
        """
        if sorted(class_names) != sorted(self.class_names):
            raise IDCError(
                f"classes {', '.join(class_names[:4])}", f"those of {self.source}", "use data of those classes"
            )
        if tuple(class_names) == self.class_names:
            return self
        place = {name: index for index, name in enumerate(class_names)}
        moved = torch.tensor([place[name] for name in self.class_names], device=self.labels.device)
        labels = moved[self.labels]
        fingerprint = digest(class_names, self.images, labels, self.ids)
        return replace(self, labels=labels, class_names=tuple(class_names), fingerprint=fingerprint)

    def sample(self, count: int = 32) -> list[str]:
        """The least ``count`` of the hashes of the images' pixels: by them a model knows images of its training again,
        wherever they lie, and whatever else lies there."""
        return sorted(_hashes(self.images))[:count]

    def holds(self, sample: Sequence[str]) -> int:
        """How many images of another set's ``sample`` are among these, at the same shape."""
        return len(set(sample) & set(_hashes(self.images))) if sample else 0


def _hashes(images: Tensor) -> list[str]:
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:12] for image in images.cpu().contiguous()]


def digest(names: Sequence[str], *tensors: Tensor) -> str:
    """sha256 over names and the shapes and bytes of tensors, in hexadecimal."""
    state = hashlib.sha256(json.dumps([list(names), [list(tensor.shape) for tensor in tensors]]).encode())
    for tensor in tensors:
        state.update(tensor.cpu().contiguous().numpy().data)
    return state.hexdigest()


def interleaved(classes: Tensor) -> Tensor:
    """(N,) true classes -> an order in which every class comes first once, then every class a second time, and so on:
    the first images of a folder sorted by class are then no single class."""
    order = torch.argsort(classes, stable=True)
    counts = torch.bincount(classes)
    first = torch.cumsum(counts, 0) - counts
    rank = torch.empty_like(classes)
    rank[order] = torch.arange(len(classes)) - first[classes[order]]
    return torch.argsort(rank * (int(classes.max()) + 1) + classes, stable=True)
