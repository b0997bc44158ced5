"""Radii within each other: what withstood every attack at a larger radius is not attacked again at a smaller one.

The ball of the smaller radius lies within that of the larger one, so a figure for the larger radius already claims that
these images stand at the smaller. The claim is as good as the attacks at the larger radius, and attacks that masked
gradients mislead may well find more at the smaller: therefore one such image in ``CHECKED`` is attacked all the same.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idc import records
from idc.errors import IDCError
from idc.evaluation.bench import Finding

CHECKED = 8


@dataclass(frozen=True, slots=True)
class Larger:
    """What an evaluation at a larger radius has shown.

    Args:
        eps: its radius.
        spared: ids of the images that are not to be attacked.
        checked: ids of those that withstood it too and are attacked nonetheless.
    """

    eps: float
    spared: frozenset[int] = frozenset()
    checked: frozenset[int] = frozenset()

    def remark(self, image: int) -> dict[str, str]:
        """What the line of an image, by its id, says of this."""
        kind = "spared" if image in self.spared else "checked" if image in self.checked else None
        return {} if kind is None else {"larger": kind}

    def settings(self) -> dict[str, Any]:
        """For the record of a result that depends on it."""
        return {"eps": self.eps, "spared": len(self.spared), "checked": len(self.checked)}


def read_larger(folder: Path, settings: Mapping[str, Any]) -> Larger:
    """What the finished evaluation in ``folder`` says for one of ``settings``, as ``Runner.settings`` gives them.

    An image withstood if all draws were right on its worst point.

    Raises:
        IDCError: if the evaluation differs in more than its radius, or its radius is not larger.
    """
    held = records.read_json(folder / "settings.json", "evaluate at the larger radius first")
    eps, own = held["protocol"]["threat"]["eps"], settings["protocol"]["threat"]["eps"]
    if eps <= own:
        raise IDCError(folder, f"an evaluation at more than {own:g}", f"order the radii; this one is of {eps:g}")
    for name in ("data", "seed", "classifier"):
        if held[name] != settings[name]:
            raise IDCError(folder, f"an evaluation of the same {name}", "evaluate all radii alike")
    if _but_radius(held["protocol"]) != _but_radius(json.loads(json.dumps(settings["protocol"]))):
        raise IDCError(folder, "an evaluation by the same protocol", "evaluate all radii alike")
    lines = records.read_lines(folder, "images", "evaluate")  # runner.LINES; the runner imports this room
    stood = sorted(line["id"] for line in lines if line["robust"][0] == line["draws"])
    checked = frozenset(stood[::CHECKED])
    return Larger(eps, frozenset(stood) - checked, checked)


def _but_radius(protocol: Any) -> Any:
    """A protocol's record without its threats."""
    if isinstance(protocol, dict):
        return {name: _but_radius(value) for name, value in protocol.items() if name != "threat"}
    return [_but_radius(value) for value in protocol] if isinstance(protocol, list) else protocol


def nested_check(lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Of the images that withstood a larger radius and were attacked at this one all the same, none may have fallen."""
    checked = [line for line in lines if line.get("larger") == "checked"]
    if not checked:
        return
    fell = sum(line["robust"][1] != line["class"] for line in checked)
    yield Finding(
        "what stood at a larger radius stands", not fell,
        f"{fell} of {len(checked)} images fell at this radius that had withstood a larger one",
        "attack at each radius anew (nested: false): larger steps miss what smaller ones find",
    )  # fmt: skip
