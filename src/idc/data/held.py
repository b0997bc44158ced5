"""Images as a program holds them, in place of a tensor: paths, PIL images and numpy arrays."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from idc.data.decoding import Shape, decode, no_pil_warnings
from idc.errors import IDCError

Held = str | Path | Image.Image | NDArray[Any]
_ARRAYS = "(H, W) or (H, W, C) with C = 1, 3 or 4, uint8 or floats in [0, 1]"


def as_images(given: Tensor | Held | Iterable[Held], shape: Shape) -> Tensor:
    """(B, C, H, W) float32 in [0, 1], scaled to ``shape`` as image files of a data set are (see ``decode_image``).

    Args:
        given: a path of an image file, a PIL image, a numpy array (H, W) or (H, W, C), uint8 or floats in [0, 1];
            several of these, mixed as may be; or an array (B, H, W, C). A tensor is returned as it is.
        shape: (C, H, W) with H = W.

    Raises:
        IDCError: for what is no image, or cannot be read.
    """
    if isinstance(given, Tensor):
        return given
    if isinstance(given, str | Path | Image.Image) or (isinstance(given, np.ndarray) and given.ndim < 4):
        given = [given]
    if shape[1] != shape[2]:
        raise IDCError(f"a model for images of {shape}", "one for squares", "scale them yourself, and give a tensor")
    try:
        several = list(given)
    except TypeError as error:
        raise _no_image(given, "images") from error
    with no_pil_warnings():
        decoded = [decode(*_raw(one, f"image {index}"), shape) for index, one in enumerate(several)]
    if not decoded:
        return torch.empty(0, *shape)
    return torch.from_numpy(np.stack(decoded)).float() / 255


def _raw(one: object, name: str) -> tuple[Path | Image.Image, str]:
    """What ``decode`` takes, and its name."""
    if isinstance(one, str | Path):
        return Path(one).expanduser(), str(one)
    if isinstance(one, Image.Image):
        try:
            own = one.copy()  # it is closed once decoded, and the caller's is not ours to close
        except Exception as error:  # a damaged file makes PIL's readers raise anything
            raise IDCError(f"{name} ({error})", "a readable image", "replace or remove it") from error
        own.format = one.format
        return own, name
    if isinstance(one, np.ndarray):
        return Image.fromarray(_pixels(one, name)), name
    raise _no_image(one, name)


def _pixels(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    shown = f"{name}, an array of {array.dtype} of shape {array.shape}"
    if array.ndim not in (2, 3) or not array.size or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise IDCError(shown, _ARRAYS, "bring the channels to the end: array.transpose(1, 2, 0)")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):  # NaN neither
        raise IDCError(shown, _ARRAYS, "convert it: array.astype(numpy.uint8), or divide it by its range")
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


def _no_image(given: object, name: str) -> IDCError:
    return IDCError(f"{name} of type {type(given).__name__}", "a path, a PIL image, a numpy array or a tensor",
                    "convert it to one of these")  # fmt: skip
