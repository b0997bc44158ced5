"""What helps to judge a training's accuracy: what pixels alone say, and why it is no better."""

from dataclasses import dataclass, replace

import pytest
import torch
from sklearn.neighbors import NearestCentroid

from idc import data
from idc.accuracy import BridgeAccuracy
from idc.commands.train import start_training
from idc.data import ImageSet
from idc.training.recipe import CNN_RECIPES, Recipe
from idc.training.result import nearest_mean, remarks


@dataclass(frozen=True)
class Found:
    score: float
    images: int = 1000

    def shares(self):
        return {"clean": self.score}


def photos(count: int, classes: int = 4) -> ImageSet:
    """Class k has grey level 40 k, up to 9 either way."""
    labels = torch.arange(count) % classes
    shift = (torch.arange(count * 4).view(count, 1, 2, 2) % 19) - 9
    images = (40 * labels.view(-1, 1, 1, 1) + 20 + shift).to(torch.uint8)
    return replace(data.load("digits", split="train", limit=10), images=images, labels=labels, ids=torch.arange(count),
                   class_names=tuple("abcd"[:classes]))  # fmt: skip


def said(found: float, fit: float, *, count: int = 2000, updates: int = 5000, recipe=CNN_RECIPES["fast"], images=1000):
    recipe = recipe if isinstance(recipe, Recipe) else replace(recipe, method="standard")
    sets = photos(count), photos(200)
    return remarks(Found(found, images), Found(fit), *sets, recipe, updates=updates)


def test_the_nearest_mean_image():
    """By hand: levels 20 and 60, a pixel of 41 is nearer to the second."""
    train = photos(80, classes=2)
    levels = torch.tensor([39, 41, 39, 41], dtype=torch.uint8).view(4, 1, 1, 1)
    judged = replace(train, images=levels.expand(4, 1, 2, 2), labels=torch.tensor([0, 1, 1, 1]), ids=torch.arange(4))
    assert nearest_mean(train, judged) == 0.75
    assert nearest_mean(photos(80), photos(40)) == 1.0


def test_the_nearest_mean_of_digits_is_scikit_learns():
    train, judged = (data.load("digits", split=s) for s in ("train", "validation"))
    known = NearestCentroid().fit(train.images.flatten(1).numpy(), train.labels.numpy())
    assert nearest_mean(train, judged) == pytest.approx(known.score(judged.images.flatten(1).numpy(), judged.labels))


def test_a_class_alone():
    one = photos(20).take([0, 4, 8])
    assert nearest_mean(one, photos(20)) == 0.25


@pytest.mark.parametrize(
    ("found", "fit", "more", "words"),
    [
        (0.5, 0.99, {}, ["knows its training images better (99.0%) than new ones (50.0%)"]),
        (0.5, 0.55, {"updates": 100}, ["only 100 updates"]),
        (0.5, 0.55, {}, ["not learned either"]),
        (0.5, 0.55, {"count": 40}, ["not learned either", "10 training images a class are few"]),
        (0.4, 0.7, {"updates": 100}, ["knows its training images better", "only 100 updates"]),
        (0.95, 1.0, {"count": 40, "updates": 1}, []),
    ],
)
def test_causes(found, fit, more, words):
    beside, *causes = said(found, fit, **more)
    assert "most frequent class 25.0%, the nearest mean image 100.0%" in beside
    assert len(causes) == len(words)
    assert all(word in cause for word, cause in zip(words, causes, strict=True))


def test_robust_accuracy_is_low_on_training_images_too():
    robust = Recipe(eps=8 / 255)
    assert len(said(0.45, 0.5, recipe=robust)) == 1
    assert "only 100 updates" in said(0.4, 0.45, updates=100, recipe=robust)[1]


def test_images_are_mixed_only_where_they_may_be():
    """Neither under attack, nor with timesteps that show the label, nor twice."""
    one_step = Recipe(t_weights=(0.0, 0.0, 0.0, 1.0))
    assert "--mix cutmix" in said(0.4, 0.7, recipe=one_step)[1]
    for other in (Recipe(), replace(one_step, eps=0.1, replays=2), replace(one_step, mix="mixup")):
        assert "--mix" not in said(0.4, 0.7, recipe=other)[1]


def test_few_images_that_chose_the_weights():
    assert "chose the weights" in said(0.5, 0.5, images=100)[0]
    assert "chose the weights" not in said(0.5, 0.5)[0]


def test_a_training_without_classes_says_if_it_was_short():
    class Noise(Found):
        def shares(self):
            return {}

    sets, recipe = (photos(8), photos(8)), CNN_RECIPES["fast"]
    assert remarks(Noise(0.5), Noise(0.5), *sets, recipe, updates=1) == []
    (short,) = remarks(Noise(0.5), Noise(0.5), *sets, replace(recipe, minutes=1.0), updates=1)
    assert "only 1 update fitted" in short


def test_a_run_that_has_not_ended_says_what_its_chain_lacks():
    chain = BridgeAccuracy(one_step=0.9, multi_step=0.5, single_draw=0.5, draws=1, images=100)
    (lags,) = remarks(chain, None, photos(8), photos(8), Recipe(), updates=1)
    assert "lags behind" in lags


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"eps": 0.1, "attack_steps": 1}, ", against L-inf attacks of 0.1 in 1 step"),
        ({"eps": 8 / 255, "attack_steps": 3, "optimizer": "muon"}, ", against L-inf attacks of 8/255 in 3 steps"),
        ({"eps": 0.5, "replays": 2, "norm": "l2"}, ", against free L2 attacks of 0.5 over 2 replays"),
    ],
)
def test_a_run_says_what_moves_its_weights_and_attacks_its_images(changes, told, network, tmp_path):
    said = []
    one = {"epochs": 1.0, "batch_size": 32, "precision": "fp32", "final_limit": 8}
    start_training("digits", tmp_path, preset=network, limit=32, changes=one | changes, say=said.append)
    (line,) = [text for text in said if text.startswith("trains ")]
    assert line.endswith(f" images with {changes.get('optimizer', 'adamw')}{told}")
