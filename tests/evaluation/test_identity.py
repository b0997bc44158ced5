"""A model is known by its answers too: by what code, noise and devices change of them."""

import json

import pytest
import torch

from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.evaluation.certificates import Certifier
from idc.evaluation.identity import PROBED, describe_model, model_fingerprint, probe, same_answers
from idc.evaluation.nested import read_larger
from idc.evaluation.protocol import build_protocol
from idc.evaluation.runner import Problem, Runner, hold_settings
from idc.evaluation.smoothing import Smoothed, Smoothing
from noise_models import Linear, Noisy, easy_images
from tiny import tiny_model

IMAGES, IDS = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(4)


def settings(model, images=IMAGES, **more):
    found = {"classifier": more, "answers": probe(model, images, IDS)}
    return json.loads(json.dumps(found, allow_nan=False))


class Scaled(Linear):
    def __init__(self, by=1.0, **settings):
        super().__init__(**settings)
        self.by = by

    def forward(self, images):
        return self.by * super().forward(images)


def test_rounding_is_no_other_answer_and_a_change_is():
    held = settings(Scaled())
    assert len(held["answers"]) == PROBED
    assert same_answers(held, settings(Scaled()))
    assert same_answers(held, settings(Scaled(1 + 1e-5)))  # another device, say
    assert not same_answers(held, settings(Scaled(1.01)))
    assert same_answers(held, settings(Scaled(1.01), precision="bf16"))
    assert not same_answers(held, settings(Scaled(1.2), precision="bf16"))
    assert not same_answers(held, settings(Scaled(), 1 - IMAGES))


@pytest.mark.parametrize("row", [0, 999])
def test_any_logit_of_a_thousand_counts(row):
    model, other = Linear(1000), Linear(1000)
    other.weights[row] *= -1
    assert not same_answers(settings(model), settings(other))
    assert len(settings(model)["answers"][0]) == 8


def test_logits_that_are_not_finite_are_answers_like_others():
    held, nan = settings(Scaled()), settings(Scaled(float("nan")))
    assert same_answers(nan, nan)
    assert not same_answers(held, nan)
    assert not same_answers(nan, held)


def test_noise_that_can_be_repeated_is_held_to_and_other_noise_is_not():
    class Own(Noisy):
        """Draws from a generator that nobody seeds."""

        random = torch.Generator()

        def forward(self, images):
            return Linear.forward(self, images + torch.randn(images.shape, generator=self.random))

    before = torch.get_rng_state()
    assert settings(Noisy()) == settings(Noisy())
    assert not same_answers(settings(Noisy()), settings(Noisy(sigma=0.2)))
    assert settings(Own())["answers"] is None
    assert same_answers(settings(Noisy()), settings(Own()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("damaged", ["x", [], [[1]], [["a"] * 8] * 4, 3])
def test_answers_that_are_none_are_not_the_same(damaged):
    assert not same_answers(settings(Linear()) | {"answers": damaged}, settings(Linear()))


def test_a_result_is_not_continued_with_other_answers_of_the_same_weights(tmp_path):
    """Neither an evaluation, nor one at a smaller radius, nor a certification."""
    images, classes = easy_images(Linear(), 6)
    problem = Problem(images, classes, torch.arange(6))

    def runner(model, eps=0.1):
        return Runner(model, problem, build_protocol("quick", Threat("linf", eps)), tmp_path / "r", "m")

    def certifier(model):
        return Certifier(Smoothed(model, Smoothing(0.5, n=100)), problem, tmp_path / "c", "m")

    for make in (runner, certifier):
        make(Scaled()).prepare()
        make(Scaled()).prepare()
        with pytest.raises(IDCError, match=r"a result of the same answers .*choose another --out"):
            make(Scaled(2.0)).prepare()
    (tmp_path / "r" / "summary.json").write_text('{"reliable": true}')
    smaller = runner(Scaled(2.0), 0.05)
    with pytest.raises(IDCError, match="of a model of the same answers"):
        read_larger(tmp_path / "r", smaller.settings() | smaller.answers())


def test_a_result_from_before_answers_were_kept_goes_on(tmp_path):
    hold_settings(tmp_path, {"seed": 0})
    hold_settings(tmp_path, {"seed": 0, "answers": [[1.0]]})
    assert "answers" not in json.loads((tmp_path / "settings.json").read_text())  # which nobody has seen


def test_a_models_digest_follows_its_values_and_not_their_layout():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(4, 3, 1), torch.nn.BatchNorm2d(3)).bfloat16()
    before = model_fingerprint(model)
    assert model_fingerprint(model.to(memory_format=torch.channels_last)) == before
    model[0].weight.data[0, 0] += 1
    assert model_fingerprint(model) != before


def test_a_result_from_before_there_were_other_labels_goes_on():
    """What is recorded of an IDC has no field that came later, unless it says something."""
    model, other = tiny_model(), tiny_model(label_kind="blocks")
    old = {"num_classes", "image_shape", "unet", "bridge", "label_seed", "visits", "clip", "temperature", "class_names"}
    assert describe_model(model, "m")["config"].keys() == old
    assert describe_model(other, "m")["config"].keys() == old | {"label_kind"}
