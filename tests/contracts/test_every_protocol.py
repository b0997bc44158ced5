"""What an evaluation relies on in every protocol: the house's own, and a user's by its name."""

import json

import pytest
import torch

from idc.attacks.threat import Threat
from idc.commands.plugins import plugin
from idc.evaluation.protocol import PROTOCOLS, Protocol, build_protocol
from idc.evaluation.runner import Problem, Runner
from idc.evaluation.summary import read_lines, summarise_lines
from noise_models import Linear, easy_images

THREAT = Threat("linf", 0.05)
OWN = {
    "a function": plugin("plugin_examples:protocol", Protocol, lambda own: own(THREAT), ""),
    "an object": plugin("plugin_examples:FIXED", Protocol, lambda own: own, ""),
    "with an attack more": build_protocol("pgd", THREAT, attacks={"mine": lambda t: plugin(
        "plugin_examples:OneStep", object, lambda own: own(threat=t), "")}, steps=2),
    "of an attack alone": build_protocol("clean", THREAT, attacks={"mine": lambda t: plugin(
        "plugin_examples:OneStep", object, lambda own: own(threat=t), "")}),
}  # fmt: skip
ALL = {name: make(THREAT) for name, make in PROTOCOLS.items()} | OWN
QUICK = [name for name in ALL if name not in ("paper", "adaptive", "apgd")]  # the others: tests/evaluation


@pytest.mark.parametrize("name", ALL)
def test_its_record_is_json_and_tells_its_attacks(name):
    protocol = ALL[name]
    held = protocol.to_dict()
    assert json.loads(json.dumps(held)) == held
    assert list(held["attacks"]) == [attack for attack, _ in protocol.attacks]
    assert len(held["attacks"]) == len(protocol.attacks)  # no two of one name
    assert all(attack["kind"] for attack in held["attacks"].values())


@pytest.mark.parametrize("name", ALL)
def test_its_attacks_keep_to_its_ball_or_to_none(name):
    protocol = ALL[name]
    assert all(attack.threat in (None, protocol.threat) for _, attack in protocol.attacks)
    assert protocol.name == name or name in OWN


@pytest.mark.parametrize("name", QUICK)
def test_an_evaluation_by_it_judges_every_image(name, tmp_path):
    model = Linear(shape=(1, 6, 6))
    images, classes = easy_images(model, 12)
    runner = Runner(model, Problem(images, classes, torch.arange(12)), ALL[name], tmp_path)
    runner.prepare()
    runner.run()
    lines = read_lines(tmp_path)
    summary = summarise_lines(lines, tuple("abcd"))
    assert sorted(line["id"] for line in lines) == list(range(12))
    assert list(summary["attacks"]) == [attack for attack, _ in ALL[name].attacks]
    assert summary["clean"]["mean"]["mean"] == 1  # the classes are the model's answers
    alone = [verdict["mean"]["mean"] for verdict in summary["attacks"].values()]
    assert summary["robust"]["mean"]["mean"] <= min(alone, default=1)  # the worst over all of them
    assert (min(alone, default=1) < 1) is bool(alone)  # 0.05 changes the answer of some
