"""Radii within each other: what survived every attack at a larger radius is not attacked again at a smaller one.

The ball of the smaller radius lies within that of the larger one, so a figure for the larger radius already claims that
these images survive the smaller. The claim is as good as the attacks at the larger radius, and attacks that masked
gradients mislead may well find more at the smaller: therefore one such image in ``CHECKED`` is attacked all the same.

Only a deterministic answer either survives or not: of a stochastic model every image is attacked at every radius.
An attack without a radius of its own finds the same at each, and is run once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idc.errors import IDCError
from idc.evaluation.identity import same_answers
from idc.evaluation.summary import read_lines
from idc.noise import derive_seed
from idc.storage import records

CHECKED = 8
_FILE = "larger.json"


@dataclass(frozen=True, slots=True)
class Larger:
    """What an evaluation at a larger radius has shown.

    Args:
        eps: its radius.
        spared: ids of the images that are not to be attacked.
        checked: ids of those that survived it too and are attacked nonetheless.
        same: by an attack without a radius, what it came to for each image, as its line has it.
    """

    eps: float
    spared: frozenset[int] = frozenset()
    checked: frozenset[int] = frozenset()
    same: Mapping[str, Mapping[int, tuple[Any, ...]]] = field(default_factory=dict)

    def remark(self, image: int) -> dict[str, Any]:
        """What the line of an image, by its id, says of this."""
        kind = "spared" if image in self.spared else "checked" if image in self.checked else None
        return ({} if kind is None else {"larger": kind}) | ({"reused": list(self.same)} if self.same else {})


def read_larger(folder: Path, settings: Mapping[str, Any]) -> Larger:
    """What the finished evaluation in ``folder`` says for one of ``settings``, as ``Runner.settings`` gives them.

    Of a stochastic model, and where the checks say that it cannot be believed, all images are attacked again.

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
            if not same_but_radius(held[name], own[name]):
                raise IDCError(folder, f"an evaluation of the same {name}", "evaluate all radii alike")
        if not same_answers(held, own):
            raise IDCError(folder, "an evaluation of a model of the same answers", "evaluate all radii alike")
        attacks = own["protocol"]["attacks"]
        same_at_all = [name for name, attack in attacks.items() if attack.get("threat", ...) is None]
        believed = summary["reliable"] and not own["classifier"]["stochastic"]
    except (KeyError, TypeError) as error:
        raise IDCError(folder, "a whole result of idc evaluate", "remove it and evaluate again") from error
    lines = read_lines(folder)
    if len(lines) < held["data"]["images"]:
        raise IDCError(folder, f"{held['data']['images']} finished images", "finish the larger radius first")
    same = {
        name: {line["id"]: tuple(line["attacks"][name]) for line in lines}
        for name in same_at_all
        if all(line["attacks"][name] for line in lines)  # under a gate some were not attacked
    }
    if not believed:
        return Larger(larger, same=same)
    survived = [line["id"] for line in lines if line["robust"][0] == line["draws"]]
    # Others at each radius, so that no image is spared at all of them by its place.
    survived.sort(key=lambda image: derive_seed(own["seed"], "nested", f"{radius:.9g}", image))
    checked = -(-len(survived) // CHECKED)
    return Larger(larger, frozenset(survived[checked:]), frozenset(survived[:checked]), same)


def same_but_radius(one: Any, other: Any) -> bool:
    """Whether two records differ in the radius of their threats alone, or in that and steps that are a share of it."""
    return any(_but_radius(one, other, shares) == _but_radius(other, one, shares) for shares in (False, True))


def _but_radius(record: Any, other: Any, shares: bool) -> Any:
    """``record`` without its radii and without what is None, which a record of before may lack; with ``shares`` its
    steps as shares of them, which at radius 0 is any."""
    if isinstance(record, dict) and isinstance(other, dict):
        if shares and record.get("step") is not None and record.get("threat"):
            radii = [r["threat"]["eps"] if r.get("threat") else 0 for r in (record, other)]
            record = record | {"step": round(record["step"] / radii[0], 9) if all(radii) else 0}
        own = {name: value for name, value in record.items() if name != "eps" and value is not None}
        return {name: _but_radius(value, other.get(name), shares) for name, value in own.items()}
    if isinstance(record, list) and isinstance(other, list) and len(record) == len(other):
        return [_but_radius(a, b, shares) for a, b in zip(record, other, strict=True)]
    return record


def note(out: Path, larger: Larger) -> None:
    """Note in ``out`` what its evaluation leaves out; it is then continued so."""
    same = {name: sorted((image, *pair) for image, pair in found.items()) for name, found in larger.same.items()}
    known = {"eps": larger.eps, "spared": sorted(larger.spared), "checked": sorted(larger.checked), "same": same}
    records.write(out / _FILE, known)


def held_in(out: Path) -> Larger | None:
    """What ``note`` noted in ``out``; None if nothing."""
    if not (out / _FILE).exists():
        return None
    keys = ("eps", "spared", "checked")
    held = records.read_json(out / _FILE, "remove the folder and evaluate again", keys=keys)
    same = {name: {image: tuple(pair) for image, *pair in found} for name, found in held.get("same", {}).items()}
    return Larger(held["eps"], frozenset(held["spared"]), frozenset(held["checked"]), same)
