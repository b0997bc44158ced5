"""An outcome in words says what was found, how sure it is, and what is wrong with it."""

from idc.report.rows import outcome, passed_checks
from idc.report.statement import statement


def summary(**changes) -> dict:
    share = {"mean": 0.5, "low": 0.4, "high": 0.6}
    points = {"mean": share, "majority": share, "worst_of_n": {"mean": 0.25, "low": 0.2, "high": 0.3}}
    return {
        "images": 1000, "draws": 1, "clean": points, "robust": points, "adaptive": True, "protocol": "adaptive",
        "attacks": {"adaptive": points, "square": points},
        "sanity": [{"name": "a", "passed": True}, {"name": "b", "passed": True}],
        "settings": {"protocol": {"threat": {"norm": "linf", "eps": 8 / 255}}},
    } | changes  # fmt: skip


def test_what_holds():
    text = statement(summary())
    assert text.startswith(
        "50.0% [40.0%, 60.0%] of 1,000 images keep their class within L-inf 8/255 "
        "(protocol adaptive: adaptive search, square)"
    )
    assert "Sanity checks: 2 of 2 passed." in text
    assert "UNRELIABLE" not in text


def test_a_check_that_was_not_made_has_not_passed():
    passed, failed = ({"name": "a", "passed": passed, "figure": "1"} for passed in (True, False))
    absent, older = passed | {"made": False}, passed | {"figure": "not asked: no image survived"}
    assert [outcome(check) for check in (passed, failed, absent, older)] == ["ok", "FAILED", "not made", "not made"]
    assert "Sanity checks: 2 of 2 passed, 1 not made." in statement(summary(sanity=[passed, passed, absent]))
    assert passed_checks({"sanity": [passed, failed, absent, older]}) == "1 of 2 passed, 2 not made"


def test_what_was_left_out_is_said():
    threat = {"threat": {"norm": "l1", "eps": 12.0}, "left_out": ["FAB", "Square"]}
    text = statement(summary(settings={"protocol": threat}))
    assert "within L1 12 " in text
    assert "Left out in L1 here: FAB, Square." in text


def test_a_failed_check_comes_first():
    text = statement(summary(sanity=[{"name": "logits, not probabilities", "passed": False}]))
    assert text.startswith("UNRELIABLE, not to be quoted: failed logits, not probabilities.")


def test_an_attack_that_is_not_adaptive_is_an_upper_bound():
    assert "An upper bound" in statement(summary(adaptive=False))


def test_noise_may_be_asked_again():
    assert "An attacker who may ask 20 times leaves 25.0%" in statement(summary(draws=20))


def test_without_an_attack_nothing_is_said_of_robustness():
    own = {"accuracy": {"mean": 0.9, "low": 0.8, "high": 0.95}}
    assert statement(summary(attacks={}, own=own)).startswith(
        "90.0% [80.0%, 95.0%] of 1,000 images are answered rightly"
    )


def test_quick_is_a_first_look():
    assert "A first look" in statement(summary(protocol="quick"))


def test_chance_is_told():
    """One of two classes is right half of the time."""
    confusion = {"clean": [[25, 25, 0], [25, 25, 0]]}
    lucky = {"clean": {"mean": {"mean": 0.5, "low": 0.4, "high": 0.6}}, "confusion": confusion}
    assert "no better than chance" in statement(summary(**lucky))
    assert "no better than chance" in statement(summary(**lucky, attacks={}))
    few = {"clean": {"mean": {"mean": 0.5, "low": 0.3, "high": 0.7}}}
    assert "no better than chance" in statement(summary(**few, confusion=confusion))
    assert "chance" not in statement(
        summary(clean={"mean": {"mean": 0.9, "low": 0.8, "high": 0.95}}, confusion=confusion)
    )


def test_classes_in_another_order_are_told():
    moved = {"class_names": ["a", "b", "c", "d", "e"], "reordered": [[0, 1], [1, 0]]}
    assert "Most images of a as b, b as a are answered: are the classes" in statement(summary(**moved))
    assert "Most images" not in statement(summary(**moved | {"reordered": []}))
    many = moved | {"reordered": [[k, (k + 1) % 5] for k in range(5)]}
    assert "a as b, b as c, c as d, d as e and so on (5 classes)" in statement(summary(**many))


def test_images_that_the_model_may_have_seen_are_told():
    def about(**data):
        return {"settings": summary()["settings"] | {"data": data}}

    assert "These are training images" in statement(summary(**about(split="train", source="digits")))
    assert "out of all images of photos/" in statement(summary(**about(split="all", source="photos/")))
    assert "all images of photos/" in statement(summary(**about(split="all", source="photos/"), attacks={}))
    for data in ({"split": "test", "source": "digits"}, {"split": "as given", "source": "mine"}):
        assert statement(summary(**about(**data))) == statement(summary())


def test_a_single_answer_of_a_noisy_model_stands_beside_the_mean_of_its_draws():
    own = {"accuracy": {"mean": 0.9, "low": 0.8, "high": 0.95}}
    text = statement(summary(attacks={}, own=own, draws=20))
    assert "90.0% [80.0%, 95.0%] of 1,000 images are answered rightly. The answer has noise" in text
    assert "in the mean of 20 draws 50.0% [40.0%, 60.0%] are." in text
