"""What every source gives: for each of its splits a pool of labelled images that are not decoded yet."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from idc.data.decoding import Raw

Split = Literal["train", "validation", "test", "all"]
"""A part of a source; "all" is every image of a source that has no splits of its own."""
Positions = NDArray[np.int64]
"""Places of images in a pool."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The images of one split of a source: labels (N,), and what reads, names and keys them.

    `key` identifies the content of the whole pool; it gives "" where a cache is not worth it. `left_out` names
    the files in its folders that are no images that can be read; `broken` those that are called images and are no
    files: links to nothing, pipes.
    """

    labels: Positions
    read: Callable[[int], Raw]
    name: Callable[[int], str]
    key: Callable[[], str]
    left_out: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """The splits that a source has of its own, and its class names in the order of the labels.

    ``test_fraction`` of each class is held out as test where the source has no test split. ``left_out`` counts what
    lies in it and is not used, by kind. ``has_splits``: whether its parts are told apart by itself, and not by us.
    ``doubt``: why its classes may not be those that were meant, if there is a reason.
    """

    name: str
    pools: Mapping[Split, Pool]
    class_names: tuple[str, ...]
    default_size: int | None = None
    test_fraction: float = 0.2
    left_out: Counter[str] = field(default_factory=Counter)
    has_splits: bool = True
    doubt: str = ""
