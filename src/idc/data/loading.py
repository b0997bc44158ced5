"""`load`: from the name of a source to one split of it, decoded."""

from pathlib import Path
from typing import get_args

import torch

from idc.data import splits
from idc.data.decoding import check_shape
from idc.data.image_set import ImageSet, digest
from idc.data.pixels import SKIP, default_shape, read_pixels
from idc.data.pools import Split
from idc.data.sources import open_source
from idc.data.summary import summarise
from idc.errors import IDCError


def load(
    source: str | Path,
    *,
    split: Split,
    image_size: int | None = None,
    channels: int | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    skip_bad: bool = False,
    mixed_sizes: bool = True,
    cache_dir: Path | None = None,
) -> ImageSet:
    """Load one split of a labelled image set.

    Sources: "digits" (scikit-learn's 1,797 digits, 32x32 grey); a folder with one subfolder per class, directly or in
    train/, test/ and validation/ folders; a parquet file, or a folder of them, in the Hugging Face hub's layout; a hub
    id such as "uoft-cs/cifar10". What looks like a path is never looked up on the hub.

    Splits are recognised by the names of folders and files, and only if all siblings are named so. What a source holds,
    what of it was held out and what is left out, is said in the set's ``summary``.

    Splits are stratified by class. Without a test split in the source, 20% of each class (30% of the digits) are held
    out as test, always the same ones. Without a validation split, `validation_fraction` of each class of what remains
    is validation, chosen by `seed`. The three never overlap.

    Args:
        source: see above.
        split: "train", "validation" or "test"; or "all" of a source that has no splits of its own.
        image_size: side of the square in pixels. By default the images' own if all are squares of one size, else 32.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA). By default 1 if all images are grey, else 3. Both defaults look at up
            to 2,048 images spread evenly over the train split, so that all splits of a source agree.
        validation_fraction: in [0, 1); 0 leaves all of the images to train.
        seed: of the validation split.
        limit: at most this many images: as many of each class as of any other where there are enough, picked by a
            permutation with a constant seed, not `seed`; the images of a smaller limit are among those of a larger.
        skip_bad: leave unreadable images out and name them in `skipped`; otherwise they are an error.
        mixed_sizes: False refuses images that are no squares of one size where no `image_size` is given.
        cache_dir: where decoded images are kept; by default the environment's IDC_CACHE, else ~/.cache/idc.

    Raises:
        IDCError: the source is missing, empty, damaged or unreachable, lacks the split, labels or classes, holds
            unreadable images, or a setting is out of range.
    """
    source = str(source)
    check_shape(image_size, channels)
    _check_split(split, validation_fraction)
    if limit is not None:
        splits.check_limit(limit)
    opened = open_source(source)
    pool, wanted = splits.choose(opened, split, validation_fraction, seed)
    if pool.broken and not skip_bad:
        shown = ", ".join(pool.broken[:5]) + (", ..." if pool.broken[5:] else "")
        raise IDCError(f"{shown} of {opened.name} (links to nothing, or pipes)", "image files", SKIP)
    if limit is not None:
        wanted = wanted[splits.balanced(pool.labels[wanted], wanted, limit)]
    shape, scaled = default_shape(opened, image_size, channels, mixed_sizes)
    images, positions, skipped = read_pixels(
        pool, wanted, shape, limited=limit is not None, skip_bad=skip_bad, cache_dir=cache_dir
    )
    labels, ids = torch.from_numpy(pool.labels[positions]), torch.from_numpy(positions)
    fingerprint = digest(opened.class_names, images, labels, ids)
    # Of one pool that we split, the files that are left out are named once.
    skipped = (*((*pool.broken, *pool.left_out) if split in (*opened.pools, "all") else ()), *skipped)
    counts = labels.bincount(minlength=len(opened.class_names)).tolist()
    absent = [name for name, count in zip(opened.class_names, counts, strict=True) if not count and limit is None]
    summary = summarise(opened, split, len(ids), shape, validation_fraction, seed, scaled=scaled, absent=absent)
    return ImageSet(images, labels, ids, opened.class_names, source, split, fingerprint, skipped, summary,
                    opened.has_splits)  # fmt: skip


def has_splits(source: str | Path) -> bool:
    """Whether a source's splits are its own. Raises IDCError as ``load`` does."""
    return open_source(str(source)).has_splits


def _check_split(split: str, fraction: float) -> None:
    if split not in get_args(Split):
        raise IDCError(f"split {split!r}", "train, validation, test or all", "use one of these names")
    if not 0.0 <= fraction < 1.0:
        raise IDCError(f"validation fraction {fraction}", "at least 0 and below 1", "use 0.1, for example")
    if split == "validation" and fraction == 0.0:
        raise IDCError("validation fraction 0", "more than 0 to have a validation split", "use 0.1, for example")
