"""An evaluation's outcome in words: what holds, up to where, how sure that is, and what would change it."""

from collections.abc import Mapping
from typing import Any

from idc.report.rows import left_out, means, passed_checks
from idc.text import NORMS, eps_text, percent, share

_PAIRS = 4  # that are named
_ORDER = "the classes in the data's order (class_names on the module names them in its own)"


def statement(summary: Mapping[str, Any]) -> str:
    """Two or three sentences from a ``summary.json``."""
    n, clean = f"{summary['images']:,}", summary["clean"]["mean"]
    if not summary["attacks"]:
        own = summary.get("own", {}).get("accuracy", clean)
        found = f"{share(own)} of {n} images are answered rightly."
        if summary["draws"] > 1:
            found += f" The answer has noise: in the mean of {summary['draws']} draws {share(clean)} are."
        found += doubts(summary) + seen(summary)
        return f"{found} No attack was made: nothing is said of robustness."
    threat = summary["settings"]["protocol"]["threat"]
    if within := summary["settings"]["protocol"].get("within"):
        return _natural(summary, within)
    ball = f"within {NORMS[threat['norm']]} {eps_text(threat['eps'])}"
    attacks = ["adaptive search" if name == "adaptive" else name for name in summary["attacks"]]
    tried = f"protocol {summary['protocol']}: {', '.join(attacks)}"
    found = (
        f"{share(summary['robust']['mean'])} of {n} images keep their class {ball} ({tried}); {share(clean)} do clean."
    )
    if summary["draws"] > 1:
        worst = share(summary["robust"]["worst_of_n"])
        found += f" An attacker who may ask {summary['draws']} times leaves {worst}."
    if absent := left_out(summary):
        found += f" {absent}"
    failed = [check["name"] for check in summary["sanity"] if not check["passed"]]
    found += doubts(summary) + seen(summary)
    if failed:
        return f"UNRELIABLE, not to be quoted: failed {', '.join(failed)}. {found}"
    if summary["protocol"] == "quick":
        return f"{found} A first look, and an upper bound: a figure to quote takes protocol adaptive."
    if not summary["adaptive"]:
        return f"{found} An upper bound: the attack was not made for this model (protocol adaptive is)."
    checked = f" Sanity checks: {passed_checks(summary)}." if summary["sanity"] else ""
    return f"{found}{checked} A stronger attack can only lower it; a trigger that nobody asks for stays unseen."


def at_chance(clean: Mapping[str, float], classes: int) -> bool:
    """Whether an accuracy is no better than chance, or its interval reaches down to that and not far above it."""
    chance = 1 / classes
    return clean["mean"] <= chance or (clean["low"] <= chance and clean["high"] < chance + 0.15)


def doubts(summary: Mapping[str, Any]) -> str:
    """What of the clean answers makes one doubt that the model was asked rightly, with a space before it; else ""."""
    names, pairs = summary.get("class_names", ()), summary.get("reordered", ())
    if some := ", ".join(f"{names[true]} as {names[answer]}" for true, answer in pairs[:_PAIRS]):
        more = f" and so on ({len(pairs)} classes)" if len(pairs) > _PAIRS else ""
        return f" Most images of {some}{more} are answered: are {_ORDER}?"
    clean = summary.get("own", {}).get("accuracy", summary["clean"]["mean"])
    if "confusion" not in summary or not at_chance(clean, classes := len(summary["confusion"]["clean"])):
        return ""
    scale = "does it expect images in [0, 1] (normalisation belongs inside)"
    return f" Clean accuracy is no better than chance ({percent(1 / classes)}): are {_ORDER}, and {scale}?"


def seen(summary: Mapping[str, Any]) -> str:
    """A sentence of images that the model may have been trained on, with a space before it; else nothing."""
    data = summary["settings"].get("data", {})
    if data.get("split") == "train":
        return " These are training images: of others, fewer may be right."
    if data.get("split") == "all":
        return f" They are out of all images of {data['source']}: if it was trained on some, the figures are too high."
    return ""


def _natural(summary: Mapping[str, Any], within: str) -> str:
    """Of corruptions, or rotations and shifts: nobody chose them for the model but from a list."""
    n, clean, robust = f"{summary['images']:,}", summary["clean"]["mean"], summary["robust"]["mean"]
    found = f"{share(robust)} of {n} images keep their class under {within}; {share(clean)} do clean."
    if kinds := means(summary):
        count = sum(name.rpartition("-")[0] in kinds for name in summary["attacks"])
        found = f"{share(kinds['all'])} is the mean accuracy under {count} corruptions. {found}"
    failed = [check["name"] for check in summary["sanity"] if not check["passed"]]
    alarm = f"UNRELIABLE, not to be quoted: failed {', '.join(failed)}. " if failed else ""
    return f"{alarm}{found}{doubts(summary)}{seen(summary)} Nothing is said of an attacker's changes."
