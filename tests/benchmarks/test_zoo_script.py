"""``benchmarks/zoo.py add``: a card says what the files say, and figures of other weights are refused."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from idc import IDC, IDCConfig, IDCError
from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.storage import records
from idc.storage.model_folder import CARD, CONFIG, change_card
from tiny import TINY, save_digits_model, tiny_model

ROOT = Path(__file__).parents[2]
# By its path: as a module it would be called zoo, like the package's own.
SPEC = importlib.util.spec_from_file_location("zoo_script", ROOT / "benchmarks" / "zoo.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def finished_run(folder: Path, data: str = "digits", **recipe: object) -> Path:
    """What a training leaves: an untrained model, but whole records."""
    save_digits_model(folder / "best")
    change_card(folder / "best", {"figures": {"validation one_step": 0.25, "validation images": 126}})
    recipe = {
        "data": data,
        "preset": "digits",
        "network": {},
        "epochs": 7,
        "norm": "linf",
        "eps": 0.1,
        "seed": 3,
    } | recipe
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    summary = {
        "seconds": 1234.5, "processes": 2, "device": "cpu", "bf16": True, "torch": "2.9", "images_seen": 7000,
        "images_per_second": 5.6, "about": {"data": data},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path / "run")


def attacked(model: Path, out: Path, **settings) -> dict:
    request = Request(model=str(model), data="digits", protocol="pgd", eps=0.1, limit=10, draws=3, steps=2, **settings)
    return evaluate(request, out, say=lambda _: None)


def test_the_card_is_filled_from_files(run, tmp_path):
    found = attacked(run, run / "evaluation" / "pgd")  # where make reproduce leaves it
    folder = script.add(run, "idc-tiny", [], into=tmp_path / "zoo")
    card, text = json.loads((folder / CONFIG).read_text())["card"], (folder / CARD).read_text()
    robust = found["robust"]["mean"]
    accuracy = f"{100 * robust['mean']:.1f}% [{100 * robust['low']:.1f}%, {100 * robust['high']:.1f}%]"
    row = {"attack": "pgd, L-inf 0.1", "answer": "mean of 3 draws", "accuracy": accuracy, "n": 10, "weights": "float32"}
    assert row.items() <= card["measured"][1].items()
    assert f"| pgd, L-inf 0.1 | mean of 3 draws | {accuracy} | 10 |" in text
    assert card["measured"][0]["attack"] == "none"
    assert card["recipe"] == {"preset": "digits", "epochs": 7, "norm": "linf", "eps": 0.1, "seed": 3}
    assert card["figures"] == {"validation one_step": 0.25, "validation images": 126}
    for word in ("1,234 s on 2 x CPU", "bf16", "torch 2.9", "7,000 images", "against L-inf attacks of 0.1", "seed (3)"):
        assert word in text
    assert 'IDC.from_pretrained("idc-tiny")' in text
    assert "none is claimed" in text  # no adaptive figures
    assert IDC.from_pretrained(folder).num_classes == 10


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_figures_can_be_added_later_and_say_which_weights_were_measured(run, tmp_path, norm):
    """Rounded weights are those that the file holds, whose statistics of BatchNorm are not rounded."""
    own = IDC(IDCConfig(10, (1, 8, 8), replace(TINY, norm=norm), class_names=tuple("0123456789")))
    for name, buffer in own.unet.named_buffers():
        if "running" in name:
            buffer.uniform_(0.9, 1.1)
    own.save_pretrained(run / "best")
    folder = script.add(run, "idc-tiny", [], into=tmp_path / "zoo")
    assert json.loads((folder / CONFIG).read_text())["card"]["measured"] == []
    attacked(folder, tmp_path / "rounded")
    script.add(run, "idc-tiny", [tmp_path / "rounded" / "summary.json"], into=tmp_path / "zoo")
    assert {row["weights"] for row in IDC.from_pretrained(folder).card["measured"]} == {"bf16"}
    assert [p.name for p in (tmp_path / "zoo").iterdir()] == ["idc-tiny"]


def test_figures_of_other_weights_are_refused(run, tmp_path):
    other = tmp_path / "other"
    tiny_model(10, seed=5, class_names=tuple("0123456789")).save_pretrained(other)
    attacked(other, tmp_path / "result")
    with pytest.raises(IDCError, match="figures of the run's weights"):
        script.add(run, "idc-tiny", [tmp_path / "result" / "summary.json"], into=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_model_may_be_shipped_with_another_answer(run, tmp_path):
    """The one-step answer of the same weights; figures of it, and only of it, are then its own."""
    attacked(run, tmp_path / "result", one_step=True)
    folder = script.add(run, "idc-tiny", [tmp_path / "result" / "summary.json"], visits=(3,), into=tmp_path / "zoo")
    shipped = IDC.from_pretrained(folder)
    assert shipped.config.visits == (3,)
    assert shipped.card["recipe"]["visits"] == [3]
    assert {row["answer"] for row in shipped.card["measured"]} == {"one answer"}
    images = torch.rand(4, *shipped.input_shape, generator=torch.Generator().manual_seed(0))
    expected = IDC.from_pretrained(run / "best").one_step.distances(images)
    torch.testing.assert_close(shipped.distances(images), expected, rtol=0, atol=0.02)  # of rounded weights


def test_the_card_of_a_one_step_answer_claims_nothing_of_the_chain(tmp_path):
    run = finished_run(tmp_path / "run", t_weights=[0, 0, 0, 1])
    figures = {"validation one_step": 0.25, "validation multi_step": 0.25, "validation attacked_multi_step": 0.125,
               "validation attacked_one_step": 0.125, "validation draws": 10, "validation images": 126}  # fmt: skip
    change_card(run / "best", {"figures": figures})
    card = IDC.from_pretrained(script.add(run, "idc-tiny", [], visits=(3,), into=tmp_path / "zoo")).card
    assert set(card["figures"]) == {f"validation {k}" for k in ("one_step", "attacked_one_step", "images")}
    assert any("Only timestep 3" in line for line in card["limits"])
    chain = IDC.from_pretrained(script.add(run, "idc-chain", [], into=tmp_path / "zoo")).card
    assert chain["figures"] == figures


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"split": "validation"}, "figures of the test split"), ({"one_step": True}, "the model's own answer"),
     ({"eta": 0.0}, "the model's own answer")],
)  # fmt: skip
def test_figures_of_another_question_are_refused(run, tmp_path, settings, message):
    attacked(run, tmp_path / "result", **settings)
    with pytest.raises(IDCError, match=message):
        script.add(run, "idc-tiny", [tmp_path / "result" / "summary.json"], into=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_path_never_becomes_the_name_of_the_data(tmp_path):
    run = finished_run(tmp_path / "run", data=str(tmp_path / "images"), eps=0)
    with pytest.raises(IDCError, match="--data-name"):
        script.add(run, "idc-tiny", [], into=tmp_path / "zoo")
    folder = script.add(run, "idc-tiny", [], data_name="CIFAR-10 (JPEG-75)", into=tmp_path / "zoo")
    text = (folder / CARD).read_text()
    assert str(tmp_path) not in text + (folder / CONFIG).read_text()
    assert "- Data: CIFAR-10 (JPEG-75)" in text
    assert "not robust" in text


def test_figures_of_other_data_are_refused(run, tmp_path):
    attacked(run, tmp_path / "result")
    file = tmp_path / "result" / "summary.json"
    held = json.loads(file.read_text())
    held["settings"]["data"]["source"] = "easy images"
    records.write(file, held)
    with pytest.raises(IDCError, match="easy images"):
        script.add(run, "idc-tiny", [file], data_name="digits", into=tmp_path / "zoo")


def test_mistakes_leave_nothing(run, tmp_path, monkeypatch):
    zoo = tmp_path / "zoo"
    (tmp_path / "text.json").write_text("[1]")
    for args, match in (
        ((run, "../idc", []), "a name such as"),
        ((tmp_path / "nothing", "idc-tiny", []), "finished run"),
        ((run, "idc-tiny", [tmp_path / "text.json"]), "results of"),
        ((run, "idc-tiny", [tmp_path / "missing.json"]), "missing.json"),
    ):
        with pytest.raises(IDCError, match=match):
            script.add(*args, into=zoo)
    monkeypatch.setattr(script, "LARGEST", 1000)
    with pytest.raises(IDCError, match="smaller network"):
        script.add(run, "idc-tiny", [], into=zoo)
    assert not zoo.exists() or not list(zoo.iterdir())


def test_a_large_model_lies_elsewhere_in_shards(run, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "LARGEST", 1000)
    folder = script.add(run, "idc-tiny", [], into=tmp_path / "models", shard=20_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert 'IDC.from_pretrained("models/idc-tiny")' in (folder / CARD).read_text()
    with pytest.raises(IDCError, match="outside the package"):
        script.add(run, "idc-tiny", [], shard=20_000)
    saved, again = IDC.from_pretrained(run / "best"), IDC.from_pretrained(folder)
    for before, after in zip(saved.parameters(), again.parameters(), strict=True):
        assert torch.equal(before.bfloat16(), after.bfloat16())
