"""``idc predict``, ``profile`` and ``import-reference`` as a user runs them."""

import json
import os

import pytest
import torch
import yaml

from idc import IDC
from idc.cost import flops_of
from program import idc, refused


def test_predict_json_agrees_with_python(model, picture):
    result = idc("predict", model, picture, "--draws", 4, "--top", 2, "--json")
    (row,) = json.loads(result.stdout)
    from idc.data import read_images

    found = IDC.from_pretrained(model).predict(read_images([picture], shape=(3, 16, 16)), draws=4)
    order = found.distances[0].argsort()[:2].tolist()
    assert [t["class"] for t in row["top"]] == [("cat", "dog", "[red]eel")[k] for k in order]
    assert [t["distance"] for t in row["top"]] == pytest.approx(found.distances[0, order].tolist(), abs=1e-6)
    assert row["agreement"] == pytest.approx(found.agreement.item())


def test_predict_prints_class_names_as_they_are(model, picture):
    text = idc("predict", model, picture, "--top", 3, COLUMNS="200").stdout
    assert all(name in text for name in ("cat", "dog", "[red]eel"))


def test_predict_answers_for_the_files_that_it_can_read(model, picture, tmp_path):
    """The others are a line each, whatever they are."""
    (tmp_path / "text.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    names = ("text.png", "none.png", "empty", "pipe.png", "link.png", f"{'long' * 100}.png")
    bad = [tmp_path / name for name in names]
    result = idc("predict", model, bad[0], picture, *bad[1:], picture, "--json")
    assert result.returncode == 2
    assert [row["image"] for row in json.loads(result.stdout)] == [str(picture)] * 2
    lines = result.stderr.splitlines()
    assert [line.startswith("idc: ") and file.name[:20] in line for line, file in zip(lines, bad, strict=True)]
    assert max(map(len, lines)) < 500
    assert "a.png" in idc("predict", model, picture, bad[0]).stdout
    refused(idc("predict", model, bad[1]), "none.png")


def test_predict_takes_folders_and_patterns(model, picture, tmp_path):
    """In order, at any depth; what cannot be read there is a line as ever."""
    for name in ("b.png", "a/z.png", "a/y.png", "a/[red].png", ".hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture.read_bytes())
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere")
    told = idc("predict", model, tmp_path, tmp_path / "a" / "[yz].png", tmp_path / "a" / "[red].png", "--json")
    assert (told.returncode, [line.count("c.png") for line in told.stderr.splitlines()]) == (2, [1])
    asked = ["a/[red].png", "a/y.png", "a/z.png", "b.png", "a/y.png", "a/z.png", "a/[red].png"]
    assert [row["image"] for row in json.loads(told.stdout)] == [str(tmp_path / name) for name in asked]
    refused(idc("predict", model, tmp_path / "*.jpg"), "*.jpg", "a pattern that some match")


def test_an_answer_without_noise_has_no_draws_to_agree(model, picture):
    (row,) = json.loads(idc("predict", model, picture, "--one-step", "--json").stdout)
    assert (row["draws"], "agreement" in row) == (1, False)
    assert "agreement" not in idc("predict", model, picture, "--one-step").stdout
    assert "agreement" in idc("predict", model, picture).stdout
    refused(idc("predict", model, picture, "--one-step", "--draws", 5), "draws = 5", "leave --draws out")


def test_profile_of_the_published_network(monkeypatch):
    """Of what would be timed the FLOPs are taken: no clock says that one pass is a third of three."""
    monkeypatch.setattr("idc.commands.profile.latency", lambda work, device, repeats: flops_of(work))
    found = json.loads(idc("profile", "paper-cifar10", "--json").stdout)
    assert found["parameters"] == 9_393_475
    assert found["flops_per_evaluation"] / 1e9 == pytest.approx(6.84, abs=0.005)
    assert (found["network_evaluations"], found["visits"]) == (3, [3, 1, 0])
    assert found["flops"] == 3 * found["flops_per_evaluation"]
    assert found["latency_ms"] == 3 * found["latency_one_step_ms"] == 1000 * found["flops"]
    assert found["peak_memory_bytes"] > 64 * 32 * 32 * 4  # at least one activation of the first level


def test_profile_of_a_network_of_ones_own(tmp_path):
    """The preset, written out; and with half its channels, fewer parameters."""
    from idc.method.presets import PRESETS
    from idc.storage.fields import recorded

    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(recorded(PRESETS["nano-encoder"])))
    fields = ("parameters", "flops_per_evaluation", "weights_bytes")
    expected = json.loads(idc("profile", "nano-encoder", "--json").stdout)
    found = json.loads(idc("profile", file, "--json").stdout)
    assert [found[k] for k in fields] == [expected[k] for k in fields]
    file.write_text(f"preset: nano-encoder\nbase_channels: {PRESETS['nano-encoder'].base_channels // 2}\n")
    assert json.loads(idc("profile", file, "--json").stdout)["parameters"] < expected["parameters"]
    file.write_text("preset: digits-encoder\n")
    assert json.loads(idc("profile", file, "--json").stdout)["image_shape"] == [1, 32, 32]


def test_a_misspelt_preset_is_looked_up_nowhere(tmp_path):
    refused(idc("profile", "digits-encodr"), "digits-encodr", "digits-encoder")
    elsewhere = idc("profile", "someone/nano-encoder", HF_HUB_OFFLINE="1")
    refused(elsewhere, "hub model 'someone/nano-encoder'")
    (tmp_path / "own.yaml").write_text("preset: [nano")
    refused(idc("profile", tmp_path / "own.yaml"), "own.yaml", "line 1", "YAML")


def test_pruning_table_falls_from_bbdm_to_the_paper():
    rows = {r["network"]: r for r in json.loads(idc("profile", "--json").stdout)}
    costs = [rows[n]["flops"] for n in ("BBDM pixel-space template", "IDC, CIFAR-100", "IDC, CIFAR-10", "nano (ours)")]
    assert costs == sorted(costs, reverse=True)


def test_import_reference(tmp_path):
    from published import seeded_checkpoint

    file = tmp_path / "authors.pth"
    torch.save(seeded_checkpoint(), file)
    assert idc("import-reference", file, "--preset", "paper-cifar10", "--out", tmp_path / "m").returncode == 0
    assert IDC.from_pretrained(tmp_path / "m").class_names[0] == "airplane"
    refused(
        idc("import-reference", file, "--preset", "paper-cifar100", "--out", tmp_path / "n"),
        "use --preset paper-cifar10",
    )
    assert not (tmp_path / "n").exists()


def test_more_classes_than_pixels(tmp_path):
    refused(idc("profile", "digits", "--num-classes", 2000), "2000 classes", "1024")
