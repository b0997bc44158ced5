"""From an evaluation's lines to its summary: verdicts with intervals, confusion, cost."""

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from idc.attacks.corruption import KINDS
from idc.attacks.target import COUNTED
from idc.evaluation.distances import security_curve
from idc.evaluation.verdict import Judged, verdict, wilson
from idc.storage import records
from idc.storage.fields import recorded

LINES, COSTS = "images", "costs"  # records: a line an image, a line a block
Line = dict[str, Any]


def read_lines(folder: Path) -> list[Line]:
    """The finished images of an evaluation, by id.

    Raises:
        IDCError: if there is none.
    """
    return records.read_lines(folder, LINES, "evaluate")


def summarise_lines(lines: Sequence[Line], class_names: Sequence[str]) -> dict[str, Any]:
    """Verdicts over images.

    Returns:
        ``clean``, ``noise`` (random noise of the attacks' size) and ``robust`` (each image's worst adversarial example,
        judged afresh), each with ``mean``, ``majority``, ``worst_of_n``; ``attacks``, the same for each one, and on how
        many images it was run; ``images_spared``, how many were not attacked since they survived a larger radius;
        ``distances``, see ``security_curve``; ``single_draw``, robust as the paper counts it; ``confusion``, rows true,
        columns the vote, ``clean`` and ``robust``; ``reordered``, see there.
    """
    classes, draws = [line["class"] for line in lines], lines[0]["draws"]

    def of(pairs: Sequence[Sequence[Any] | None]) -> dict[str, Any]:
        judged = [Judged(0, -1) if pair is None else Judged(*pair) for pair in pairs]
        return verdict(judged, classes, draws).to_dict()

    names = list(lines[0]["attacks"])
    confusion = _confusion(lines, len(class_names))
    attacks = {}
    for name in names:
        pairs = [line["attacks"][name] for line in lines]
        # Each attack alone; under a gate, an image without a right draw left was not attacked again and stays so, and
        # one that a larger radius spared is as it was there.
        known = [
            line["robust"] if pair is None and line.get("larger") == "spared" else pair
            for line, pair in zip(lines, pairs, strict=True)
        ]
        run = sum(p is not None and name not in n.get("reused", ()) for n, p in zip(lines, pairs, strict=True))
        attacks[name] = of(known) | {"attacked": run}
    spared = sum(line.get("larger") == "spared" for line in lines)
    single = sum(line["single"] for line in lines) / len(lines)
    distances = security_curve(lines)
    return {
        "clean": of([line["clean"] for line in lines]),
        "noise": of([line["noise"] for line in lines]),
        "robust": of([line["robust"] for line in lines]),
        "attacks": attacks,
        "worst": {name: sum(line["worst"] == name for line in lines) for name in ["", *names]},
        "single_draw": recorded(wilson(single, len(lines))),
        "right_draws": {
            kind: [sum(line[kind][0] == k for line in lines) for k in range(draws + 1)] for kind in ("clean", "robust")
        },
        "confusion": confusion,
        "reordered": reordered(confusion["clean"]),
        "class_names": list(class_names),
        "images": len(lines),
        "images_spared": spared,
        "draws": draws,
    } | ({"distances": distances} if distances else {})


def averages(lines: Sequence[Line]) -> dict[str, Any]:
    """Mean accuracy (of draws) over corruptions: of them ``all``, and by ``kind``, the part of their names before the
    last hyphen. Intervals take an image's mean as a share of it."""
    kinds: dict[str, list[str]] = {}
    for name in lines[0]["attacks"]:
        if (kind := name.rpartition("-")[0]) in KINDS:  # a user may have added an attack
            kinds.setdefault(kind, []).append(name)

    def of(names: Sequence[str]) -> Any:
        right = sum(line["attacks"][name][0] / line["draws"] for line in lines for name in names)
        return recorded(wilson(right / (len(lines) * len(names)), len(lines)))

    every = [name for names in kinds.values() for name in names]
    return {"all": of(every), "kind": {kind: of(names) for kind, names in kinds.items()}}


def _confusion(lines: Sequence[Line], classes: int) -> dict[str, list[list[int]]]:
    """Counts by true class and majority vote; the last column holds ties and what is no answer."""
    found = {}
    for kind in ("clean", "robust"):
        table = [[0] * (classes + 1) for _ in range(classes)]
        for line in lines:
            table[line["class"]][max(-1, line[kind][1])] += 1
        found[kind] = table
    return found


def reordered(confusion: Sequence[Sequence[int]]) -> list[list[int]]:
    """Classes that seem to be numbered otherwise by the model than by the data, as ``[true class, answer]``: most
    images of each, by 95% intervals, are answered as another of them. They change places all round, or each has the
    place of the next and of no other.

    Args:
        confusion: K rows of true classes, of K + 1 counts of answers, the last of none.
    """
    most: dict[int, int] = {}
    for true, row in enumerate(confusion):
        answer, count = max(enumerate(row[:-1]), key=itemgetter(1))
        if (n := sum(row)) and wilson(count / n, n).low > 0.5:
            most[true] = answer
    claims = Counter(most.values())

    def returns(true: int) -> bool:
        place: int | None = most[true]
        for _ in most:
            if place is None or place == true:
                break
            place = most.get(place)
        return place == true

    moved = {true: answer for true, answer in most.items() if true != answer}
    chained = {true: answer for true, answer in moved.items() if claims[answer] == 1}
    linked = {true for true, answer in chained.items() if answer in chained or true in chained.values()}
    return [[true, answer] for true, answer in moved.items() if true in linked or returns(true)]


def read_costs(folder: Path) -> dict[str, Any]:
    """Sums over blocks: ``seconds`` by attack, what ``Tally`` counts by function, ``flags``, ``images``."""
    summed = ("seconds", *COUNTED)
    total: dict[str, Any] = {kind: {} for kind in summed} | {"flags": [], "images": 0}
    for row in records.read_all(folder, f"{COSTS}-*.jsonl", "block").values():
        for kind in summed:
            for name, value in row.get(kind, {}).items():  # older lines do not know all of them
                total[kind][name] = total[kind].get(name, 0) + value
        total["flags"] += [flag for flag in row["flags"] if flag not in total["flags"]]
        total["images"] += row["images"]
    return total
