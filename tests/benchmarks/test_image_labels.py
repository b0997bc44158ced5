"""Image labels beside K logits: what is trained, judged and compared, in little."""

import json
import math
from dataclasses import replace

import common
import image_labels
import label_pages
import label_sides
import pytest
import torch
from label_sides import REFERENCE, SHIPPED, SIDES

from idc import data
from idc.cost import forward_flops
from idc.method.unet import UNetSpec
from idc.training.bridge_objective import BridgeObjective
from idc.training.settings import override

SPEC = UNetSpec(4, (1, 2), groups=1, patch=4, residual=True, norm="batch", middle_attention=False, decoder=False)
DIGITS = data.load("digits", split="train", limit=20)
SHORT = {"validation_limit": 10, "final_limit": 10}


def recipe(name=SHIPPED, **changes):
    return override(label_sides.recipe_of("digits", SIDES[name], seed=0, epochs=0.1), SHORT | changes)


def trained(name, settings=None):
    """An objective, ready, and the terms of one step."""
    settings = settings or recipe(name)
    objective = label_sides.objective_of(SIDES[name], label_sides.build(SIDES[name], DIGITS, settings, SPEC), settings)
    objective.to(torch.device("cpu"), bf16=False)
    objective.begin(0.5, replay=0)
    objective.network.train()
    images, classes = DIGITS.images.float() / 255, DIGITS.labels
    seen = []

    def call(*args):
        seen.append(args)
        return objective.network(*args)

    return objective, objective.loss(call, images, classes, torch.Generator().manual_seed(3)), seen[0]


@pytest.mark.parametrize("name", SIDES)
def test_every_side_learns_all_its_weights_from_the_same_beginning(name):
    objective, terms, (x_t, _, y) = trained(name)
    begun = trained(SHIPPED)[0].network.state_dict()
    own = objective.network.state_dict()
    same = [k for k in own if "conv_out" not in k and k in begun and "running" not in k and "num_batches" not in k]
    assert len(same) > 20
    assert all(torch.equal(own[k], begun[k]) for k in same)
    terms["total"].backward()
    gradients = [p.grad for p in objective.network.parameters()]
    assert all(g is not None and torch.isfinite(g).all() and g.any() for g in gradients)
    images = 2 * (DIGITS.images.float() / 255) - 1
    attacked = y[-len(images) :]  # beside the clean ones, with consistency
    assert 0 < (attacked - images).abs().max() <= 2 * 0.1 + 1e-5
    noise = (x_t - y).std()
    assert noise == 0 if name == "k-logits-no-noise" else 0.03 < noise < 0.06  # sqrt(2 (0.999 - 0.999^2)) = 0.0447


def test_the_attack_is_that_of_the_shipped_training():
    """Two implementations of it; in L2, where no sign of a gradient near 0 decides."""
    settings = recipe(norm="l2", eps=1.0, attack_step=0.6)
    ours, shipped = (trained(name, settings) for name in ("label-cross-entropy", SHIPPED))
    assert isinstance(shipped[0], BridgeObjective)
    torch.testing.assert_close(ours[2][2], shipped[2][2], rtol=1e-4, atol=1e-4)


def test_k_logits_leave_out_the_last_layer_alone():
    """By FLOPs: of 64 places of 4 features, a 3x3 convolution to 64 values, against 10 logits of the pooled ones."""
    models = [label_sides.build(SIDES[name], DIGITS, recipe(), SPEC).eval() for name in (SHIPPED, REFERENCE)]
    own, other = (forward_flops(model, torch.zeros(1, 1, 32, 32)) for model in models)
    assert own - other == 2 * (16 * 9 * 8 * 64 - 8 * 10)


def test_the_gain_is_that_of_the_labels_cross_entropy():
    """A value's part in log softmax(-d / 0.02), d its mean absolute difference on [0, 1]: 1 / (2 0.02)."""
    plain, sharp = (
        label_sides.build(SIDES[name], DIGITS, recipe(), SPEC).eval() for name in (REFERENCE, "k-logits-gain")
    )
    images = DIGITS.images.float() / 255
    torch.testing.assert_close(sharp(images), 25 * plain(images))


