"""Radii within each other: what withstood every attack at a larger radius is not attacked again at a smaller one.

The ball of the smaller radius lies within that of the larger one, so a figure for the larger radius already claims that
these images stand at the smaller. The claim is as good as the attacks at the larger radius, and attacks that masked
gradients mislead may well find more at the smaller: therefore one such image in ``CHECKED`` is attacked all the same.

Only a deterministic answer either withstands or falls: of a stochastic model every image is attacked at every radius.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idc import records
from idc.errors import IDCError
from idc.evaluation.bench import Finding
from idc.files import write_json
from idc.noise import derive_seed

CHECKED = 8
LINES = "images"  # the runner's records, a line an image
_FILE = "larger.json"


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


def read_larger(folder: Path, settings: Mapping[str, Any]) -> Larger:
    """What the finished evaluation in ``folder`` says for one of ``settings``, as ``Runner.settings`` gives them.

    Of a stochastic model, and where the checks say that it cannot be believed, it says nothing.

    Raises:
        IDCError: if the evaluation is not finished, differs in more than its radius, or its radius is not larger.
    """
    own = json.loads(json.dumps(settings))
    held = records.read_json(folder / "settings.json", "evaluate at the larger radius first")
    summary = records.read_json(folder / "summary.json", "finish the larger radius first")
    try:
        larger, radius = held["protocol"]["threat"]["eps"], own["protocol"]["threat"]["eps"]
        if larger <= radius:
            raise IDCError(folder, f"an evaluation at more than {radius:g}", f"order the radii: it is of {larger:g}")
        for name in ("data", "seed", "block", "classifier", "protocol"):
            if _but_radius(held[name]) != _but_radius(own[name]):
                raise IDCError(folder, f"an evaluation of the same {name}", "evaluate all radii alike")
        if own["classifier"]["stochastic"] or not summary["reliable"]:
            return Larger(larger)
    except (KeyError, TypeError) as error:
        raise IDCError(folder, "a whole result of idc evaluate", "remove it and evaluate again") from error
    lines = records.read_lines(folder, LINES, "evaluate")
    if len(lines) < held["data"]["images"]:
        raise IDCError(folder, f"{held['data']['images']} finished images", "finish the larger radius first")
    stood = [line["id"] for line in lines if line["robust"][0] == line["draws"]]
    # Others at each radius, so that no image is spared at all of them by its place.
    stood.sort(key=lambda image: derive_seed(own["seed"], "nested", f"{radius:.9g}", image))
    checked = -(-len(stood) // CHECKED)
    return Larger(larger, frozenset(stood[checked:]), frozenset(stood[:checked]))


def _but_radius(record: Any) -> Any:
    """A record without the radius of its threats."""
    if isinstance(record, dict):
        return {name: _but_radius(value) for name, value in record.items() if name != "eps"}
    return [_but_radius(value) for value in record] if isinstance(record, list) else record


def note(out: Path, larger: Larger) -> None:
    """Note in ``out`` what its evaluation leaves out; it is then continued so."""
    write_json(out / _FILE, {"eps": larger.eps, "spared": sorted(larger.spared), "checked": sorted(larger.checked)})


def held_in(out: Path) -> Larger | None:
    """What ``note`` noted in ``out``; None if nothing."""
    if not (out / _FILE).exists():
        return None
    held = records.read_json(out / _FILE, "remove the folder and evaluate again")
    return Larger(held["eps"], frozenset(held["spared"]), frozenset(held["checked"]))


def nested_check(lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Of the images that withstood a larger radius and were attacked at this one all the same, none may have fallen."""
    checked = [line for line in lines if line.get("larger") == "checked"]
    if not checked:
        return
    fell = sum(line["robust"][0] < line["draws"] for line in checked)
    spared = sum(line.get("larger") == "spared" for line in lines)
    yield Finding(
        "what stood at a larger radius stands", not fell,
        f"{fell} of {len(checked)} images fell that had withstood a larger radius; {spared} more were not attacked",
        "attack at each radius anew (nested: false): larger steps miss what smaller ones find",
    )  # fmt: skip
