"""Plug-ins by name, as a user gives them: found, recorded by their names, one clear line if they are wrong."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import plugin_examples
from idc import IDC, data
from idc.attacks.gradient import pgd
from idc.attacks.threat import Threat
from idc.commands.compare import compare, read_comparison
from idc.commands.evaluate import build, evaluate
from idc.commands.opening import open_model
from idc.commands.plugins import is_plugin, plugin, respelled
from idc.commands.rejudge import rejudge
from idc.commands.request import Request
from idc.errors import IDCError
from idc.evaluation.protocol import build_protocol
from idc.report.results_page import write_report
from idc.storage import records

ROOT = Path(__file__).parents[2]
DIGITS = {"model": "plugin_examples:digits", "data": "digits", "limit": 10}


@pytest.fixture(scope="module")
def images():
    return data.load("digits", split="test", limit=10)


def quiet(text: str) -> None:
    """Says nothing."""


@pytest.mark.parametrize(
    ("text", "named"),
    [("mine:f", True), ("a.b_c:D2", True), ("mine", False), ("zdc:ddpm=x", False), ("a:b:c", False), (":f", False),
     ("./mine:f", False), (3, False), (None, False)],
)  # fmt: skip
def test_what_names_an_object_of_a_module(text, named):
    assert is_plugin(text) is named


@pytest.mark.parametrize(
    ("text", "meant"),
    [("mine", "mine:model"), ("mine.py", "mine:model"), ("mine.py:f", "mine:f"), ("./mine:f", "mine:f"),
     ("./a/b.py:f", "a.b:f"), ("mine:f", None), ("other", None), ("runs/m", None), ("a:b:c", None)],
)  # fmt: skip
def test_what_was_meant_as_an_object_of_a_module(text, meant, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert respelled(text, "model") == meant
    if meant:
        with pytest.raises(IDCError, match=f"write {meant}"):
            open_model(text)
    if meant and ":" in text:
        for asked in ({"protocol": text}, {"attacks": (text,)}):
            with pytest.raises(IDCError, match=f"write {meant}"):
                build(Request(**DIGITS, **asked), data.load("digits", split="test", limit=10))


def test_modules_of_the_working_folder_are_found_and_the_path_is_left_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def five():\n    return 5\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert plugin("only_here:five", int, lambda f: f(), "a function that returns a number") == 5
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "can be imported .*no_such_module.*; correct the name"),
        ("plugin_examples:nothing", "can be imported .*nothing"),
        ("broken_module:f", "a number that works .RuntimeError: not today"),
        ("plugin_examples:model", "a number .this gives Sequential.; name one"),
        ("plugin_examples:stripes", "a number that works .TypeError: .*missing 3"),
    ],
)
def test_one_that_is_wrong_is_one_clear_line(name, message, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('not today\\nnor tomorrow')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IDCError, match=message) as caught:
        plugin(name, int, lambda f: f(), "a number")
    assert len(str(caught.value).splitlines()) == 1


# -- protocols and attacks ---------------------------------------------------------------------------------------------


def test_a_protocol_and_an_attack_from_the_command_line(tmp_path, idc):
    flags = ("--data", "digits", "--limit", 10, "--eps", 0.1, "--keep", "--json", "--out", tmp_path)
    named = ("plugin_examples:digits", "--protocol", "plugin_examples:protocol")
    code, text, said = idc("evaluate", *named, "--attack", "plugin_examples:OneStep", *flags)
    assert code == 0, said
    summary = json.loads(text)
    assert summary["protocol"] == "mine"
    assert list(summary["attacks"]) == ["one step", "margin", "plugin_examples:OneStep"]
    settings = json.loads((tmp_path / "settings.json").read_text())["protocol"]
    threat = {"kind": "Threat", "norm": "linf", "eps": 0.1, "bounds": {"kind": "Bounds", "lower": 0.0, "upper": 1.0}}
    assert settings["attacks"]["plugin_examples:OneStep"] == {"kind": "OneStep", "threat": threat}
    assert rejudge(tmp_path, model=named[0])["robust"]["mean"] == summary["robust"]["mean"]
    code, _, said = idc("evaluate", *named, *flags)  # without the attack it is another evaluation
    assert (code, "plugin_examples:OneStep" in said) == (2, True), said


def test_a_protocol_from_python_is_the_one_by_its_name(tmp_path):
    request, threat = Request(**DIGITS), Threat("linf", 0.1)
    given = evaluate(request, tmp_path, protocol=plugin_examples.protocol(threat), say=quiet)
    assert json.loads((tmp_path / "request.json").read_text())["protocol"] == "mine"
    seen: list[str] = []
    named = replace(request, protocol="plugin_examples:protocol", eps=0.1)
    assert evaluate(named, tmp_path, say=seen.append) == given
    assert "10 of 10 images are already done" in seen
    with pytest.raises(IDCError, match=r"a result of the same protocol \(mine there, pgd here\)"):
        evaluate(request, tmp_path, protocol=build_protocol("pgd", threat, steps=3), say=quiet)


def test_clean_with_an_attack_is_that_attack_alone(images):
    found = build(Request(**DIGITS, eps=0.2, attacks=("idc.attacks.gradient:pgd",), steps=2), images)
    assert (found.name, found.threat) == ("own attacks", Threat("linf", 0.2))
    assert found.attacks == (("idc.attacks.gradient:pgd-2", pgd(Threat("linf", 0.2), steps=2)),)
    assert build(Request(**DIGITS, eps=0.2), images).threat.eps == 0


def test_a_protocol_that_is_an_object_has_a_threat_of_its_own(images):
    request = Request(**DIGITS, protocol="plugin_examples:FIXED")
    assert build(request, images) == plugin_examples.FIXED
    more = replace(request, attacks=("plugin_examples:OneStep",), draws=7)
    assert build(more, images).attacks[1][1].threat == Threat("l2", 0.5)
    assert build(more, images).draws == 7
    assert build(replace(request, norm="l2", eps=0.5), images) == plugin_examples.FIXED
    with pytest.raises(IDCError, match=r"linf 0\.5: expected l2 0\.5 of protocol fixed; leave --eps out"):
        build(replace(request, eps=0.5), images)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"protocol": "plugin_examples:digits"}, "a Protocol, or a function from a Threat to one that works"),
        ({"protocol": "plugin_examples:no_attack"}, "a function from a Threat to one .this gives function"),
        ({"protocol": "plugin_examples:adaptive"}, "named 'adaptive': expected a protocol with a name of its own"),
        ({"protocol": "adaptiv"}, "or package.module:object"),
        ({"attacks": ("plugin_examples:no_attack",)}, "callable, whose .threat is that of the protocol"),
        ({"attacks": ("plugin_examples:wide",)}, "callable, whose .threat is that of the protocol"),
        ({"attacks": ("plugin_examples:stripes",)}, "when called with threat= that works"),
        ({"attacks": ("pgd",)}, "package.module:object"),
        ({"attacks": ("plugin_examples:OneStep",), "protocol": "paper"}, "the paper's own settings"),
    ],
)
def test_what_is_no_protocol_or_attack_is_refused(asked, message, images):
    with pytest.raises(IDCError, match=message):
        build(Request(**DIGITS, eps=0.05, **asked), images)


def test_an_attack_that_leaves_its_ball_is_told_so(tmp_path):
    request = Request(**DIGITS, eps=0.05, attacks=("plugin_examples:Leaves",))
    with pytest.raises(IDCError, match=r"attack plugin_examples:Leaves: expected points in \[0, 1\]"):
        evaluate(request, tmp_path, say=quiet)


def test_an_attack_whose_points_are_not_finite_makes_the_result_unreliable(tmp_path, idc):
    flags = ("plugin_examples:digits", "--data", "digits", "--limit", 4, "--out", tmp_path)
    code, text, said = idc("evaluate", *flags, "--attack", "plugin_examples:Gaps")
    assert (code, "UNRELIABLE: adversarial examples finite" in text) == (3, True), said
    told = "attack plugin_examples:Gaps returned NaN or infinity for 1 of 4 images"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["reliable"], [f["figure"] for f in summary["sanity"] if not f["passed"]]) == (False, [told])
    write_report([tmp_path], tmp_path / "report.html")
    assert told in (tmp_path / "report.html").read_text()


def test_an_attack_that_raises_is_one_line_and_its_traceback_on_request(tmp_path, idc, monkeypatch):
    flags = ("plugin_examples:digits", "--data", "digits", "--limit", 4, "--out", tmp_path)
    code, _, said = idc("evaluate", *flags, "--attack", "plugin_examples:Raises")
    lines = [line for line in said.strip().splitlines()[1:] if not line.startswith("note: ")]
    assert (code, len(lines)) == (2, 1), said
    assert "attack plugin_examples:Raises: expected an attack that works (ZeroDivisionError" in said
    monkeypatch.setenv("IDC_TRACEBACK", "1")
    code, _, said = idc("evaluate", *flags, "--attack", "plugin_examples:Raises")
    assert (code, "Traceback" in said, "return images / (1 // 0)" in said) == (2, True, True), said


def test_a_comparison_takes_both(tmp_path):
    file = tmp_path / "c.yaml"
    values = {"data": "digits", "limit": 10, "eps": 0.1, "protocols": ["plugin_examples:protocol"],
              "attacks": ["plugin_examples:OneStep"], "models": {"m": "plugin_examples:digits"}}  # fmt: skip
    file.write_text(yaml.safe_dump(values))
    (row,) = compare(read_comparison(file), tmp_path / "out", say=quiet)
    (own,) = row["protocols"].values()
    assert list(own["attacks"]) == ["one step", "margin", "plugin_examples:OneStep"]
    assert own["folder"] == "m/plugin_examples-protocol-0.1"
    file.write_text(yaml.safe_dump(values | {"attacks": "plugin_examples:OneStep"}))
    with pytest.raises(IDCError, match="attacks"):
        read_comparison(file)


# -- labels and objectives ---------------------------------------------------------------------------------------------

RECIPE = ("--limit", 64, "--epochs", 1, "--batch-size", 16, "--validation-limit", 20, "--precision", "fp32")


@pytest.fixture
def train(tmp_path, idc):
    network = tmp_path / "small.yaml"
    network.write_text("base_channels: 8\nmultipliers: [1, 2]\ngroups: 4\nhead_channels: 8\npatch: 4\n")

    def run(*flags):
        return idc("train", "--data", "digits", "--preset", network, *RECIPE, *flags)

    return run


def test_a_run_with_labels_and_an_objective_of_ones_own(tmp_path, train, idc, monkeypatch):
    run, own = tmp_path / "run", ("--labels", "plugin_examples:stripes", "--objective", "plugin_examples:IntraOnly")
    code, _, said = train(*own, "--out", run)
    assert code == 0, said
    model = IDC.from_pretrained(run)
    assert torch.equal(model.labels, plugin_examples.stripes(10, (1, 32, 32), 0))
    recorded = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (recorded["labels"], recorded["objective"]) == (own[1], own[3])
    losses = [line for line in records.read(run / "metrics.jsonl") if "loss/total" in line]
    assert losses
    assert all(line["loss/total"] == line["loss/intra"] and line["loss/inter"] > 0 for line in losses)
    # Its recipe goes on with it, if the user says which code may run and the code gives the labels that it gave then.
    again = ("train", "--recipe", run / "recipe.yaml", "--limit", 64, "--out", run, "--resume")
    for flags, words in (((), "add --labels plugin_examples:stripes"), (own[:2], "add --objective plugin_examples:I")):
        code, _, said = idc(*again, *flags)
        assert (code, words in said) == (2, True), said
    assert idc(*again, *own)[0] == 0
    stripes = plugin_examples.stripes
    monkeypatch.setattr(plugin_examples, "stripes", lambda *given: 1 - stripes(*given))
    code, _, said = idc(*again, *own)
    assert (code, "as the run that it holds" in said) == (2, True), said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--labels", "plugin_examples:grey"), "two are the same"),
        (("--labels", "plugin_examples:no_attack"), "(num_classes, shape, seed) -> labels that works"),
        (("--labels", "no_such_module:f"), "can be imported"),
        (("--objective", "plugin_examples:OneStep"), "(model, recipe) that gives what"),
        (("--objective", "bridging"), "package.module:object"),
    ],
)
def test_labels_and_objectives_that_are_none_leave_no_folder(flags, words, tmp_path, train):
    code, _, said = train(*flags, "--out", tmp_path / "run")
    assert (code, words in said, len(said.splitlines())) == (2, True, 1), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("NoTotal", "gave ['inner'] as a dict's keys"), ("NoGradient", "gave 'total' without a gradient"),
     ("NoMean", "gave 'total' of shape (2,)"), ("NoTensor", "gave 'total' as float"), ("NoDict", "gave Tensor")],
)  # fmt: skip
def test_a_loss_that_cannot_be_minimised_is_one_line(name, words, tmp_path, train):
    code, _, said = train("--objective", f"plugin_examples:{name}", "--out", tmp_path / "run")
    assert (code, words in said, "Traceback" in said) == (2, True, False), said
    assert 'a dict of tensors with "total"' in said


def test_an_objective_that_raises_is_one_line(tmp_path, train):
    code, _, said = train("--objective", "plugin_examples:NoLoss", "--out", tmp_path / "run")
    assert (code, "plugin_examples:NoLoss: expected a loss that works (KeyError: 'inner')" in said) == (2, True), said
    assert "Traceback" not in said
