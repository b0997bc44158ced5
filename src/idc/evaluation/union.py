"""Several norms at once: what survives the attacks in each of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from idc.evaluation.verdict import Judged, verdict


def union(results: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """From the lines of evaluations of one model on the same images, one for each norm: the verdict on each image's
    worst norm (Tramer and Boneh, NeurIPS 2019), so that an image survives only where it survives all.

    Returns:
        ``mean`` (of an image the fewest right draws in any norm), ``majority`` (right by vote in all), ``worst_of_n``
        (every draw in all), each with its interval; ``draws``.

    Raises:
        ValueError: if the evaluations are of other images or draws.
    """
    first = results[0]
    if any([(x["id"], x["draws"]) for x in lines] != [(x["id"], x["draws"]) for x in first] for lines in results):
        raise ValueError("evaluations of other images or draws")
    judged = []
    for norms in zip(*results, strict=True):
        right, votes = zip(*(line["robust"][:2] for line in norms), strict=True)
        true = norms[0]["class"]
        judged.append(Judged(min(right), true if all(vote == true for vote in votes) else -1))
    return verdict(judged, [line["class"] for line in first], first[0]["draws"]).to_dict()
