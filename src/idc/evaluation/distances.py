"""The security curve: accuracy over the attack's radius, from the smallest change that was found for each image."""

from collections.abc import Mapping, Sequence
from typing import Any

from idc.evaluation.verdict import wilson
from idc.storage.fields import recorded

POINTS = 101  # of the curve at most
_NEAR = 1.01


def security_curve(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of an evaluation's lines, what its minimum-norm attacks found; nothing if it had none.

    Returns:
        ``curve``: radii and the share of all images that survive each (an image that is misclassified as it is, none),
        with ``low`` and ``high``; ``median``, the radius that half of the rightly classified images survive, None if
        more survive all that was found; ``attacks``: for each the share of images for which it found something,
        and for which it was within a hundredth of the nearest.
    """
    if not lines or "distances" not in lines[0]:
        return {}
    right = [line for line in lines if line["clean"][1] == line["class"]]
    nearest = [_nearest(line) for line in right]
    found = sorted(size for size in nearest if size is not None)
    every = max(1, -(-len(found) // (POINTS - 1)))
    radii = [0.0, *found[every - 1 :: every]]
    radii += found[-1:] if found and radii[-1] != found[-1] else []
    n = len(lines)
    curve = [
        {"radius": r} | recorded(wilson((len(right) - sum(size <= r for size in found if r)) / n, n)) for r in radii
    ]
    middle = (len(right) + 1) // 2
    names = list(lines[0]["distances"])
    return {
        "curve": curve,
        "median": found[middle - 1] if right and len(found) >= middle else None,
        "attacks": {name: _quality(name, right, nearest) for name in names},
    }


def _nearest(line: Mapping[str, Any]) -> float | None:
    return min((size for size in line["distances"].values() if size is not None), default=None)


def _quality(name: str, right: Sequence[Mapping[str, Any]], nearest: Sequence[float | None]) -> dict[str, float]:
    own = [line["distances"][name] for line in right]
    pairs = [(size, best) for size, best in zip(own, nearest, strict=True) if size is not None and best is not None]
    count = max(1, len(right))
    return {"found": len(pairs) / count, "best": sum(size <= _NEAR * best for size, best in pairs) / count}
