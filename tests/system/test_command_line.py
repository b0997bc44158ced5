"""The program as a user runs it: what it prints, and one clear line with exit code 2 for every mistake."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from idc import IDC
from idc.storage import hub
from processes import run
from program import idc, refused
from tiny_training import NETWORK


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten images each."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def test_help_imports_nothing_heavy():
    code = """if True:
        import sys
        from idc import cli
        sys.argv[1:] = ["--help"]
        try:
            cli.main()
        finally:
            print(sorted({name.partition(".")[0] for name in sys.modules} & set(HEAVY)), file=sys.stderr)
    """.replace("HEAVY", repr(["torch", "numpy", "scipy", "sklearn", "pyarrow", "datasets", "diffusers", "accelerate",
                               "huggingface_hub", "safetensors", "matplotlib", "PIL", "jinja2", "yaml",
                               "gradio"]))  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr.strip()) == (0, "[]")
    assert "import-reference" in result.stdout


@pytest.mark.parametrize(("flag", "value"), [("--attack-steps", 1), ("--norm", "l2"), ("--attack-temperature", 0.02)])
def test_an_attack_without_a_size_trains_nothing(tmp_path, flag, value):
    refused(idc("train", flag, value, "--out", tmp_path / "run"), "without eps", "--eps")
    assert not (tmp_path / "run").exists()


def test_train_then_predict_then_evaluate(folder, tmp_path):
    run = tmp_path / "run"
    network = tmp_path / "n.yaml"
    network.write_text("base_channels: 8\nmultipliers: [1]\ngroups: 4\nhead_channels: 8\n")
    result = idc("train", "--data", folder, "--preset", network, "--out", run, "--epochs", 1, "--batch-size", 4,
                 "--validation-limit", 4)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "validation accuracy" in result.stdout
    answer = json.loads(idc("predict", run, folder / "cat" / "0.png", "--json").stdout)
    assert answer[0]["class"] in ("cat", "dog")
    result = idc("evaluate", run, "--data", folder, "--out", tmp_path / "e", "--json")
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert json.loads(result.stdout) == summary
    assert summary["accuracy"]["one-step"]["n"] == 4


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_flag_without_its_value(tmp_path):
    given = idc("train-peer", "ddpm", "--drop", "--out", tmp_path / "r")
    refused(given, "--drop = '--out'", "a number in [0, 1)")
    given = idc("train", "--epochs", "--data", "digits", "--out", tmp_path / "r")
    refused(given, "--epochs = '--data'", "a number above 0")


def test_what_is_no_command_of_ours(tmp_path):
    """A flag or verb that there is not, or that is missing: one line too, with where to look."""
    data = ("--data", "digits", "--out", tmp_path / "r")
    refused(idc("evaluate", "m", *data, "--chunk", 3), "--chunk", "see idc evaluate --help")
    refused(idc("evaluate", "m", "--data", "digits"), "--out", "see idc evaluate --help")
    refused(idc("evaluate", "m", "m", *data), "see idc evaluate --help")
    refused(idc("evaluat"), "evaluat", "see idc --help")
    assert "evaluate" in idc().stdout + idc().stderr


def test_missing_files(model, picture, tmp_path):
    refused(idc("predict", model, tmp_path / "no.png"), "no.png")
    refused(idc("predict", tmp_path / "nothing", picture), "nothing")
    refused(idc("export", tmp_path / "nothing", "--out", tmp_path / "r"), "nothing")
    refused(idc("train", "--data", tmp_path / "nothing", "--out", tmp_path / "r"), "nothing")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["y" * 200] * 30)], ids=["long", "deep"])
def test_names_that_no_file_can_have(model, picture, tmp_path, name):
    out, page = ("--out", tmp_path / "r"), ("--out", tmp_path / "r.html")
    for args in (("predict", name, picture), ("predict", model, name), ("report", name, *page), ("rejudge", name),
                 ("train", "--data", name, *out), ("train", "--recipe", f"{name}.yaml", *out)):  # fmt: skip
        result = idc(*args, HF_HUB_OFFLINE="1")
        refused(result, name[:20])
        assert len(result.stderr) <= 501
    assert not (tmp_path / "r").exists()


def test_a_text_file_named_png(model, folder, tmp_path):
    for i in range(8):  # so many that some are in the training split
        fake = folder / "cat" / f"fake-{i}.png"
        fake.write_text("not a picture")
    refused(idc("predict", model, fake), "fake-7.png")
    refused(idc("train", "--data", folder, "--out", tmp_path / "r"), "fake-", "--skip-bad")
    args = ("train", "--data", folder, "--image-size", 32, "--epochs", 1, "--batch-size", 8, "--out", tmp_path / "r")
    result = idc(*args, "--skip-bad")
    assert result.returncode == 0, result.stderr
    assert "fake-" in result.stderr


def test_empty_folder_and_one_class(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(idc("train", "--data", tmp_path / "empty", "--out", tmp_path / "r"), "empty")
    shutil.rmtree(folder / "dog")
    refused(idc("train", "--data", folder, "--out", tmp_path / "r"), "class")


def test_images_smaller_than_the_stride(folder, tmp_path):
    refused(
        idc("train", "--data", folder, "--image-size", 4, "--preset", "nano", "--out", tmp_path / "r"), "4x4", "stride"
    )


def test_nan_pixels(model, tmp_path):
    file = tmp_path / "nan.tiff"
    Image.fromarray(np.full((16, 16), np.nan, dtype=np.float32)).save(file)
    refused(idc("predict", model, file), "nan.tiff")


def test_a_100_megapixel_image(model, tmp_path):
    file = tmp_path / "huge.png"
    Image.new("1", (10_000, 10_000)).save(file)
    refused(idc("predict", model, file), "huge.png")


def test_a_model_with_a_flipped_byte(model, picture, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-5] ^= 4
    (copy / "model.safetensors").write_bytes(content)
    refused(idc("predict", copy, picture), "SHA-256")


def test_unwritable_output(model, folder, tmp_path):
    (tmp_path / "file").write_text("")
    refused(idc("train", "--data", folder, "--out", tmp_path / "file"), "file")
    refused(idc("train", "--data", folder, "--out", "/proc/no/run"), "/proc/no/run")
    refused(idc("evaluate", model, "--data", "digits", "--out", tmp_path / "file"), "class")


def no_room_for_tensors():
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    torch.save = full


def test_a_full_disk(folder, tmp_path):
    """A real full disk where one may be mounted; else the writer's own error is injected."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    args = ("train", "--data", folder, "--preset", "nano", "--image-size", 32, "--epochs", 1, "--batch-size", 8)
    try:
        result = run(*args, "--out", disk / "run", before=None if mounted else no_room_for_tensors)
        result.stderr = "\n".join(
            line for line in result.stderr.splitlines() if line.startswith(("idc: ", "Traceback"))
        )
        refused(result, "room on the disk")
        left = [p.name for p in (disk / "run").rglob("*")]
        assert not [n for n in left if n.endswith(".part")]
    finally:
        if mounted:
            subprocess.run(["umount", disk], check=True)


