"""What attacks return, and what they and models raise, on a block's way through a protocol."""

import re

import pytest
import torch

from idc.attacks.gradient import pgd
from idc.attacks.minimum_norm import FMN
from idc.attacks.objective import Margin
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.evaluation.protocol import Protocol
from idc.evaluation.sanity.recorded import points_check
from idc.evaluation.summary import read_lines
from noise_models import Linear, Noisy
from toy_evaluation import cut_in_attack, run


def test_an_attack_that_cheats_is_found_out(tmp_path):
    class Cheat:
        threat = Threat("linf", 0.05)

        def __call__(self, target, images, classes, streams):
            return images + 0.06

    with pytest.raises(IDCError, match="not further than"):
        run(tmp_path, protocol=Protocol("cheat", Threat("linf", 0.05), (("cheat", Cheat()),)))


class Returns:
    """An attack that returns what a function makes of the images."""

    threat = Threat("linf", 0.05)

    def __init__(self, make):
        self.make = make

    def __call__(self, target, images, classes, streams):
        return self.make(images)


def returning(make) -> Protocol:
    pgd_too = ("pgd", pgd(Returns.threat, steps=2, objective=Margin()))
    return Protocol("own", Returns.threat, (("own", Returns(make)), pgd_too), draws=2)


def test_an_image_as_it_is_never_takes_the_place_of_an_adversarial_example(tmp_path):
    """Of a noisy model, whose fresh draws may be fewer right by luck."""
    pgd_first = ("pgd", pgd(Returns.threat, steps=2, objective=Margin()))
    both = Protocol(
        "own", Returns.threat, (pgd_first, *((f"none-{i}", Returns(lambda x: x)) for i in range(8))), draws=3
    )
    run(tmp_path, protocol=both)
    assert {line["worst"] for line in read_lines(tmp_path)} <= {"pgd", ""}


def test_distances_are_of_all_images_also_behind_a_gate(tmp_path):
    threat = Threat("linf", 0.05)
    attacks = (("pgd", pgd(threat, steps=3)), ("fmn", FMN(threat=threat, steps=20)))
    gated = Protocol("own", threat, attacks, gate=True)
    assert not gated.nests
    run(tmp_path, Linear(), protocol=gated)
    lines = read_lines(tmp_path)
    assert any(line["attacks"]["pgd"][0] == 0 for line in lines)
    assert all(line["distances"]["fmn"] is not None for line in lines)


def test_points_that_are_not_finite_are_counted_also_by_a_run_that_was_cut(tmp_path, monkeypatch):
    """The second image of each of five blocks gets no point; cut in the second attack of the third block."""
    gaps = returning(lambda x: x.index_fill(0, torch.tensor(1), float("inf")))
    calls = cut_in_attack(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, protocol=gaps)
    run(tmp_path, protocol=gaps)
    assert calls.count("own") == 5
    (finding,) = points_check(read_lines(tmp_path))
    assert finding.figure == "attack own returned NaN or infinity for 5 of 24 images"
    assert not finding.passed
    run(tmp_path / "fine", protocol=returning(lambda x: x.double()))
    assert not list(points_check(read_lines(tmp_path / "fine")))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda x: x[:1], "shape (5, 1, 4, 4) (it returned torch.float32 of shape (1, 1, 4, 4))"),
        (lambda x: x.round().long(), "(it returned torch.int64 of shape"),
        (lambda x: None, "(it returned a NoneType); return one adversarial image for each"),
        (lambda x: x.add_(0.2), "not further than 0.05"),  # also in place
        (lambda x: {}["boom"], "attack own: expected an attack that works (KeyError: 'boom')"),
    ],
)
def test_what_an_attack_may_not_return_is_told_in_one_line(tmp_path, make, told):
    with pytest.raises(IDCError, match=re.escape(told)):
        run(tmp_path, protocol=returning(make))
    assert not list(tmp_path.glob("images-*"))


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_a_model_that_raises_in_the_middle_is_named(tmp_path, way):
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise ValueError("no way back")

    class Breaks(Noisy):
        def forward(self, images):
            if way == "forward" and images.requires_grad:
                raise ValueError("no way on")
            return super().forward(Fails.apply(images))

    with pytest.raises(IDCError, match=r"mine:model: expected a model .*ValueError: no way") as caught:
        run(tmp_path, Breaks(), name="mine:model")
    assert isinstance(caught.value.__cause__, ValueError)
