"""What an evaluation's lines come to."""

import pytest

from idc.attacks.threat import Threat
from idc.evaluation.protocol import build_protocol
from idc.evaluation.summary import averages, reordered


def test_a_mean_over_corruptions_is_of_corruptions_alone():
    attacks = {"fog-1": [4, 0], "fog-2": [2, 0], "motion-blur-1": [0, 1], "my:Attack": [0, 1], "my-own-1": [0, 1]}
    found = averages([{"attacks": attacks, "draws": 4}])
    assert found["all"]["mean"] == pytest.approx(0.5)
    assert {kind: own["mean"] for kind, own in found["kind"].items()} == pytest.approx({"fog": 0.75, "motion-blur": 0})


def test_an_attack_beside_corruptions_is_named_with_them():
    found = build_protocol("corruptions", Threat(), attacks={"my:Attack": lambda threat: lambda *given: given[1]})
    assert found.within.endswith("corruptions at 5 severities, and my:Attack")
    assert build_protocol("pgd", Threat(), attacks={"my:Attack": lambda threat: lambda *given: given[1]}).within == ""


@pytest.mark.parametrize(
    ("confusion", "pairs"),
    [
        ([[9, 1, 0, 0], [1, 9, 0, 0], [0, 0, 9, 1]], []),
        ([[1, 9, 0, 0], [9, 1, 0, 0], [0, 0, 9, 1]], [[0, 1], [1, 0]]),
        ([[0, 9, 0, 1], [1, 0, 9, 0], [10, 0, 0, 0]], [[0, 1], [1, 2], [2, 0]]),
        ([[1, 9, 0, 0], [1, 9, 0, 0], [0, 9, 1, 0]], []),  # one class for all
        ([[1, 9, 0, 0], [0, 1, 9, 0], [0, 9, 1, 0]], [[1, 2], [2, 1]]),  # the first is only taken for another
        ([[0, 9, 0, 0, 0], [0, 0, 9, 0, 0], [2, 2, 3, 2, 0], [0, 0, 0, 9, 0]], [[0, 1], [1, 2]]),  # the third is unsure
        ([[9, 1, 0, 0], [0, 1, 9, 0], [4, 3, 3, 0]], []),  # one is taken for another that is unsure
        ([[4, 6, 0, 0], [6, 4, 0, 0], [0, 0, 9, 1]], []),  # within chance
        ([[1, 0, 0, 9], [9, 1, 0, 0], [0, 0, 9, 1]], []),  # no answer is no class
        ([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], []),
    ],
)
def test_classes_in_another_order_change_places_all_round(confusion, pairs):
    assert reordered(confusion) == pairs
