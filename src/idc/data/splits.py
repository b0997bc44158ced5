"""Train, validation and test: their names in a source, and which images are held out where the source lacks one."""

import re
from collections.abc import Iterable
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from idc.data.pools import Pool, Positions, Source, Split
from idc.errors import IDCError
from idc.storage.fields import short

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}

_FIXED_SEED = 20_240_815  # for what must not change with the user's seed: the held-out test, the subset of a limit
_PATTERN = re.compile(rf"(?:^|[-_.])({'|'.join(SPLIT_NAMES)})(?:[-_.]|$)", re.IGNORECASE)


def split_of(name: str) -> Split | None:
    """The split that a file's or folder's name tells, such as validation for "cifar-val-0001"."""
    match = _PATTERN.search(name)
    return SPLIT_NAMES[match[1].lower()] if match else None


def before_split(name: str) -> str:
    """What a name says before it tells the split: "full" of "full-train-0001"."""
    match = _PATTERN.search(name)
    return name[: match.start()] if match else name


def by_split(names: Iterable[str], where: str) -> dict[Split, list[str]] | None:
    """Siblings (files or folders) by the split that each name tells, in the order given; None if they are no splits:
    splits are recognised only if all siblings are splits.

    Raises:
        IDCError: some are, of different splits, and others are not: whether they are splits or classes cannot be told.
    """
    found: dict[Split, list[str]] = {}
    other: list[str] = []
    for name in names:
        split = split_of(name)
        if split:
            found.setdefault(split, []).append(name)
        else:
            other.append(name)
    if not other:
        return found or None
    if "train" in found and len(found) > 1:
        told = ", ".join(name for held in found.values() for name in held[:2])
        raise IDCError(
            f"{where}: {told} beside {other[0]}", "splits only, or classes only", f"move {other[0]} elsewhere"
        )
    return None


def choose(source: Source, split: Split, validation_fraction: float, seed: int) -> tuple[Pool, Positions]:
    """The pool that holds a split, and the split's positions in it, ascending; of "all" every image of a source that
    has no splits of its own.

    Raises:
        IDCError: the source lacks the split, or the pool has no images, bad labels or too few images of a class.
    """
    base: Split = split if split in source.pools or split == "all" else "train"
    if split == "all" and not source.has_splits:
        base = "train"
    if base not in source.pools:
        if split == "all":
            raise IDCError(f"split 'all' of {source.name!r}", "train, validation or test", "name one: it has splits")
        have, remedy = ", ".join(source.pools), "ask for that one, or add a train split"
        raise IDCError(f"{source.name} has no {split} split", f"one of: {have}", remedy)
    pool = source.pools[base]
    _check_labels(pool, source, base)
    positions = np.arange(len(pool.labels))
    if base != "train" or split == "all":
        return pool, positions
    splits_test = "test" not in source.pools
    splits_validation = "validation" not in source.pools and validation_fraction > 0 and split != "test"
    _check_counts(pool, source, 1 + splits_test + splits_validation)
    if splits_test:
        held_out = _hold_out(pool.labels, positions, source.test_fraction, _FIXED_SEED)
        if split == "test":
            return pool, positions[held_out]
        positions = positions[~held_out]
    if splits_validation:
        held_out = _hold_out(pool.labels[positions], positions, validation_fraction, seed)
        positions = positions[held_out if split == "validation" else ~held_out]
    return pool, positions


def check_limit(limit: int) -> None:
    """Raises IDCError for a limit below 1."""
    if not isinstance(limit, Integral) or limit < 1:
        raise IDCError(f"limit {short(limit)}", "1 image or more", "raise the limit, or leave it out")


def balanced(labels: Positions, positions: Positions, limit: int) -> Positions:
    """Indices, ascending, of at most `limit` entries: the first of each class, the second of each class, and so on."""
    check_limit(limit)
    keys = _shuffle_keys(positions, _FIXED_SEED)
    return np.sort(np.lexsort((keys, _rank_in_class(labels, keys)))[:limit])


def _check_labels(pool: Pool, source: Source, split: Split) -> None:
    classes, where = len(source.class_names), f"{source.name} ({split})"
    if not len(pool.labels):
        raise IDCError(f"{where} has no images", "a split with images", "use another split or source")
    lowest, highest = int(pool.labels.min()), int(pool.labels.max())
    if lowest < 0:
        bad = int((pool.labels < 0).sum())
        raise IDCError(f"{where}: {bad} labels are missing or negative", "a label for every image", "use another split")
    if highest >= classes:
        raise IDCError(f"{where}: label {highest}", f"labels from 0 to {classes - 1}", "correct labels or class names")
    if split == "train" and len(np.unique(pool.labels)) < 2:
        raise IDCError(f"{where} has one class only", "two classes or more", "add images of another class")


def _check_counts(pool: Pool, source: Source, least: int) -> None:
    """Every class that has images at all needs one for each split that is cut out of the pool."""
    counts = np.bincount(pool.labels, minlength=len(source.class_names))
    for name, count in zip(source.class_names, counts, strict=True):
        if 0 < count < least:
            value, expected = f"class {name!r} has {count} training image(s)", f"at least {least} to split"
            raise IDCError(value, expected, "add images of it, give a folder of test images, or use no validation")


def _hold_out(labels: Positions, positions: Positions, fraction: float, seed: int) -> NDArray[np.bool_]:
    """True for `fraction` of each class: at least one, never all, chosen by the seed and each image's position."""
    rank = _rank_in_class(labels, _shuffle_keys(positions, seed))
    counts = np.bincount(labels)
    quota = np.clip(np.rint(counts * fraction), 1, np.maximum(counts - 1, 0))
    return np.asarray(rank < quota[labels])


def _rank_in_class(labels: Positions, keys: NDArray[np.uint64]) -> Positions:
    """How many images of the same class have a smaller key, for each image."""
    order = np.lexsort((keys, labels))
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - starts[labels[order]]
    return rank


def _shuffle_keys(positions: Positions, seed: int) -> NDArray[np.uint64]:
    """A pseudo-random number per position, by the splitmix64 finaliser.

    Not a generator of NumPy or PyTorch: their streams may change with a release, and so would everyone's test split.
    """
    start = (seed * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    z = np.uint64(start) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)
