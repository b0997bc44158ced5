"""An answer belongs to the image alone: models whose answer hangs on anything else are caught, honest ones are not."""

import pytest
import torch

from idc.attacks.threat import Threat
from idc.evaluation.sanity import behaviour
from idc.evaluation.sanity.bench import Bench, copied
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images
from tiny import tiny_model

COUNT, EPS = 12, 0.1
IMAGES, CLASSES = easy_images(Linear(), COUNT)


class Other(Linear):
    """Answers as another network does where ``otherwise`` says so."""

    def forward(self, images):
        return super().forward(images.flip(-1) if self.otherwise(images) else images)


class Batched(Other):
    def otherwise(self, images):
        return len(images) > 1


class Crowded(Other):
    def otherwise(self, images):
        return len(images) > 20


class Centred(Linear):
    """Uses the mean of its batch."""

    def forward(self, images):
        return super().forward(images - 0.1 * images.mean(0))


class Asked(Other):
    def otherwise(self, images):
        return images.requires_grad


class Moded(Other):
    def otherwise(self, images):
        return torch.is_grad_enabled()


class Tired(Other):
    """Answers otherwise from the hundredth image on."""

    seen = 0

    def otherwise(self, images):
        self.seen += len(images)
        return self.seen >= 100


class Repeating(Linear):
    """Repeats its first answer for anything near what it was asked before."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[torch.Tensor] = []

    def forward(self, images):
        held = []
        for image in images.detach():
            near = [known for known in self.asked if (known - image).abs().max() <= 2 * EPS]
            self.asked += [] if near else [image]
            held.append(near[0] if near else image)
        return super().forward(torch.stack(held)) + 0 * images.sum()


class OwnGenerator(Noisy):
    """Honest noise that no stream repeats."""

    def __init__(self) -> None:
        super().__init__(sigma=0.02)
        self.random = torch.Generator().manual_seed(0)

    def __deepcopy__(self, memo):
        return OwnGenerator()

    def forward(self, images):
        return Linear.forward(self, images + self.sigma * torch.randn(images.shape, generator=self.random))


class Stuck(Linear):
    """Cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("it holds a handle")


def found(model, check, **settings):
    bench = Bench(model, IMAGES, CLASSES, Streams(torch.arange(COUNT), 0), Threat("linf", EPS), **settings)
    for _ in range(10):  # an evaluation asks a lot
        bench.accuracy(IMAGES)
    return check(bench)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Batched, behaviour.same_in_any_batch),
        (Crowded, behaviour.same_in_any_batch),
        (Centred, behaviour.same_in_any_batch),
        (Asked, behaviour.same_with_gradients),
        (Moded, behaviour.same_with_gradients),
        (Tired, behaviour.same_as_before),
        (Repeating, behaviour.same_as_before),
    ],
    ids=lambda v: v.__name__,
)
def test_what_hangs_on_more_than_the_image_is_caught(kind, check):
    finding = found(kind(), check)
    assert not finding.passed, finding


@pytest.mark.parametrize("kind", [Linear, Noisy, OwnGenerator, tiny_model], ids=lambda v: v.__name__)
def test_honest_models_pass(kind):
    model = kind() if kind is not tiny_model else tiny_model(shape=(1, 8, 8))
    images = IMAGES if kind is not tiny_model else torch.rand(COUNT, 1, 8, 8)
    bench = Bench(model, images, CLASSES, Streams(torch.arange(COUNT), 0), Threat("linf", EPS))
    assert bench.repeats is (kind is not OwnGenerator)
    for check in behaviour.CHECKS:
        assert check(bench).passed, check(bench)


def test_rounding_at_an_edge_is_let_pass():
    """A step that the last digit decides may fall either way for an image or two."""

    class Edge(Linear):
        def forward(self, images):
            logits = super().forward(images)
            logits[0] += 0.1 * (len(images) > 1)
            return logits

    assert found(Edge(), behaviour.same_with_gradients).passed
    one, other = torch.randn(1, 16, 4), torch.randn(1, 16, 4)
    assert behaviour._apart(one, other, bf16=False).all()
    assert not behaviour._apart(one, one * (1 + 1e-6), bf16=False).any()
    assert behaviour._apart(one, one * 1.02, bf16=False).any()
    assert not behaviour._apart(one, one * 1.01, bf16=True).any()


def test_the_copy_is_of_before_and_worst_images_are_asked_too():
    model = Tired()
    before = copied(model)
    model.seen = 1000
    finding = found(model, behaviour.same_as_before, untouched=before, worst=IMAGES[:3])
    assert "adversarial, clean, noisy images" in finding.figure
    assert not finding.passed
    assert found(model, behaviour.same_as_before).passed  # the copy is of now: as tired
    assert before.seen == 0  # each question is asked of a new copy


def test_a_model_that_cannot_be_copied_is_said_so():
    finding = found(Stuck(), behaviour.same_as_before)
    assert finding.passed
    assert "no copy could be made (TypeError)" in finding.figure
    assert isinstance(copied(Stuck()), TypeError)


def test_a_compiled_network_is_not_asked_through_its_copy():
    class Held(Linear):
        compiled = True

    model = Held()
    original = model.forward
    model.forward = lambda images: original(images)  # as compiling replaces it: bound to the original
    copy = copied(model)
    copy.weights.zero_()
    assert not copy(IMAGES).any()
    assert model(IMAGES).any()
