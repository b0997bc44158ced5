"""What every source gives: for each of its splits a pool of labelled images that are not decoded yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from idc.data.decoding import Raw

Split = Literal["train", "validation", "test"]
Positions = NDArray[np.int64]
"""Places of images in a pool."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The images of one split of a source: labels (N,), and what reads, names and keys them.

    `key` identifies the content of the whole pool; it gives "" where a cache is not worth it.
    """

    labels: Positions
    read: Callable[[int], Raw]
    name: Callable[[int], str]
    key: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Source:
    """The splits that a source has of its own, and its class names in the order of the labels.

    ``test_fraction`` of each class is held out as test where the source has no test split.
    """

    name: str
    pools: Mapping[Split, Pool]
    class_names: tuple[str, ...]
    default_size: int | None = None
    test_fraction: float = 0.2
