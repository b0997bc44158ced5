"""The pixels of a pool: their shape if none was asked for, and each image from the cache or decoded by threads."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from idc.data import cache
from idc.data.decoding import Shape, decode, is_grey, no_pil_warnings, open_image
from idc.data.pools import Pool, Positions, Source
from idc.errors import IDCError

SKIP = "replace or remove them, or leave them out with --skip-bad (skip_bad=True)"
_MIXED_SIZE = 32  # the default size of a source whose images are not all squares of one size
_PROBED = 2048  # how many images are looked at to choose the default size and channels
_CHUNK = 128  # images that a thread decodes at a time


@dataclass(frozen=True, slots=True)
class _Decoded:
    images: Tensor  # (M, C, H, W) uint8
    positions: Positions  # (M,), ascending
    problems: dict[int, str]  # by position, why an image could not be read


def default_shape(
    source: Source, image_size: int | None, channels: int | None, mixed_sizes: bool = True
) -> tuple[Shape, str]:
    """(C, H, W) of every image, with the defaults that `load` documents; and in words, what they are scaled from, where
    a size or a number of channels is left open.

    Raises:
        IDCError: without `mixed_sizes`, for images of which no size follows.
    """
    image_size = image_size or source.default_size
    if image_size and channels:
        return (channels, image_size, image_size), ""
    pool = source.pools.get("train") or next(iter(source.pools.values()))
    sides: set[int] = set()
    grey = True
    with no_pil_warnings():
        for index in np.unique(np.linspace(0, len(pool.labels) - 1, _PROBED).astype(int)):
            try:
                with open_image(pool.read(int(index)), pool.name(int(index))) as image:
                    sides |= set(image.size)
                    grey = grey and is_grey(image)
            except IDCError:
                continue  # decoding reports it, if its split is asked for
    own = f"{' to '.join(map(str, sorted({min(sides), max(sides)})))} pixels a side" if sides else ""
    mixed = len(sides) > 1 and not image_size
    if mixed and not mixed_sizes:
        value = f"images of {source.name} of {own}"
        remedy = "set input_shape = (C, H, W) on the model: they are then scaled to it"
        raise IDCError(value, "squares of one size for a model that does not say which it takes", remedy)
    side = image_size or (min(sides) if len(sides) == 1 else _MIXED_SIZE)
    scaled = own + " (--image-size sets another size)" * mixed if sides - {side} else ""
    return (channels or (1 if grey else 3), side, side), scaled


def read_pixels(
    pool: Pool, wanted: Positions, shape: Shape, *, limited: bool, skip_bad: bool, cache_dir: Path | None
) -> tuple[Tensor, Positions, tuple[str, ...]]:
    """Images (M, C, H, W) uint8, their positions (M,), and the names of those left out.

    Without a limit the whole pool is decoded and kept, so that train, validation and test share one file.

    Raises:
        IDCError: wanted images cannot be read, and may not be skipped or are all of those wanted.
    """
    everything = np.arange(len(pool.labels))
    scopes = [everything, wanted] if limited else [everything]
    key = pool.key()
    files = [file for scope in scopes if (file := cache.file_for(key, scope, shape, cache_dir))]
    decoded = _cached(pool, wanted, shape, files)
    if decoded is None:
        decoded = _decode_all(pool, scopes[-1], shape)
        if files and len(decoded.positions):
            cache.write(files[-1], decoded.images, decoded.positions)
    images, positions = decoded.images, decoded.positions
    missing = np.setdiff1d(wanted, positions)
    if len(missing) and (not skip_bad or len(missing) == len(wanted)):
        shown = "; ".join(decoded.problems[int(position)] for position in missing[:5])
        more = "; ..." if len(missing) > 5 else ""
        value = f"{len(missing)} of {len(wanted)} images cannot be used: {shown}{more}"
        raise IDCError(value, "readable images", SKIP)
    wanted = np.setdiff1d(wanted, missing)
    if len(wanted) < len(positions):
        images = images[torch.from_numpy(np.searchsorted(positions, wanted))]
    return images, wanted, tuple(pool.name(int(position)) for position in missing)


def _cached(pool: Pool, wanted: Positions, shape: Shape, files: Sequence[Path]) -> _Decoded | None:
    """What the first intact file holds; None if there is none, or if an image that it lacks can be read by now."""
    found = next((content for file in files if (content := cache.read(file))), None)
    if found is None:
        return None
    images, positions = found
    again = _decode_all(pool, np.setdiff1d(wanted, positions), shape)
    return None if len(again.positions) else _Decoded(images, positions, again.problems)


def _decode_all(pool: Pool, positions: Positions, shape: Shape) -> _Decoded:
    images = torch.empty((len(positions), *shape), dtype=torch.uint8)
    out = images.numpy()
    problems: dict[int, str] = {}

    def work(rows: range) -> None:
        for row in rows:
            index = int(positions[row])
            try:
                out[row] = decode(pool.read(index), pool.name(index), shape)
            except IDCError as error:
                problems[index] = error.value

    chunks = [range(start, min(start + _CHUNK, len(positions))) for start in range(0, len(positions), _CHUNK)]
    with no_pil_warnings(), ThreadPoolExecutor(_workers(pool, positions)) as executor:
        try:
            for _ in _progress(executor.map(work, chunks), len(chunks)):
                pass
        except BaseException:  # Ctrl-C above all: do not decode the rest first
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    if problems:
        good = ~np.isin(positions, list(problems))
        images, positions = images[torch.from_numpy(good)], positions[good]
    return _Decoded(images, positions, problems)


def _workers(pool: Pool, positions: Positions) -> int:
    """One thread for thumbnails, where handing the interpreter's lock over costs more than it gains, else one per core.

    Looking at the first image also makes the pool read its columns once, before threads could do so together.
    """
    try:
        with open_image(pool.read(int(positions[0])), "") as image:
            thumbnails = image.width * image.height < 128**2
    except (IDCError, IndexError):
        thumbnails = False
    return 1 if thumbnails else min(8, os.cpu_count() or 1)


def _progress(steps: Iterator[None], total: int) -> Iterator[None]:
    """The steps, with a progress bar on a terminal's standard error if they are many."""
    if total < 8 or not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(steps, description="decoding images", total=total, console=Console(stderr=True), transient=True)
