"""``idc.evaluate``: tensors in, an outcome out that says what the command line would."""

import json

import numpy as np
import pytest
import torch

import idc
from idc import data
from idc.report.results_page import write_report
from noise_models import Linear, Noisy, easy_images

COUNT, EPS = 24, 0.02


def problem() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    model = Linear(num_classes=2, shape=(1, 6, 6))
    images, _ = easy_images(model, COUNT)
    images = images.clamp(EPS, 1 - EPS)
    return model, images, model(images).argmax(1)


def test_says_what_the_closed_form_says(tmp_path):
    model, images, labels = problem()
    logits = model(images)
    margin = (logits[:, 0] - logits[:, 1]).abs()
    expected = (margin > EPS * (model.weights[0] - model.weights[1]).abs().sum()).float().mean().item()
    found = idc.evaluate(model, images, labels, protocol="quick", eps=EPS, out=tmp_path / "kept")
    assert found.clean == 1
    assert 0.1 < found.robust == pytest.approx(expected, abs=1e-6)
    assert (tmp_path / "kept" / "summary.json").exists()
    assert f"of {COUNT} images keep their class within L-inf 0.02" in str(found)
    assert "<table>" in found._repr_html_()
    again = idc.evaluate(model, images, labels, protocol="quick", eps=EPS, out=tmp_path / "kept")
    assert again.summary == found.summary


def test_a_module_keeps_its_mode_and_what_failed_is_said_with_its_remedy():
    model, images, labels = problem()
    soft, said = torch.nn.Sequential(model, torch.nn.Softmax(dim=1)).train(), []
    found = idc.evaluate(soft, images, labels, protocol="quick", eps=EPS, say=said.append)
    assert said[0] == "note: Sequential came in training mode and is judged in evaluation mode"
    assert soft.training
    assert soft[1].training
    [text] = [line for line in str(found).splitlines() if line.startswith("logits, not probabilities: ")]
    assert "softmax" in text


@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")
def test_a_frozen_script_module_is_judged():
    """It has no attribute that says in which mode it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2)).eval()
    frozen = torch.jit.freeze(torch.jit.script(plain))
    _, images, _ = problem()
    assert idc.evaluate(frozen, images, plain(images).argmax(1), protocol="clean").clean == 1


def test_uint8_images_are_those_on_0_to_1(tmp_path):
    model, images, _ = problem()
    pixels = (images * 255).round().to(torch.uint8)
    labels = model(pixels.float() / 255).argmax(1)
    assert idc.evaluate(model, pixels, labels, protocol="clean").clean == 1
    assert "No attack was made" in str(idc.evaluate(model, pixels, labels, protocol="clean"))
    with pytest.raises(idc.IDCError, match="protocol clean, which attacks nothing"):
        _ = idc.evaluate(model, pixels, labels, protocol="clean").robust
    assert not hasattr(idc.evaluate(model, pixels, labels, protocol="clean"), "robust")
    assert idc.evaluate(model, pixels.numpy(), labels.tolist(), protocol="clean").clean == 1
    assert idc.evaluate(model, pixels.numpy(), np.asarray(labels), protocol="clean").clean == 1


def test_a_limit_is_balanced_and_classes_have_names():
    model, images, labels = problem()
    found = idc.evaluate(model, images, labels, protocol="clean", limit=6, class_names=("no", "yes"))
    assert found.summary["images"] == 6
    assert found.summary["class_names"] == ["no", "yes"]


def test_a_noisy_model_is_judged_by_several_draws():
    model = Noisy(shape=(1, 6, 6))
    images, labels = easy_images(model, 8)
    found = idc.evaluate(model, images, labels, protocol="pgd", eps=0.01, steps=2, draws=3)
    assert found.summary["draws"] == 3
    assert "who may ask 3 times" in str(found)
    assert [row[0] for row in found.rows()] == [
        "clean",
        "random noise",
        "pgd-2 (margin)",
        "pgd-2 (cross-entropy)",
        "the worst of each",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.rand(4, 6, 6)}, "\\(N, C, H, W\\)"),
        ({"images": [[0.5]]}, "\\(N, C, H, W\\)"),
        ({"images": 255 * torch.ones(COUNT, 1, 6, 6)}, "in \\[0, 1\\]"),
        ({"labels": torch.zeros(COUNT)}, "torch.float32 .24,.: expected 24 integers"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "torch.int64 .3,.: expected 24 integers"),
        ({"labels": -torch.ones(COUNT, dtype=torch.int64)}, "from -1: expected 24 integers"),
        ({"labels": None}, "labels NoneType: expected 24 integers"),
        ({"labels": torch.full((COUNT,), 5)}, "below the model's 2"),
        ({"class_names": ("one",)}, "one a class"),
        ({"epsilon": 0.1}, "one of attacks"),
        ({"precision": "bf16"}, "use idc evaluate"),
    ],
)
def test_what_does_not_fit_is_told(change, words):
    model, images, labels = problem()
    given = {"images": images, "labels": labels} | change
    with pytest.raises(idc.IDCError, match=words):
        idc.evaluate(model, given.pop("images"), given.pop("labels"), protocol="clean", **given)


def test_corruptions_are_averaged_and_their_worst_is_told(tmp_path):
    model = Linear(shape=(1, 8, 8))
    images, labels = easy_images(model, 8, spread=0.5)
    found = idc.evaluate(model, images, labels, protocol="corruptions", out=tmp_path / "c")
    own, summary = found.summary["averages"], found.summary
    alone = {name: verdict["mean"]["mean"] for name, verdict in summary["attacks"].items()}
    assert len(alone) == 75
    assert own["all"]["mean"] == pytest.approx(sum(alone.values()) / 75)
    fog = [value for name, value in alone.items() if name.startswith("fog-")]
    assert own["kind"]["fog"]["mean"] == pytest.approx(sum(fog) / 5)
    lines = [json.loads(line) for line in (tmp_path / "c" / "images-0.jsonl").read_text().splitlines()]
    survive = [all(pair[0] == 1 for pair in line["attacks"].values()) for line in lines]
    assert found.robust == sum(survive) / 8
    assert "mean accuracy under 75 corruptions" in str(found)
    assert "random noise" not in {row[0] for row in found.rows()}
    write_report([tmp_path / "c"], tmp_path / "r.html")
    assert "mean over severities" in (tmp_path / "r.html").read_text()
    [file] = write_report([tmp_path / "c"], tmp_path / "r.json", form="json")
    rows = {row["points"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["mean of fog"]["accuracy"] == own["kind"]["fog"]["mean"]
    assert rows["mean of fog"]["norm"] is None


def test_shifts_are_the_worst_of_a_grid():
    model = Linear(shape=(1, 8, 8))
    images, labels = easy_images(model, 8, spread=0.5)
    found = idc.evaluate(model, images, labels, protocol="shifts")
    assert found.robust == found.summary["attacks"]["worst-of-grid"]["mean"]["mean"] < 1
    assert "under each of 775 rotations up to 30 degrees" in str(found)


def test_classes_without_images_are_the_models():
    """Images of the first classes only, of a model of four."""
    model = Linear(shape=(1, 6, 6))
    images, classes = easy_images(model, 24)
    some = classes < 2
    found = idc.evaluate(model, images[some], classes[some], protocol="quick", eps=0.3)
    assert len(found.summary["confusion"]["clean"]) == 4
    assert found.summary["images"] == int(some.sum())


@pytest.mark.parametrize(("given", "words"), [("runs/idc", "open it"), (lambda: None, "call the function")])
def test_what_is_no_module_is_told(given, words):
    with pytest.raises(idc.IDCError, match=words):
        idc.evaluate(given, torch.zeros(1, 1, 4, 4), [0])


def test_images_of_another_size_than_the_model_says_are_told():
    """The command line scales them; here they are given as they are."""
    model, images, labels = problem()
    model.input_shape = (1, 3, 3)
    with pytest.raises(
        idc.IDCError, match=r"1x6x6: expected 1x3x3, the input_shape of Linear; .*image_size=3, channels=1"
    ):
        idc.evaluate(model, images, labels, protocol="clean")


class TakesDigits(torch.nn.Module):
    """Logits by the mean of each of ten regions, for classes in another order than the data's."""

    input_shape = (1, 32, 32)

    def __init__(self, names):
        super().__init__()
        self.class_names = names
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10))

    def forward(self, images):
        return self.net(images)


