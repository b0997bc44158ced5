"""Square: squares of the right size anywhere in the image, answers alone, and images that leave."""

import pytest
import torch

from idc.attacks.square import Square, _side, _squares
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.noise import Streams
from noise_models import Linear, Noisy, easy_images


def streams(count: int) -> Streams:
    return Streams(torch.arange(count), 0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_lowers_accuracy_from_answers_alone(norm):
    model = Linear(num_classes=2, shape=(1, 6, 6))
    images, classes = easy_images(model, 32)

    def no_gradient(x):
        assert not x.requires_grad
        return model(x)

    eps = {"linf": 0.1, "l2": 0.5}[norm]
    found = Square(threat=Threat(norm, eps), queries=150)(Target(no_gradient), images, classes, streams(32))
    assert (model(found).argmax(1) == classes).float().mean() < 0.5
    assert Threat(norm, eps).size(found, images).max() <= eps * (1 + 1e-5)


def test_comes_close_to_the_closed_form_of_a_linear_classifier():
    """Each pixel in the end at the side of its weight: what an image loses at most is eps times the weights' sum."""
    model = Linear(num_classes=2, shape=(1, 6, 6))
    images, classes = easy_images(model, 64)
    eps = 0.02
    images = images.clamp(eps, 1 - eps)
    logits = model(images)
    own = logits.gather(1, classes[:, None])[:, 0]
    margin = own - logits.gather(1, 1 - classes[:, None])[:, 0]
    gain = eps * (model.weights[0] - model.weights[1]).abs().sum()
    found = Square(threat=Threat("linf", eps), queries=1500)(Target.of(model), images, classes, streams(64))
    fell = model(found).argmax(1) != classes
    assert 0.1 < (margin < gain).float().mean() < 0.9
    assert (fell != (margin < gain)).sum() <= 2


def test_sides_follow_the_published_schedule():
    """p = 0.8, halved after 10, 50, 200, 500, 1000, 2000 and 4000 of 10,000 queries (table 2 of the paper)."""
    shares = [0.8, 0.4, 0.2, 0.1, 0.05, 0.025, 0.0125]
    at = [0, 11, 51, 201, 501, 1001, 2001]
    assert [_side(i, 32, 32) for i in at] == [round((share * 32 * 32) ** 0.5) for share in shares]
    assert _side(9_999, 4, 4) == 1


def test_squares_lie_inside_and_everywhere():
    numbers = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    found = _squares(numbers, 3, 5, 6)
    assert found.shape == (400, 1, 5, 6)
    assert found.flatten(1).sum(1).eq(9).all()
    assert found.any(0).all()
    extremes = _squares(torch.tensor([[1e-8, 1e-8], [1 - 1e-7, 1 - 1e-7]]), 2, 4, 4)
    assert extremes[0, 0, :2, :2].all()
    assert extremes[1, 0, 2:, 2:].all()


def test_averages_the_draws_of_a_stochastic_model():
    model = Noisy(sigma=1e-6, shape=(1, 6, 6))
    images, classes = easy_images(model, 4)
    target = Target.of(model)
    Square(threat=Threat("linf", 1e-4), queries=15, draws=5)(target, images, classes, streams(4))
    assert target.tally.forward["answer"] == 4 * 5 * (2 + 3)  # clean, stripes, and three queries of five draws
    assert not target.tally.backward


def test_images_far_from_the_boundary_leave_after_a_tenth_of_the_queries():
    """Two classes whose margin is 1000 times the largest pixel's share: nothing can come closer by half."""
    asked = []

    def far(x):
        asked.append(len(x))
        value = x[:, 0, 0, 0]
        return torch.stack([1000 + value, value], dim=1)

    images, classes = torch.full((4, 1, 6, 6), 0.5), torch.zeros(4, dtype=torch.int64)
    Square(threat=Threat("linf", 0.1), queries=100, progress=0.5)(Target(far), images, classes, streams(4))
    assert len(asked) == 2 + 10  # clean, stripes, and a tenth
    asked.clear()
    Square(threat=Threat("linf", 0.1), queries=100)(Target(far), images, classes, streams(4))
    assert len(asked) == 2 + 100


def test_an_image_is_attacked_alike_in_every_batch():
    model = Linear(shape=(1, 6, 6))
    images, classes = easy_images(model, 12)
    attack = Square(threat=Threat("linf", 0.05), queries=60, progress=0.5)
    whole = attack(Target.of(model), images, classes, streams(12))
    rows = torch.tensor([7, 2])
    part = attack(Target.of(model), images[rows], classes[rows], streams(12).take(rows))
    torch.testing.assert_close(part, whole[rows])


def test_l2_refuses_images_that_it_cannot_handle():
    model = Linear(shape=(1, 4, 4))
    images, classes = easy_images(model, 2)
    with pytest.raises(IDCError, match="5 pixels"):
        Square(threat=Threat("l2", 0.1))(Target.of(model), images, classes, streams(2))
