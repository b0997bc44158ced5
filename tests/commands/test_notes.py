"""What is said before an evaluation: which function a single attack follows, and what of the request means little."""

import pytest
import torch

from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.commands.evaluate import evaluate
from idc.commands.notes import notes
from idc.commands.request import Request
from idc.errors import IDCError
from idc.evaluation.protocol import build_protocol
from idc.types import ClassifierDefaults
from tiny import save_digits_model, tiny_model

IMAGE = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def said(target: Target, **asked: object) -> str:
    request = Request(model="m", data="d", **asked)
    turns = {name: getattr(request, name) for name in ("eot", "surrogate")}
    protocol = build_protocol(request.protocol, Threat("linf", request.eps or 0.1), **turns).for_target(target)
    return "\n".join(notes(request, protocol, target, IMAGE))


def test_which_function_pgd_follows():
    target = Target.of(tiny_model(4))
    assert said(target, protocol="pgd") == (
        "note: pgd follows one-step-inner, the first of the model's surrogates (--surrogate names another)"
    )
    assert said(target, protocol="pgd", surrogate="answer") == ""
    assert said(Target(lambda images: images.flatten(1)), protocol="apgd") == ""


def test_draws_that_average_nothing():
    target = Target.of(tiny_model(4))
    assert target.stochastic
    nothing = "--eot changes nothing: one-step-inner draws no noise"
    assert nothing in said(target, protocol="pgd", eot=4)
    assert "--eot" not in said(target, protocol="pgd", eot=4, surrogate="chain-inner")
    assert "--eot" not in said(target, protocol="pgd", eot=1)


def test_what_says_little_of_this_protocol():
    assert "basic attacks on probabilities" in said(Target.of(tiny_model(4).one_step), protocol="paper")
    assert said(Target.of(tiny_model(4)), protocol="paper") == ""
    assert "--norm and --eps mean nothing to shifts" in said(Target.of(tiny_model(4)), protocol="shifts", eps=0.1)


def test_a_radius_that_nobody_uses():
    target = Target.of(tiny_model(4))
    assert "L-inf eps 0.32 is 81.6 of 255 levels" in said(target, protocol="quick", eps=8 / 25)
    assert said(target, protocol="quick", eps=0.3) == ""


def test_the_published_function_is_known_to_it(tmp_path):
    """It is none of the model's own, but of the evaluation's; of a chain it draws noise."""
    model, lines = str(save_digits_model(tmp_path / "model")), []
    asked = {"protocol": "pgd", "surrogate": "published", "eot": 2, "steps": 1, "eps": 0.1, "limit": 2, "draws": 2}
    evaluate(Request(model=model, data="digits", **asked), tmp_path / "result", say=lines.append)
    assert not [line for line in lines if "--eot" in line]


class Naming(torch.nn.Module, ClassifierDefaults):
    """A module whose list of surrogates is what it is given."""

    num_classes, input_shape, stochastic = 4, (1, 8, 8), False

    def __init__(self, found):
        super().__init__()
        self.found = found

    def surrogates(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def forward(self, images):
        return images.flatten(1)[:, :4]


@pytest.mark.parametrize(("found", "words"), [(None, "a NoneType"), ([len], "a list"), (ValueError("no"), "no")])
def test_surrogates_that_are_no_names_are_refused(found, words):
    with pytest.raises(IDCError, match=rf"mine.*{words}"):
        Target.of(Naming(found), name="mine")
