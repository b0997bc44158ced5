"""What protocols are made of: all of it is recorded, and settings change what they name."""

import json

import pytest
import torch

from idc.attacks.adaptive import AdaptiveAttack
from idc.attacks.gradient import pgd
from idc.attacks.objective import DLR, CrossEntropy, Margin
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.evaluation.protocol import Protocol, build_protocol
from idc.noise import Streams
from tiny import tiny_model


def logits(images):
    return images.flatten(1)


def test_protocols_say_all_and_knobs_turn_what_they_name():
    for name in ("clean", "quick", "adaptive", "paper", "pgd", "apgd"):
        text = json.dumps(build_protocol(name, Threat("linf", 0.1)).to_dict())
        assert json.loads(text)["threat"]["eps"] == (0.0 if name == "clean" else 0.1)
    turned = build_protocol("pgd", Threat("linf", 0.1), draws=3, steps=7, eot=2, restarts=None)
    assert [label for label, _ in turned.attacks] == ["pgd-7 (margin)", "pgd-7 (cross-entropy)"]
    assert {(own.steps, own.eot, own.restarts) for _, own in turned.attacks} == {(7, 2, 1)}
    assert turned.draws == 3
    ((label, _),) = build_protocol("apgd", Threat("linf", 0.1), steps=7, loss="dlr").attacks
    assert label == "apgd-7 (dlr)"
    ((label, _),) = build_protocol("pgd", Threat("linf", 0.1), loss="margin").attacks
    assert label == "pgd-20 (margin)"
    assert dict(build_protocol("quick", Threat(), steps=9).attacks)["adaptive"].steps == 9
    for wrong in (("clean", {"steps": 3}), ("paper", {"steps": 3}), ("best", {}), ("quick", {"surrogate": "x"})):
        with pytest.raises(IDCError):
            build_protocol(wrong[0], Threat(), **wrong[1])


def test_attacks_keep_names_that_tell_them_apart():
    """One of two attacks of one name would not run."""
    threat = Threat("linf", 0.1)
    own = Protocol("mine", threat, (("pgd (short)", pgd(threat, steps=5)), ("pgd (long)", pgd(threat, steps=50))))
    assert dict(build_protocol(own, threat, loss="dlr").attacks).keys() == {"pgd (short) (dlr)", "pgd (long) (dlr)"}
    own = Protocol("mine", threat, (("pgd-5", pgd(threat, steps=5)), ("pgd-50", pgd(threat, objective=Margin()))))
    with pytest.raises(IDCError, match="two attacks named pgd-7 in mine"):
        build_protocol(own, threat, steps=7)


def test_what_a_protocol_lacks_in_l1_is_recorded():
    for name, names in (("adaptive", ["adaptive"]), ("curve", ["fmn"])):
        protocol = build_protocol(name, Threat("l1", 4.0))
        assert [attack for attack, _ in protocol.attacks] == names
        assert "FAB" in protocol.to_dict()["left_out"]
        assert any("APGD-L1's first rounds" in part for part in protocol.left_out) == (name == "adaptive")
        assert "left_out" not in build_protocol(name, Threat("l2", 1.0)).to_dict()
    with pytest.raises(IDCError, match="norm l1 for AutoAttack"):
        build_protocol("autoattack", Threat("l1", 4.0))


def test_an_answer_with_noise_is_spared_the_attacks_that_need_a_boundary():
    for name, others in (("adaptive", ["adaptive", "square"]), ("curve", ["fmn"])):
        protocol = build_protocol(name, Threat("linf", 0.1))
        assert "fab" in dict(protocol.for_target(Target(logits)).attacks)
        assert [attack for attack, _ in protocol.for_target(Target(logits, stochastic=True)).attacks] == others


@pytest.mark.parametrize("name", ["quick", "adaptive"])
def test_records_of_answers_with_noise_tell_the_search_from_that_of_before(name):
    """A record from before such runs lacks the fields, which read as None: without noise nothing changed."""
    protocol = build_protocol(name, Threat("linf", 0.1))

    def recorded(stochastic):
        search = protocol.for_target(Target(logits, stochastic=stochastic)).to_dict()["attacks"]["adaptive"]
        return search["momentum"], search["follow_first"]

    assert recorded(False) == (None, None)
    assert recorded(True) == (0.9, True)


