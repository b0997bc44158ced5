"""Our network, bridge, labels and loss against numbers from the authors' own code (tests/method/vectors/README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from idc import IDC, IDCError
from idc.method.bridge import Bridge
from idc.method.labels import orthogonal_labels
from idc.method.loss import bridge_loss
from idc.method.presets import PRESETS
from idc.method.reference import import_reference, modules, translate_names
from idc.method.unet import BridgeUNet, UNetSpec
from published import HERE, seeded_checkpoint

VECTORS = {k: torch.from_numpy(v) for k, v in np.load(HERE / "reference_cifar10.npz").items()}
CLOSE = 1e-4


@pytest.fixture(scope="module")
def content():
    return seeded_checkpoint()


@pytest.fixture(scope="module")
def checkpoint(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "authors.pth"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def imported(checkpoint):
    return import_reference(checkpoint, preset="paper-cifar10")


def error(found, name):
    return (found - VECTORS[name]).abs().max().item()


def test_schedule():
    assert error(Bridge().m_t, "m_t") < CLOSE
    assert error(Bridge().var_t, "variance_t") < CLOSE


def test_labels():
    assert error(orthogonal_labels(10, (3, 32, 32))[:3], "label_images_first3") < CLOSE


@torch.no_grad()
def test_network(imported):
    y = 2 * VECTORS["x"] - 1
    assert error(imported.unet(y, VECTORS["t"], y), "unet") < CLOSE


@torch.no_grad()
def test_losses(imported):
    labels = 2 * imported.labels - 1
    c = VECTORS["labels"]
    sample = imported.bridge.sample(labels[c], 2 * VECTORS["x"] - 1, VECTORS["t"], VECTORS["noise"])
    terms = bridge_loss(sample, imported.unet(sample.x_t, sample.t, sample.y), labels, c)
    assert error(torch.stack([terms.total, terms.intra, -0.2 * terms.inter], dim=1), "loss") < CLOSE


@torch.no_grad()
@pytest.mark.parametrize("visits", [(3, 1, 0), (3, 1, 1, 0)])
def test_samples_and_distances(imported, visits):
    quiet = imported.with_answer(visits=visits, eta=0.0)
    assert error(2 * quiet.translate(VECTORS["x"]) - 1, "sample_eta0") < CLOSE
    assert error(quiet.distances(VECTORS["x"]), "distances") < CLOSE


@torch.no_grad()
def test_one_step(imported):
    assert error(2 * imported.one_step.translate(VECTORS["x"]) - 1, "one_step") < CLOSE


@torch.no_grad()
def test_raw_weights_are_others_and_the_import_survives_saving(imported, checkpoint, tmp_path):
    raw = import_reference(checkpoint, preset="paper-cifar10", raw=True)
    one = imported.one_step.translate(VECTORS["x"])
    assert (raw.one_step.translate(VECTORS["x"]) - one).abs().max() > 0.01
    imported.save_pretrained(tmp_path)
    again = IDC.from_pretrained(tmp_path)
    assert torch.equal(again.one_step.translate(VECTORS["x"]), one)
    assert "epoch 5, step 1234" in again.card["Source"]


SPECS = {
    "paper-cifar10": PRESETS["paper-cifar10"],
    "paper-cifar100": PRESETS["paper-cifar100"],
    "deep, attention at 2": UNetSpec(16, (1, 2, 2), res_blocks=2, attention_at=(2,), groups=4, head_channels=8),
}


@pytest.mark.parametrize("name", SPECS)
def test_names_are_a_bijection(name):
    """Every tensor of our network has one name of theirs, and block numbers are the consecutive ones of ADM."""
    spec = SPECS[name]
    with torch.device("meta"):
        state = BridgeUNet(spec, (3, 32, 32)).net.state_dict()
    pairs = [(s + a, t + b) for s, t, inside in modules(spec) for a, b in inside.items()]
    ours = {t for _, t in pairs}
    heads = {k.rsplit(".", 1)[0].replace("to_q", "qkv").replace("to_k", "qkv").replace("to_v", "qkv") for k in state}
    assert heads <= ours
    assert all("conv_shortcut" in left for left in ours - heads)  # only where channels change
    assert len({s for s, _ in pairs}) == len(pairs) == len(ours)
    for part in ("input_blocks", "output_blocks"):
        numbers = {int(s.split(".")[1]) for s, _ in pairs if s.startswith(part)}
        assert numbers == set(range(max(numbers) + 1))
    levels = len(spec.multipliers)
    assert (
        max(int(s.split(".")[1]) for s, _ in pairs if s.startswith("input_blocks"))
        == levels * (spec.res_blocks + 1) - 1
    )
    assert (
        max(int(s.split(".")[1]) for s, _ in pairs if s.startswith("output_blocks"))
        == levels * (spec.res_blocks + 1) - 1
    )


def test_legacy_attention_order():
    """Row (head, part, channel) of qkv goes to row (head, channel) of q, k or v."""
    rows = torch.arange(3 * 64).float()
    weights = {"middle_block.1.qkv.bias": rows}
    found = translate_names(weights, UNetSpec(32, (1, 2), head_channels=16, groups=8))
    for part, name in enumerate(("to_q", "to_k", "to_v")):
        expected = [head * 48 + part * 16 + channel for head in range(4) for channel in range(16)]
        assert found[f"mid_block.attentions.0.{name}.bias"].tolist() == expected


def test_wrong_preset_names_the_right_one(checkpoint):
    with pytest.raises(IDCError, match="use --preset paper-cifar10"):
        import_reference(checkpoint, preset="paper-cifar100")


def foreign(tmp_path, content, name):
    file = tmp_path / "file.pth"
    if name == "text":
        file.write_text("hello")
    elif name == "code":
        torch.save({"model": Path("x")}, file)
    elif name == "truncated":
        torch.save({"model": {"denoise_fn.a": torch.rand(1000)}}, file)
        file.write_bytes(file.read_bytes()[:-500])
    elif name == "no model":
        torch.save({"state_dict": {}}, file)
    elif name == "no ema":
        torch.save({"model": content["model"]}, file)
    elif name == "other names":
        torch.save({"model": {"layer1.weight": torch.rand(2)}, "ema": {"layer1.weight": torch.rand(2)}}, file)
    elif name == "incomplete":
        torch.save({"model": {}, "ema": dict(list(content["ema"].items())[:-1])}, file)
    elif name == "another schedule":
        torch.save(content | {"model": {"m_t": torch.linspace(0, 1, 8)}}, file)
    return file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "check the path"),
        ("text", "checkpoint of the authors"),
        ("code", "not executed"),
        ("truncated", "damaged"),
        ("no model", "no 'model'"),
        ("no ema", "--raw"),
        ("other names", "denoise_fn"),
        ("incomplete", "no preset fits"),
        ("another schedule", "another bridge"),
    ],
)
def test_foreign_files(tmp_path, content, name, message):
    with pytest.raises(IDCError, match=message) as caught:
        import_reference(foreign(tmp_path, content, name), preset="paper-cifar10")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_refused_wherever_it_lies(checkpoint, tmp_path):
    """``torch.load`` alone reads it as another network."""
    whole = checkpoint.read_bytes()
    for place in (len(whole) // 3, len(whole) // 2, 2 * len(whole) // 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        (tmp_path / "damaged.pth").write_bytes(damaged)
        with pytest.raises(IDCError, match="is damaged"):
            import_reference(tmp_path / "damaged.pth", preset="paper-cifar10")


@pytest.mark.parametrize("spoil", [lambda w: w * torch.nan, lambda w: w / 0, torch.Tensor.long, torch.Tensor.bool])
def test_weights_that_are_no_finite_numbers_are_refused(content, tmp_path, spoil):
    name, held = next(iter(content["ema"].items()))
    torch.save(content | {"ema": content["ema"] | {name: spoil(held)}}, tmp_path / "spoiled.pth")
    with pytest.raises(IDCError, match="expected finite floating-point weights"):
        import_reference(tmp_path / "spoiled.pth", preset="paper-cifar10")
