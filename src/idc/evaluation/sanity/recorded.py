"""Checks of what an evaluation has recorded: its lines, an image each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from idc.evaluation.sanity.bench import Finding, not_made
from idc.evaluation.verdict import Judged, wilson
from idc.text import percent
from idc.types import NOT_FINITE

Lines = Sequence[Mapping[str, Any]]


def square_check(lines: Lines) -> Iterator[Finding]:
    """Square must not fool more than 0.2 points of what the white-box attacks left; of a model whose draws disagree,
    so that votes change by themselves, not more than its interval allows where there is nothing."""
    if not lines or "square" not in lines[0]["attacks"]:
        return
    name = "black-box no stronger than white-box"
    lines = [line for line in lines if line.get("larger") != "spared"]  # Square was not asked of these
    if not lines:
        yield not_made(name, "all images survived a larger radius")
        return
    broken = sum(line["worst"] == "square" and _square_alone(line) for line in lines)
    n = len(lines)
    figure = broken / n
    pairs = (p for line in lines for p in [line["clean"], *line["attacks"].values()] if p is not None)
    varies = any(0 < pair[0] < lines[0]["draws"] for pair in pairs)
    yield Finding(
        name, figure <= (wilson(0.0, n).high if varies else max(0.002, 1 / n)),
        f"Square broke {percent(figure)} more of {len(lines)} images",
        "the white-box attacks are lost in masked gradients: give a surrogate",
    )  # fmt: skip


def _square_alone(line: Mapping[str, Any]) -> bool:
    """Whether the vote is right clean and under every other attack, and wrong under Square."""
    others = [pair for name, pair in line["attacks"].items() if name != "square" and pair is not None]
    right = all(pair[1] == line["class"] for pair in [line["clean"], *others])
    return bool(right and line["attacks"]["square"][1] != line["class"])


def finite_check(lines: Lines) -> Iterator[Finding]:
    """NaN or infinite logits are no answer: each such draw is counted wrong, and where there is one, that is said."""
    judged = ([line["clean"], line["noise"], line["robust"], *line["attacks"].values()] for line in lines)
    broken = sum(any(pair is not None and pair[1] == NOT_FINITE for pair in pairs) for pairs in judged)
    if broken:
        text = f"NaN or infinite for {broken} of {len(lines)} images, clean, under noise or attacked"
        yield Finding("logits finite", False, text, "fix the model: such answers are counted as wrong")


def points_check(lines: Lines) -> Iterator[Finding]:
    """NaN or infinity is no adversarial example: the image itself is judged in its place, as if it had survived."""
    said = []
    for name in lines[0]["attacks"] if lines else ():
        judged = [Judged(*pair) for line in lines if (pair := line["attacks"][name]) is not None]
        if broken := sum(not one.finite for one in judged):
            said.append(f"attack {name} returned NaN or infinity for {broken} of {len(judged)} images")
    if said:
        remedy = "correct the attack, or the model if its gradients are NaN: these images count as not attacked"
        yield Finding("adversarial examples finite", False, "; ".join(said), remedy)


def nested_check(lines: Lines) -> Iterator[Finding]:
    """Of the images that survived a larger radius and were attacked at this one all the same, all must survive."""
    checked = [line for line in lines if line.get("larger") == "checked"]
    if not checked:
        return
    lost = sum(line["robust"][0] < line["draws"] for line in checked)
    spared = sum(line.get("larger") == "spared" for line in lines)
    yield Finding(
        "what survives a larger radius survives", not lost,
        f"{lost} of {len(checked)} images that survived a larger radius did not; {spared} more were not attacked",
        "attack at each radius anew (nested: false): larger steps miss what smaller ones find",
    )  # fmt: skip