@pytest.mark.parametrize("name", [REFERENCE, "label-parts"])
def test_a_side_is_trained_and_judged(name, tmp_path, monkeypatch):
    """The whole way of a run, of one update and four images."""
    monkeypatch.setattr(image_labels, "RUNS", tmp_path)
    monkeypatch.setattr(image_labels, "spec_of", lambda source: SPEC)
    monkeypatch.setattr(image_labels, "recipe_of", lambda source, side, **more: recipe(name))
    few = {answer: text for answer, text in SIDES[name].answers.items() if answer not in ("vote", "mean distance")}
    monkeypatch.setitem(SIDES, name, replace(SIDES[name], answers=few))
    rows = image_labels.one("digits", "digits", name, seed=0, epochs=0.1, limit=4)
    assert [r["answer"] for r in rows] == list(SIDES[name].answers)
    for row in rows:
        assert len(row["right"]) == len(row["survived"]) == row["images"] == 4
        assert row["survived"].count("1") == round(4 * row["robust"]["majority"]["mean"])
        assert (row["updates"], row["eps"]) == (1, 0.1)
        assert row["training_flops"] > 3 * row["flops"] > 0


# -- the table ---------------------------------------------------------------------------------------------------------


def row(side, seed, survived, **more):
    share = {"majority": {"mean": survived.count("1") / len(survived)}}
    return {
        "data": "digits", "side": side, "answer": label_sides.OWN, "seed": seed, "settings": "a", "ids": "b",
        "eps": 0.1, "survived": survived, "images": len(survived), "clean": share, "robust": share, "flops": 2e9,
        "seconds": 3.0, "training_flops": 9e9, "updates": 5, "epochs": 1.0, "training_images": 70, "draws": 1,
        "reliable": True, "hardware": {"cpu": "a CPU", "gpu": None},
    } | more  # fmt: skip


def test_it_grows_and_goes_on(tmp_path, monkeypatch):
    for module in (common, image_labels, label_pages):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    table = image_labels.Table("digits")
    assert not table.has(SHIPPED, 0, "a")
    table.add([row(REFERENCE, 0, "0100")])
    table.add([row(SHIPPED, 0, "1100")])
    table.add([row(SHIPPED, 0, "1110")])  # in place of the older
    again = image_labels.Table("digits")
    assert again.has(SHIPPED, 0, "a")
    assert not again.has(SHIPPED, 0, "other settings")
    assert not again.has(SHIPPED, 1, "a")
    assert not image_labels.Table("others").has(SHIPPED, 0, "a")
    held = json.loads((tmp_path / "image-labels.json").read_text())["rows"]
    assert [(r["side"], r["survived"]) for r in held] == [(SHIPPED, "1110"), (REFERENCE, "0100")]
    table.add([row("label-parts", 0, "1111", answer="vote")])
    assert not again.has("label-parts", 0, "a")  # two answers are lacking
    text = "\n".join(label_pages.image_labels())
    assert "| `label` | 1 | 75.0% [" in text
    assert "| +50.0, one seed, images [" in text


def test_settings_tell_runs_apart_and_words_do_not(monkeypatch):
    asked = {"seed": 0, "epochs": 2.0, "limit": 10}
    found = image_labels.settings("digits", SHIPPED, **asked)
    for changed in ({"seed": 1}, {"epochs": 3.0}, {"limit": 11}):
        assert image_labels.settings("digits", SHIPPED, **asked | changed) != found
    monkeypatch.setitem(SIDES, SHIPPED, replace(SIDES[SHIPPED], meaning="Said in another way."))
    assert image_labels.settings("digits", SHIPPED, **asked) == found


def test_what_was_measured_is_not_measured_again():
    """The rows that are kept were made by the settings of today, whatever has been added to a recipe since."""
    table = image_labels.Table("digits")
    asked = {(r["side"], r["seed"], r["epochs"]) for r in table.rows() if r["data"] == "digits"}
    assert asked
    for side, seed, epochs in asked:
        assert table.has(side, seed, image_labels.settings("digits", side, seed=seed, epochs=epochs, limit=300)), side


def test_differences_by_their_definition():
    """Student's interval written out, with its quantiles from a table: 4.303 of 2 and 3.182 of 3 degrees of freedom."""
    ours, theirs = ("1110", "1100", "1111"), ("0100", "1000", "0111")
    first = [row(SHIPPED, seed, bits) for seed, bits in enumerate(ours)]
    second = [row(REFERENCE, seed, bits) for seed, bits in enumerate(theirs)]
    over_seeds, over_images = label_pages.differences(first, second)
    for found, each, quantile in (
        (over_seeds, [0.5, 0.25, 0.25], 4.303),
        (over_images, [2 / 3, 1 / 3, 1 / 3, 0], 3.182),
    ):
        mean = sum(each) / len(each)
        half = quantile * math.sqrt(sum((e - mean) ** 2 for e in each) / (len(each) - 1) / len(each))
        assert found == pytest.approx((mean, mean - half, mean + half), abs=1e-3)
    assert label_pages.differences(first, [r | {"ids": "others"} for r in second]) is None
    assert label_pages.differences(first[:1], second[1:]) is None
    assert label_pages.interval(torch.tensor([0.25, 0.25]).double().numpy()) == (0.25, 0.25, 0.25)
