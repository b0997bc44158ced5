"""From a user's request to a result: models by name and by factory, radii, refusals."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idc import IDC, data
from idc.commands.evaluate import evaluate
from idc.commands.opening import open_both
from idc.commands.request import Request
from idc.errors import IDCError
from idc.evaluation.summary import read_lines
from idc.evaluation.verdict import wilson
from idc.report.results_page import write_report
from idc.report.statement import doubts
from idc.storage.fields import recorded
from tiny import save_digits_model

FACTORY = """
import torch
from torch import nn

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear({size}, 10))

class Masked(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = plain(), how

    def forward(self, x):
        if self.how in ("no_grad", "inference_mode"):
            with getattr(torch, self.how)():
                return self.net(x)
        return self.net((8 * x).round() / 8) if self.how == "round" else self.net(x) * float("nan")

def no_grad():
    return Masked("no_grad")

def inference():
    return Masked("inference_mode")

def rounded():
    return Masked("round")

class Odd(nn.Module):
    # Answers otherwise after so many images, or in batches.
    def __init__(self, after):
        super().__init__()
        self.net, self.after, self.seen = plain(), after, 0

    def forward(self, x):
        self.seen += len(x)
        return self.net(x.flip(-1) if (self.seen > self.after if self.after else len(x) > 1) else x)

def batched():
    return Odd(0)

def tired():
    return Odd(20)

def not_finite():
    return Masked("nan")

def broken():
    raise ValueError("no weights here")

def number():
    return 3

def swapped():
    # The nearest mean image, with the classes 3 and 7 in each other's place.
    from idc import data
    train = data.load("digits", split="train")
    means = torch.stack([train.images[train.labels == k].float().mean(0).flatten() for k in range(10)]) / 255
    model = plain()
    order = [0, 1, 2, 7, 4, 5, 6, 3, 8, 9]
    model[1].weight.data, model[1].bias.data = means[order], -means[order].square().sum(1) / 2
    return model

def constant():
    model = plain()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return str(save_digits_model(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def factory(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(FACTORY.format(size=32 * 32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    return "mine:plain"


def test_what_hides_a_gradient_is_undone_and_the_result_says_so(factory, tmp_path):
    for name, function in (("no_grad", "nothing detached"), ("rounded", "straight-through")):
        request = Request(model=f"mine:{name}", data="digits", protocol="quick", eps=0.1, limit=24)
        summary = evaluate(request, tmp_path / name, say=lambda text: None)
        assert summary["cost"]["backward"][function] > 0
        finding = next(own for own in summary["sanity"] if own["name"] == "gradients finite and not 0")
        assert finding["passed"]


@pytest.mark.parametrize(("name", "how"), [("inference", {"protocol": "quick"}),
                                           ("no_grad", {"protocol": "pgd", "steps": 2}),
                                           ("rounded", {"attacks": ("plugin_examples:OneStep",)})])  # fmt: skip
def test_every_protocol_says_so_where_there_is_no_gradient(factory, tmp_path, name, how):
    """Such an attack finds nothing: its result must not look like robustness."""
    request = Request(model=f"mine:{name}", data="digits", eps=0.1, limit=4, **how)
    summary = evaluate(request, tmp_path / "r", say=lambda text: None)
    finding = next(own for own in summary["sanity"] if own["name"] == "gradients finite and not 0")
    assert not finding["passed"]
    assert not summary["reliable"]
    honest = evaluate(replace(request, model=factory), tmp_path / "honest", say=lambda text: None)
    assert honest["reliable"]


@pytest.mark.parametrize("protocol", ["quick", "pgd", "clean"])
def test_answers_that_hang_on_more_than_the_image_are_told_by_every_attack(factory, tmp_path, protocol):
    """On the batch, or on what was asked: the copy that is compared with is of before the attack."""
    request = Request(model="mine:batched", data="digits", protocol=protocol, limit=4)
    summary = evaluate(request, tmp_path / "r", say=lambda text: None)
    failed = [own["name"] for own in summary["sanity"] if not own["passed"]]
    # A gradient of a few images is not that of the answer to many, either.
    told = [name for name in failed if name != "a gradient is that of the answer"]
    assert told == ([] if protocol == "clean" else ["the same answer in any batch"])
    tired = evaluate(replace(request, model="mine:tired"), tmp_path / "tired", say=lambda text: None)
    failed = [own["name"] for own in tired["sanity"] if not own["passed"]]
    assert failed == ([] if protocol == "clean" else ["the same answer as before it was asked"])


def test_logits_that_are_not_finite_are_refused(factory, tmp_path):
    with pytest.raises(IDCError, match="finite"):
        evaluate(Request(model="mine:not_finite", data="digits", limit=4), tmp_path / "r", say=lambda text: None)
    assert not (tmp_path / "r").exists()


def test_a_users_module_is_evaluated_by_name(factory, tmp_path):
    summary = evaluate(Request(model=factory, data="digits", protocol="quick", limit=12), tmp_path / "r")
    lines = read_lines(tmp_path / "r")
    test = data.load("digits", split="test", limit=12)
    model, _ = open_both(Request(model=factory, data="digits", limit=12), torch.device("cpu"))
    right = model(test.images.float() / 255).argmax(1) == test.labels
    assert summary["clean"]["mean"]["mean"] == pytest.approx(right.float().mean().item())
    assert [line["clean"][0] for line in lines] == right.int().tolist()
    assert summary["settings"]["protocol"]["threat"]["eps"] == 0.1  # the default for grey images
    assert summary["draws"] == 1
    assert summary["answer"]["flops"] == 2 * 1024 * 10
    assert summary == json.loads((tmp_path / "r" / "summary.json").read_text())
    assert (tmp_path / "r" / "panel.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "word"), [("mine:none", "mine:none"), ("nowhere:f", "nowhere"), ("mine:broken", "no weights here"),
                       ("mine:number", "int")],
)  # fmt: skip
def test_factories_that_fail_are_explained(factory, name, word, tmp_path):
    with pytest.raises(IDCError, match=word):
        evaluate(Request(model=name, data="digits", limit=4), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_models_and_data_that_do_not_fit_are_refused(saved, factory, tmp_path):
    (tmp_path / "mine.py").write_text(FACTORY.format(size=7))
    with pytest.raises(IDCError, match="takes images"):
        evaluate(Request(model=factory, data="digits", limit=4), tmp_path / "r")
    for wrong in ({"split": "final"}, {"norm": "l9"}, {"protocol": "best"}, {"eps": -1.0}, {"visits": (0, 3)}):
        with pytest.raises(IDCError):
            evaluate(Request(model=saved, data="digits", limit=4, **wrong), tmp_path / "r")
    (tmp_path / "mine.py").write_text(FACTORY.format(size=1024))
    with pytest.raises(IDCError, match="an IDC for --one-step"):
        evaluate(Request(model=factory, data="digits", limit=4, one_step=True), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_one_step_is_deterministic_and_cheaper(saved, tmp_path):
    request = Request(model=saved, data="digits", limit=20, draws=3)
    many = evaluate(request, tmp_path / "many")
    one = evaluate(Request(model=saved, data="digits", limit=20, one_step=True), tmp_path / "one")
    assert (many["draws"], one["draws"]) == (3, 1)
    assert many["answer"]["flops"] == pytest.approx(3 * one["answer"]["flops"], rel=0.01)
    assert one["settings"]["visits"] == [3]
    assert one["clean"]["mean"]["mean"] == pytest.approx(many["accuracy"]["one-step"]["mean"])


@pytest.mark.parametrize("one_step", [False, True])
def test_clean_accuracy_is_that_of_what_predict_answers(saved, tmp_path, one_step):
    summary = evaluate(Request(model=saved, data="digits", limit=30, one_step=one_step), tmp_path / "r")
    model, images = IDC.from_pretrained(saved), data.load("digits", split="test", limit=30, image_size=8)
    told = (model.one_step if one_step else model).predict(images.images.float() / 255, ids=images.ids)
    own = summary["own"]
    assert own["answer"] == ("one step" if one_step else "mean distance over 10 draws")
    assert own["accuracy"]["mean"] == pytest.approx((told.classes == images.labels).float().mean().item())
    assert next(iter(summary["accuracy"].values())) == own["accuracy"]
    for k, row in enumerate(own["confusion"]):
        assert row[:10] == told.classes[images.labels == k].bincount(minlength=10).tolist()
    assert len(load_file(tmp_path / "r" / "mistakes.safetensors")["images"]) == len(own["mistakes"])


def test_a_users_module_has_its_own_answer_too(factory, tmp_path):
    own = evaluate(Request(model=factory, data="digits", limit=20), tmp_path / "r")["own"]
    assert (own["answer"], own["calibration"]["calibrated"], sum(map(sum, own["confusion"]))) == (
        "largest logit",
        False,
        20,
    )


def test_a_folder_is_never_continued_for_another_answer(saved, tmp_path):
    evaluate(Request(model=saved, data="digits", limit=4, draws=2), tmp_path / "r")
    with pytest.raises(IDCError, match=r"a result of 4 images \(now 5: --limit or --split\?\)"):
        evaluate(Request(model=saved, data="digits", limit=5, draws=2), tmp_path / "r")
    for other, told in (
        ({"one_step": True}, r"visits \(\[3, 1, 0\] there, \[3\] here\)"),
        ({"eta": 0.5}, r"eta \(1.0 there, 0.5 here\)"),
        ({"visits": (3, 0)}, r"visits \(\[3, 1, 0\] there, \[3, 0\] here\)"),
    ):
        with pytest.raises(IDCError, match=rf"a result of the same .*{told}"):
            evaluate(Request(model=saved, data="digits", limit=4, draws=2, **other), tmp_path / "r")


def test_two_classes_swapped_are_told_and_so_is_chance(factory, tmp_path):
    found = evaluate(Request(model="mine:swapped", data="digits", limit=100), tmp_path / "swapped")
    assert found["clean"]["mean"]["mean"] > 0.6
    assert doubts(found).startswith(" Most images of 3 as 7, 7 as 3 are answered: are the classes in the data's order")
    write_report([tmp_path / "swapped"], tmp_path / "page.html")
    assert "Most images of 3 as 7" in (tmp_path / "page.html").read_text(encoding="utf-8")
    chance = doubts(evaluate(Request(model="mine:constant", data="digits", limit=100), tmp_path / "constant"))
    assert chance.startswith(" Clean accuracy is no better than chance (10.0%)")
    assert "class_names" in chance
    assert "[0, 1]" in chance


@pytest.mark.parametrize(
    ("classes", "mean", "images", "warned"),
    [(10, 0.1, 100, True), (10, 0.0, 20, True), (10, 0.2, 100, False), (10, 0.25, 4, False), (10, 0.99, 100, False),
     (2, 0.02, 50, True), (2, 0.95, 20, False), (1000, 0.08, 1000, False), (1000, 0.001, 1000, True)],
)  # fmt: skip
def test_chance_is_told_from_little_skill(classes, mean, images, warned):
    confusion = {"clean": [[0] * (classes + 1)] * classes}
    assert bool(doubts({"clean": {"mean": recorded(wilson(mean, images))}, "confusion": confusion})) is warned


def test_the_readmes_factory_works(tmp_path, monkeypatch):
    """The README's mine.py as it stands, with a network and weights beside it."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n# mine\.py\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "readme_mine.py").write_text(block)
    lines = ("from torch import nn", "def Network():", "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))")
    (tmp_path / "my_project.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    torch.manual_seed(0)
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10)).state_dict(), "weights.pt")
    request = Request(model="readme_mine:model", data="digits", protocol="pgd", eps=0.1, limit=10)
    found = evaluate(request, tmp_path / "r")
    assert found["robust"]["mean"]["mean"] <= found["clean"]["mean"]["mean"]