def test_wrong_settings(folder, tmp_path):
    out = tmp_path / "r"
    for flags, word in (
        (("--lr", "fast"), "lr"),
        (("--preset", "huge"), "huge"),
        (("--recipe", "best"), "best"),
        (("--optimizer", "lion"), "sgd"),
        (("--channels", 2), "channels"),
        (("--t-weights", "1,2"), "t_weights"),
    ):
        refused(idc("train", "--data", folder, "--image-size", 16, "--out", out, *flags), word)
    assert not out.exists()


@pytest.mark.parametrize("args", [("train", "--data", "someone/some-data"), ("predict", "someone/some-model")])
def test_a_hub_id_without_a_network_is_asked_for_once(args, connections, picture, tmp_path):
    """Within a time limit of its own, and nothing else is tried."""
    args = (*args, "--out", tmp_path / "r") if args[0] == "train" else (*args, picture)
    refused(idc(*args, HF_ENDPOINT="http://127.0.0.1:9"), "hub")
    assert connections == [("127.0.0.1", 9, hub.PROBE_SECONDS)]
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("source", ["./cifar", "data/cifar/train", "cifar.parquet", "~/cifar"])
def test_what_looks_like_a_path_never_asks_the_network(source, connections, tmp_path):
    refused(idc("train", "--data", source, "--out", tmp_path / "r"), source.removeprefix("~"))
    assert connections == []


def test_two_processes_train_one_model_and_one_speaks(tmp_path):
    network = tmp_path / "network.yaml"
    network.write_text(NETWORK)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    own = ["--data", "digits", "--limit", "128", "--epochs", "1", "--preset", network, "--final-limit", "20"]
    own += ["--out", tmp_path / "run"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([*torchrun, "-m", "idc.cli", "train", *own], capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("validation accuracy") == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["processes"] == 2
    assert summary["steps"] == 2
    assert summary["images_seen"] == 128
    assert IDC.from_pretrained(tmp_path / "run").num_classes == 10
