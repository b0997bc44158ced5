"""One image file to a square of 8-bit pixels, whatever its format, mode, depth and size."""

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from idc.errors import IDCError
from idc.storage.fields import short

Raw = bytes | Path | Image.Image
"""An image that is not decoded yet."""
Shape = tuple[int, int, int]
"""(C, H, W) with H = W."""

MAX_PIXELS = 50_000_000
"""Images with more pixels are refused before they are decoded."""

_PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
_OVERSHOOT = 0.1  # of floats, as resizing leaves it
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "AVIF", "TIFF", "PPM", "TGA", "JPEG2000", "ICO")
"""Formats that are read: not those for which Pillow starts other programs, as it does for EPS."""
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode_image(path_or_bytes: str | Path | bytes, *, image_size: int, channels: int) -> Tensor:
    """Decode one image file to (channels, image_size, image_size) uint8.

    The EXIF orientation is applied, if it can be read. Transparent pixels lie on white (4 channels keep them). 16-bit
    values are divided by 257; 32-bit integers (TIFF) must lie in 0..255 and floats in [0, 1], give or take a tenth,
    which is clipped: no range is guessed from an image's own values. The centred square is scaled with PIL's
    antialiased bicubic filter. Of an animation the first frame counts.

    Raises:
        IDCError: the file is missing, no image, damaged or larger than MAX_PIXELS, or a setting is out of range.
    """
    check_shape(image_size, channels)
    raw = path_or_bytes if isinstance(path_or_bytes, bytes) else Path(path_or_bytes)
    name = f"image of {len(raw)} bytes" if isinstance(raw, bytes) else str(path_or_bytes)
    with no_pil_warnings():
        return torch.from_numpy(np.array(decode(raw, name, (channels, image_size, image_size)), order="C"))


def read_images(paths: Iterable[str | Path], *, shape: Shape) -> Tensor:
    """Decode image files to (N, C, H, W) float32 in [0, 1], where shape is (C, H, W) with H = W; see `decode_image`.

    Raises:
        IDCError: as `decode_image`; no paths; a shape that is not square.
    """
    channels, height, width = shape
    if height != width:
        raise IDCError(f"shape {shape}", "square images, (C, H, H)", "use a model for square images")
    images = [decode_image(path, image_size=height, channels=channels) for path in paths]
    if not images:
        raise IDCError("no images", "at least one image file", "name the files to read")
    return torch.stack(images).float() / 255


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the files that are read, such as ``.png``, as Pillow lists them for ``FORMATS``."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)


def check_shape(image_size: int | None, channels: int | None) -> None:
    """Raises IDCError for a size below 1, or channels that no mode has; None is left to a default."""
    if image_size is not None and (not isinstance(image_size, Integral) or image_size < 1):
        raise IDCError(f"image size {short(image_size)}", "a side of 1 pixel or more", "use 32, for example")
    if channels is not None and (not isinstance(channels, Integral) or channels not in _MODES):
        raise IDCError(f"{short(channels)} channels", "1 (grey), 3 (RGB) or 4 (RGBA)", "use one of these numbers")


def decode(raw: Raw, name: str, shape: Shape) -> NDArray[np.uint8]:
    """Decode to a read-only array of `shape`; see `decode_image`. The error calls the image by `name`."""
    channels, size, _ = shape
    with open_image(raw, name) as image:
        try:
            image.load()
            pixels = np.asarray(_square(_to_mode(_to_8_bits(_upright(image), image.format), channels), size))
        except Exception as error:  # a damaged file makes PIL's readers raise anything, from OSError to struct.error
            raise _unreadable(name, error) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def open_image(raw: Raw, name: str) -> Image.Image:
    """Open an image by its header and check its size; nothing is decoded yet."""
    too_large = (f"at most {MAX_PIXELS:,} pixels", "scale it down, or leave it out")
    try:
        if isinstance(raw, Path) and raw.exists() and not raw.is_file():  # opening a pipe would wait for ever
            raise OSError("a directory" if raw.is_dir() else "a pipe or a device")
        image = raw if isinstance(raw, Image.Image) else _open(raw)
    except FileNotFoundError as error:
        raise IDCError(f"no such file: {name}", "an image file", "check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise IDCError(f"{name} ({str(error).split(',')[0]})", *too_large) from error
    except Exception as error:  # as in decode
        raise _unreadable(name, error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise IDCError(f"{name} ({width}x{height} pixels)", *too_large)
    return image


def _open(raw: bytes | Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw, formats=FORMATS)
    except UnidentifiedImageError:
        data = io.BytesIO(raw) if isinstance(raw, bytes) else raw.open("rb")
        with data:
            if data.read(len(_PNG)) != _PNG:
                raise
            return Image.open(io.BytesIO(_PNG + _without_exif(data.read())), formats=FORMATS)


def _without_exif(chunks: bytes) -> bytes:
    """A PNG's chunks but for EXIF blocks: for a damaged one PIL would refuse all the good pixels beside it."""
    kept, place = [], 0
    while place < len(chunks):
        end = place + 12 + int.from_bytes(chunks[place : place + 4], "big")
        if chunks[place + 4 : place + 8] != b"eXIf":
            kept.append(chunks[place:end])
        place = end
    return b"".join(kept)


def is_grey(image: Image.Image) -> bool:
    """Whether an image of this mode, or of this palette, can have no colours."""
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [0, 1, 2]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


@contextmanager
def no_pil_warnings() -> Iterator[None]:
    """Without PIL's own warnings of large images, where ours is an error and comes earlier, and of damaged EXIF blocks.
    Not to be entered in a thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
        yield


def _unreadable(name: str, error: Exception) -> IDCError:
    if isinstance(error, UnidentifiedImageError):
        reason = "not an image"
    else:
        reason = (str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__])[0]
    return IDCError(f"{name} ({reason})", "a readable image file", "replace or remove it")


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation has it; as it is, if that block is damaged: the pixels are good."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # PIL's reader of tags raises anything
        return image


def _to_8_bits(image: Image.Image, kind: str | None) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.float64) / 257
    elif image.mode == "I":
        values = np.asarray(image).astype(np.float64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 255:
            raise ValueError("32-bit integers outside of 0..255: save it with 8 or 16 bits")
    elif image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if not (values.min(initial=0) >= -_OVERSHOOT and values.max(initial=0) <= 1 + _OVERSHOOT):  # NaN neither
            raise ValueError("floats outside of [0, 1]: divide them by their range")
        values = values * 255
    else:
        return image
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels < 4:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])


def _square(image: Image.Image, size: int) -> Image.Image:
    """The short side scaled to `size` by antialiased bicubic interpolation, then the centred square; in one step.

    An image that fits already is not touched.
    """
    width, height = image.size
    if (width, height) == (size, size):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
