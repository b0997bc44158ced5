"""What the pages share: attacks in words."""

from idc.attacks.adaptive import AdaptiveAttack
from idc.attacks.gradient import pgd
from idc.attacks.objective import CrossEntropy, Margin
from idc.attacks.threat import Threat
from idc.report.html import attack_text
from idc.storage.fields import recorded


def test_an_attack_in_words_is_no_python():
    words = attack_text(recorded(pgd(Threat("linf", 0.1), steps=7, objective=Margin()), kinds=True))
    assert words == (
        "GradientAttack: objective Margin, surrogate answer, steps 7, control fixed, decay 0, random start, "
        "restarts 1, targets 0, eot 1, mean of loss, judge draws 8"
    )
    attack = AdaptiveAttack(threat=Threat("linf", 0.1), objectives=(Margin(), CrossEntropy()), low_frequency=0.25)
    words = attack_text(recorded(attack, kinds=True))
    assert "objectives Margin and CrossEntropy, trial steps" in words
    assert "low frequency 0.25" in words
    assert not set("{}[]'_") & set(words)
    assert attack_text({"kind": "OneOfMine"}) == "OneOfMine"