def test_the_first_function_is_followed_where_short_trials_may_mislead():
    """All functions of an IDC in one step are that step; a chain goes another way than some, as may a module's."""
    model, owns = tiny_model(visits=(3, 2, 1, 0)), {"straight": logits}
    for target, follows in (
        (Target.of(model.one_step), None),
        (Target.of(model.with_answer(eta=0.0)), True),
        (Target.of(model), True),
        (Target(logits, owns), True),
        (Target(logits), None),
        (Target(logits, stochastic=True), True),
    ):
        search = dict(build_protocol("quick", Threat("linf", 0.1)).for_target(target).attacks)["adaptive"]
        assert search.follow_first is follows
    asked = AdaptiveAttack(threat=Threat("linf", 0.1), follow_first=False)
    assert asked.for_target(Target.of(model)).follow_first is False


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_either_loss_is_raised_along_the_models_first_weak_spot(name):
    threat = Threat("linf", 0.1)

    def attacks(protocol, surrogates=("first-one", "other")):
        found = protocol.for_target(Target(logits, dict.fromkeys(surrogates, logits))).attacks
        return [(own.surrogate, own.objective) for _, own in found]

    assert attacks(build_protocol(name, threat)) == [("first-one", Margin()), ("first-one", CrossEntropy())]
    assert {surrogate for surrogate, _ in attacks(build_protocol(name, threat), ())} == {"answer"}
    for word, objective in (("cross-entropy", CrossEntropy()), ("dlr", DLR()), ("margin", Margin())):
        assert attacks(build_protocol(name, threat, surrogate="answer", loss=word)) == [("answer", objective)]
    with pytest.raises(IDCError, match="--loss"):
        build_protocol("adaptive", threat, loss="margin")


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_the_logits_does_not_matter_to_it(scale):
    """A linear model of four classes whose margin is known in closed form: PGD reaches it however flat or steep the
    logits are; the cross-entropy of steep ones has no gradient left in float32, that of flat ones another direction."""
    weights = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    images = 0.2 + 0.6 * torch.rand(32, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    found = images.flatten(1) @ weights.T
    classes = found.argmax(1)
    threat = Threat("linf", 0.03)
    away = (weights[classes][:, None] - weights).abs().sum(2)  # what an L-inf step of 1 takes from each margin
    gaps = found.gather(1, classes[:, None]) - found - threat.eps * away
    survives = gaps.scatter(1, classes[:, None], 1.0).amin(1) > 0
    assert 0.1 < survives.float().mean() < 0.9
    target = Target(lambda x: scale * x.flatten(1) @ weights.T)
    (_, attack), _ = build_protocol("pgd", threat, steps=40, restarts=3).for_target(target).attacks
    moved = attack(target, images, classes, Streams(torch.arange(32), 0))
    assert torch.equal(target.answer(moved).argmax(1) == classes, survives)


def test_the_papers_settings_are_those_of_its_code():
    paper = build_protocol("paper", Threat("linf", 8 / 255))
    attacks = dict(paper.attacks)
    assert not paper.adaptive
    steps = {name: (a.steps, pytest.approx(a.step * 255), a.eot, a.random_start, a.decay)
             for name, a in attacks.items() if name in ("fgsm", "mi-fgsm", "pgd-20", "eot-pgd-50")}  # fmt: skip
    assert steps == {"fgsm": (1, 8, 1, False, 0), "mi-fgsm": (5, 2, 1, False, 1), "pgd-20": (20, 2, 1, True, 0),
                     "eot-pgd-50": (50, 2, 15, False, 0)}  # fmt: skip
    assert all(attacks[n].fixed_noise and attacks[n].surrogate == "published" for n in steps)
    auto, cw = attacks["autoattack-10"], attacks["cw-l2"]
    assert (auto.steps, auto.queries, auto.version, auto.reseed) == (10, 5000, "standard", True)
    assert (cw.constant, cw.steps, cw.step, cw.searches, cw.reseed) == (1e-4, 1000, 0.01, 1, True)
