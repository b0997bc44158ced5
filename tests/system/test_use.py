"""``idc predict``, ``profile`` and ``import-reference`` as a user runs them."""

import csv
import json
import os
import sys

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


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, model):
    """The same model, whose own answer was calibrated."""
    folder, own = tmp_path_factory.mktemp("calibrated") / "m", IDC.from_pretrained(model)
    doubt = [0.1, 0.2, 0.3, 0.4, 0.9, 1.0]  # the model's distances lie in between
    own.card = {"calibration": {"temperature": 0.02, "doubt": doubt, "images": 99, "draws": 10, "visits": [3, 1, 0],
                                "eta": 1.0}}  # fmt: skip
    own.save_pretrained(folder)
    return folder


def test_predict_writes_a_line_an_image_as_csv(calibrated, picture, tmp_path):
    file = tmp_path / "answers, all.csv"
    twice = (picture, picture)
    result = idc("predict", calibrated, *twice, "--csv", file, "--json", "--top", 2, "--reject", 0.5)
    assert f"written: {file} (2 images)" in result.stderr
    assert "threshold of --reject rests on" in result.stderr
    told = json.loads(result.stdout)
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    for row, own in zip(rows, told, strict=True):
        first, second = own["top"]
        assert (row["image"], row["class"], row["nearest"]) == (str(picture), "none of these", first["class"])
        assert float(row["confidence"]) == first["confidence"]
        assert (row["class_2"], float(row["distance_2"])) == (second["class"], second["distance"])
    assert idc("predict", calibrated, picture, "--csv", file).stdout == ""
    assert file.read_text().splitlines()[0] == "image,class,confidence,distance,agreement,draws"
    refused(idc("predict", calibrated, picture, "--csv", tmp_path / "no" / "a.csv"), "a.csv", "a folder that is there")
    assert list(tmp_path.iterdir()) == [file]


def test_confidence_is_shown_where_it_is_calibrated(model, calibrated, picture):
    (row,) = json.loads(idc("predict", calibrated, picture, "--json", "--top", 3).stdout)
    assert sum(near["confidence"] for near in row["top"]) == pytest.approx(1)
    assert f"{row['top'][0]['confidence']:.1%}" in idc("predict", calibrated, picture, COLUMNS="200").stdout
    for command in (("predict", model, picture), ("predict", calibrated, picture, "--one-step")):
        assert "confidence" not in idc(*command).stdout + idc(*command, "--json").stdout


def test_predict_answers_none_of_these_if_asked(model, calibrated, picture):
    near, far = (
        json.loads(idc("predict", calibrated, picture, "--json", "--reject", s).stdout)[0] for s in (0.01, 0.5)
    )
    assert (near["rejected"], near["class"]) == (False, near["top"][0]["class"])
    assert (far["rejected"], far["class"]) == (True, "none of these")
    assert far["top"] == near["top"]
    assert "none of these" in idc("predict", calibrated, picture, "--reject", 0.5).stdout
    refused(idc("predict", calibrated, picture, "--reject", 0.9), "reject = 0.9", "0.05")
    refused(idc("predict", model, picture, "--reject", 0.05), "not calibrated")


def test_a_path_stands_once_and_whole(model, picture, tmp_path):
    long = tmp_path / ("long" * 20) / f"{'name' * 20}.png"
    long.parent.mkdir()
    long.write_bytes(picture.read_bytes())
    text = idc("predict", model, long, "--top", 3, COLUMNS="80").stdout
    assert text.count(str(long)) == 1
    assert [text.count(f" {name} ") for name in ("cat", "dog", "[red]eel")] == [1, 1, 1]


def test_more_classes_than_there_are_is_said(model, picture):
    result = idc("predict", model, picture, "--top", 4, "--json")
    assert len(json.loads(result.stdout)[0]["top"]) == 3
    assert result.stderr.splitlines() == ["the model has 3 classes, all of which are shown (--top 4)"]


@pytest.mark.parametrize(
    ("args", "module"),
    [
        (("predict", "./modle", "a.png"), "predict"),
        (("predict", "modle/best", "a.png"), "predict"),
        (("train", "--data", "./photoz", "--out", "o"), "train"),
        (("train", "--data", "digits", "--from", "/no/such", "--out", "o"), "train"),
        (("train-peer", "cnn", "--from", "./modle", "--out", "o"), "train_peers"),
        (("evaluate", "model", "--data", "photos.zip", "--out", "o"), "evaluate"),
    ],
)
def test_a_mistyped_path_is_told_before_anything_is_imported(args, module, tmp_path, monkeypatch):
    (tmp_path / "model" / "best").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, f"idc.commands.{module}", None)  # an import of it fails
    refused(idc(*args, cwd=tmp_path), "no such file or folder")


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


def test_the_pruning_table_fits_a_terminal():
    """Of 80 characters: no word of it is broken."""
    lines = idc("profile", COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for preset in ("paper-cifar10", "nano-encoder-patch2"):
        assert sum(f" {preset} " in line for line in lines) == 1
    assert sum(line.rstrip().endswith(("G │", "M │", "T │")) for line in lines) == len(
        json.loads(idc("profile", "--json").stdout)
    )
