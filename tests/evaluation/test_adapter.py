"""What a user's own module says of itself is read whole, and what it does to its input harms no image."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.cost import answer_cost, gradient_flops
from idc.errors import IDCError
from idc.evaluation.adapter import Wrapped, as_classifier, declared_shape
from idc.evaluation.sanity.bench import Bench
from idc.evaluation.sanity.checks import noise_as_declared
from idc.noise import Streams

SHAPE = (1, 4, 4)
IMAGES = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
CLASSES, STREAMS = torch.arange(6) % 4, Streams(torch.arange(6), 0)


class Plain(nn.Module):
    """Says nothing of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.randn(16, 4, generator=torch.Generator().manual_seed(1)))

    def forward(self, images):
        return (2 * (images - 0.5)).flatten(1) @ self.weights


class InPlace(Plain):
    def forward(self, images):
        return images.sub_(0.5).mul_(2).flatten(1) @ self.weights


class Told(InPlace):
    """Says all that a classifier has to, so that nothing is wrapped around it."""

    num_classes, input_shape, stochastic = 4, SHAPE, False

    def surrogates(self):
        return {"same": self.forward}


@pytest.mark.parametrize("kind", [InPlace, Told])
def test_a_module_that_normalises_in_place_is_the_one_that_does_not(kind):
    """Same logits and gradients, twice in a row, no noise, and the images stay what they were."""
    model, twin = (as_classifier(m, input_shape=SHAPE) for m in (kind(), Plain()))
    images = IMAGES.clone()
    assert not model.stochastic
    for name in (ANSWER, *model.surrogates()):
        for _ in range(2):
            found = Target.of(model).gradient(name, images, CLASSES, STREAMS, objective=Margin())
            expected = Target.of(twin).gradient(ANSWER, images, CLASSES, STREAMS, objective=Margin())
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other)
            torch.testing.assert_close(Target.of(model).logits(ANSWER, images, STREAMS)[0], Plain()(images))
    assert noise_as_declared(Bench(model, images, CLASSES, STREAMS, Threat("linf", 0.1))).passed
    assert answer_cost(model, torch.device("cpu"))["flops"] == answer_cost(twin, torch.device("cpu"))["flops"]
    assert gradient_flops(model, images[:1]) == gradient_flops(twin, images[:1])
    assert torch.equal(images, IMAGES)


@pytest.mark.parametrize("shape", [(3, 8), 8, (1, 8, 9), (1, 0, 0), (1, 8.5, 8.5), "1x8", (8, 8, 1), {"C": 1}])
def test_a_declared_shape_is_read_whole(shape):
    module = Plain()
    module.input_shape = shape
    with pytest.raises(IDCError, match=r"input_shape = .* of mine: expected three whole numbers \(C, H, W\), H = W"):
        Wrapped(module, input_shape=SHAPE, name="mine")


def test_a_shape_may_be_a_list_and_need_not_be_said():
    module = Plain()
    assert declared_shape(module, "mine") is None
    assert Wrapped(module, input_shape=SHAPE).input_shape == SHAPE
    module.input_shape = list(SHAPE)
    assert Wrapped(module, input_shape=(3, 8, 8)).input_shape == SHAPE


def test_class_names_of_a_module_that_says_nothing_else():
    module = Plain()
    assert Wrapped(module, input_shape=SHAPE).class_names == ()
    module.class_names = [3, 2, 1, 0]
    assert Wrapped(module, input_shape=SHAPE).class_names == ("3", "2", "1", "0")


@pytest.mark.parametrize("names", [["a", "b"], "abcd", {0: "a"}, lambda: ["a"]])
def test_class_names_that_are_none_of_the_classes_are_refused(names):
    module = Plain()
    module.class_names = names
    with pytest.raises(IDCError, match="of mine: expected a list of its 4 classes"):
        Wrapped(module, input_shape=SHAPE, name="mine")


def test_what_is_wrapped_can_be_copied():
    """The sanity checks compare it with a copy that was asked nothing."""
    model = as_classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), input_shape=SHAPE)
    torch.testing.assert_close(deepcopy(model)(IMAGES), model(IMAGES))
