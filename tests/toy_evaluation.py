"""A short evaluation of linear models on images that they know."""

import torch

from idc.attacks.gradient import pgd
from idc.attacks.objective import Margin
from idc.attacks.threat import Threat
from idc.evaluation.block import Block
from idc.evaluation.protocol import Protocol
from idc.evaluation.runner import Problem, Runner
from noise_models import Linear, Noisy, easy_images


def problem(model: Linear, count: int = 24) -> Problem:
    images, classes = easy_images(model, count, spread=0.4)
    return Problem(images, classes, torch.arange(count) * 3 + 1)


def protocol(eps: float = 0.05, **settings) -> Protocol:
    threat = Threat("linf", eps)
    attacks = (("fgsm", pgd(threat, steps=1, random_start=False, objective=Margin())),
               ("pgd", pgd(threat, steps=4, eot=2, objective=Margin())))  # fmt: skip
    return Protocol("toy", threat, attacks, **{"draws": 6} | settings)


def run(out, model=None, which=None, **settings):
    model = model or Noisy()
    own = Runner(model, which or problem(model), settings.pop("protocol", protocol()), out, **{"block": 5} | settings)
    own.prepare()
    own.run()
    return own


def cut_in_attack(monkeypatch, number):
    """Let the ``number``-th attack that is begun be interrupted; returns the names of all that are begun, a list."""
    plain, calls = Block.attack, []

    def attack(self, name, which):
        calls.append(name)
        if len(calls) == number:
            raise KeyboardInterrupt
        plain(self, name, which)

    monkeypatch.setattr(Block, "attack", attack)
    return calls
