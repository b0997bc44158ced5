"""A figure as PNG or SVG, a picture as matplotlib takes it; nothing of matplotlib's global state."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.float32]


@contextmanager
def as_written() -> Iterator[None]:
    """Inside, a name with $ in it is drawn as it is, and is no formula."""
    with matplotlib.rc_context({"text.parse_math": False}):
        yield


def to_rgb(image: Array) -> Array:
    """(C, H, W) in [0, 1] with 1, 3 or 4 channels -> (H, W, 3) or (H, W, 4)."""
    moved = np.clip(image, 0, 1).transpose(1, 2, 0)
    return np.repeat(moved, 3, axis=2) if moved.shape[2] == 1 else moved


def png(figure: Figure, *, dpi: int = 100) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an <svg> element, without matplotlib's XML header; the same text whenever the same is drawn."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "idc"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
