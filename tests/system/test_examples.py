"""The examples run, and the library agrees with the method written out in plain torch in examples/standalone.py."""

import importlib.util
import json
import runpy
from pathlib import Path

import pytest
import torch

import program
from idc import IDC, IDCConfig
from idc.method.bridge import Bridge
from idc.method.labels import orthogonal_labels
from idc.method.loss import bridge_loss
from idc.method.presets import PRESETS
from tiny import SMALL_DIGITS, tiny_model

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def standalone():
    spec = importlib.util.spec_from_file_location("standalone", EXAMPLES / "standalone.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_standalone_needs_no_idc():
    assert "idc" not in [line.split()[1].split(".")[0] for line in (EXAMPLES / "standalone.py").read_text().splitlines()
                         if line.startswith(("import ", "from "))]  # fmt: skip


def test_labels(standalone):
    ours = 2 * orthogonal_labels(10, (1, 16, 16)).flatten(1) - 1
    assert torch.allclose(standalone.make_labels(10, 256), ours, atol=1e-4)


def test_losses(standalone):
    random = torch.Generator().manual_seed(0)
    labels = 2 * orthogonal_labels(6, (1, 4, 4)) - 1
    classes, t = torch.randint(6, (32,), generator=random), torch.randint(4, (32,), generator=random)
    y, eps, output = (torch.randn(32, 1, 4, 4, generator=random) for _ in range(3))
    sample = Bridge().sample(labels[classes], y, t, eps)
    ours = bridge_loss(sample, output, labels, classes)
    flat = [x.flatten(1) for x in (labels[classes], y, eps, output)]
    intra, inter = standalone.losses(flat[0], flat[1], t, flat[2], flat[3], labels.flatten(1), classes)
    assert torch.allclose(ours.intra, intra, atol=1e-5)
    assert torch.allclose(ours.inter, inter, atol=1e-4)
    assert (inter > 0).any()


@torch.no_grad()
def test_sampling(standalone):
    model = tiny_model()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def network(x, t):
        x = x.view(-1, 1, 8, 8)
        return model.unet(x, t, x).flatten(1)

    theirs = standalone.sample(network, (2 * images - 1).flatten(1), noise=noise.flatten(2))
    ours = model.translate(images, noise=noise).flatten(1)
    assert torch.allclose(ours, (theirs + 1) / 2, atol=1e-5)


def test_own_model_enters_the_table(tmp_path):
    """examples/own_model.py beside a saved IDC, as its first line says; a smaller one than there."""
    asked = (EXAMPLES / "own_model.yaml").read_text()
    assert (EXAMPLES.parent / "models" / "digits").is_dir()
    assert "model: models/digits\n" in asked
    IDC(IDCConfig(10, (1, 32, 32), SMALL_DIGITS, class_names=tuple("0123456789"))).save_pretrained(tmp_path / "digits")
    file = tmp_path / "own_model.yaml"
    file.write_text(asked.replace("models/digits", str(tmp_path / "digits")))
    result = program.idc("compare", file, "--out", tmp_path / "table", "--json", cwd=EXAMPLES.parent)
    assert result.returncode == 0, result.stderr
    mine, idc = json.loads(result.stdout)["rows"]
    assert (mine["name"], mine["parameters"], mine["network_evaluations"]) == ("mine", 10 * 1024 + 10, 1)
    assert mine["flops"] == 2 * 1024 * 10
    assert mine["clean"]["mean"]["mean"] > 0.85
    assert idc["network_evaluations"] == 1
    assert mine["images"] == idc["images"] == 40
    assert (tmp_path / "table" / "table.md").exists()


def test_the_method_in_plain_torch_learns(standalone, capsys):
    with torch.random.fork_rng():
        standalone.main()
    shares = [float(line.split(": ")[1].split("%")[0]) for line in capsys.readouterr().out.splitlines()]
    assert shares[0] > 93
    assert shares[1] > 88


def test_classify_runs(capsys, monkeypatch):
    monkeypatch.setitem(PRESETS, "digits", SMALL_DIGITS)
    runpy.run_path(str(EXAMPLES / "classify.py"))
    assert capsys.readouterr().out.count("answer") == 5