def test_a_data_set_is_taken_as_it_is(tmp_path):
    """With its split and names; its classes in the model's order; and of a limit the images that a load gives."""
    test = data.load("digits", split="test")
    names = [str(digit) for digit in reversed(range(10))]
    model = TakesDigits(names).eval()
    some = data.load("digits", split="test", limit=30)
    named = [names[k] for k in model(some.images / 255).argmax(1)]
    right = [name == some.class_names[c] for name, c in zip(named, some.labels, strict=True)]
    found = idc.evaluate(model, test, protocol="clean", limit=30, out=tmp_path / "kept")
    assert found.clean == pytest.approx(sum(right) / 30)
    assert found.summary["class_names"] == names
    assert found.summary["settings"]["data"]["split"] == "test"
    assert found.summary["settings"]["data"]["source"] == "digits"
    assert json.loads((tmp_path / "kept" / "request.json").read_text())["split"] == "test"
    lines = (tmp_path / "kept" / "images-0.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == set(some.ids.tolist())
    with pytest.raises(idc.IDCError, match="labels or class_names beside a data set"):
        idc.evaluate(model, test, test.labels)
    model.class_names = ["a", *names[1:]]
    with pytest.raises(idc.IDCError, match="data with the classes 0, 1, 2, 3"):
        idc.evaluate(model, test)
    with pytest.raises(idc.IDCError, match="labels NoneType: expected 539 integers"):
        idc.evaluate(model, test.images)
    with pytest.raises(idc.IDCError, match="0 images"):
        idc.evaluate(model, test.take([]))


def test_few_draws_that_are_wrong_by_luck_keep_no_image_from_being_attacked(tmp_path):
    """With one draw, an image may be wrong once and right in most others."""
    model = Noisy(num_classes=2, shape=(1, 6, 6), sigma=0.3)
    images, labels = easy_images(model, 48)
    idc.evaluate(model, images, labels, protocol="pgd", steps=2, eps=0.05, draws=1, out=tmp_path / "kept")
    lines = [json.loads(line) for line in (tmp_path / "kept" / "images-0.jsonl").read_text().splitlines()]
    assert 0 < sum(line["clean"][0] for line in lines) < 48
    assert all(judged is not None for line in lines for judged in line["attacks"].values())


def test_class_names_in_another_order_than_the_models_are_refused():
    """Labels by the data's order would be read in the model's."""
    own, images, labels = problem()
    model = torch.nn.Sequential(own).eval()
    model.class_names = ["no", "yes"]
    assert idc.evaluate(model, images, labels, protocol="clean", class_names=("no", "yes")).clean == 1
    with pytest.raises(idc.IDCError, match=r"class_names yes, no, .*expected no, yes, "):
        idc.evaluate(model, images, labels, protocol="clean", class_names=("yes", "no"))
