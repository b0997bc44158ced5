"""Labels beside the points of a figure, none over another."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

_RING, _DIRECTIONS = 6.0, 16  # points between two distances from a mark; places at each, the first to its right
_RINGS = 20  # of which a place inside the axes is looked for
_APART, _WIDER = 1.5, 1.04  # points around a text, and its width, that stay free: other resolutions draw it a bit wider

_Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


def label_points(
    axes: Axes, points: Sequence[tuple[str, float, float]], *, size: float, colour: str = "black", near: float = 9.0
) -> None:
    """Write a text beside each of ``points`` (text, x, y), where it overlaps no other and not the legend: as near as
    that allows, inside the axes as long as there is room; one that is far from its mark has a line to it. The axes
    must be final: their limits and place.

    Args:
        size: of the texts, in points.
        near: points from the middle of a mark to its text where nothing is in the way.
    """
    figure: Any = axes.get_figure(root=True)
    canvas: Any = FigureCanvasAgg(figure)
    renderer, scale = canvas.get_renderer(), figure.dpi / 72
    figure.draw_without_rendering()
    inside: _Box = axes.get_window_extent(renderer).extents
    taken: list[_Box] = []
    if legend := axes.get_legend():
        box = legend.get_window_extent(renderer)
        legend.set_loc(tuple(axes.transAxes.inverted().transform((box.x0, box.y0))))  # the best place moves with texts
        taken.append(box.extents)
    for text, x, y in points:
        label = axes.annotate(text, (x, y), textcoords="offset points", xytext=(0, 0), ha="center", va="center",
                              fontsize=size, color=colour)  # fmt: skip
        box, mark = label.get_window_extent(renderer), axes.transData.transform((x, y))
        half = (_WIDER * box.width / 2 / scale + _APART, box.height / 2 / scale + _APART)
        for at, (dx, dy) in enumerate(_places(half, near)):
            own = (mark[0] + scale * (dx - half[0]), mark[1] + scale * (dy - half[1]),
                   mark[0] + scale * (dx + half[0]), mark[1] + scale * (dy + half[1]))  # fmt: skip
            fits = at >= _RINGS * _DIRECTIONS or _holds(inside, own)
            if fits and not any(_overlap(own, other) for other in taken):
                break
        taken.append(own)
        label.set_position((dx, dy))
        if at >= _DIRECTIONS:
            axes.annotate("", (x, y), textcoords="offset points", xytext=(dx, dy - math.copysign(half[1] - _APART, dy)),
                          arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.4})  # fmt: skip


def _places(half: tuple[float, float], near: float) -> Iterator[tuple[float, float]]:
    """Middles of a box of that half width and height around a mark at (0, 0), nearer ones first; without end."""
    distance = near
    while True:
        for index in range(_DIRECTIONS):
            turn = (index + 1) // 2 * (-1) ** index  # 0, -1, 1, -2, ...: right, then away from it on both sides
            angle = 2 * math.pi * turn / _DIRECTIONS
            yield math.cos(angle) * (half[0] + distance), math.sin(angle) * (half[1] + distance)
        distance += _RING


def _holds(outer: _Box, box: _Box) -> bool:
    return outer[0] <= box[0] and outer[1] <= box[1] and box[2] <= outer[2] and box[3] <= outer[3]


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
