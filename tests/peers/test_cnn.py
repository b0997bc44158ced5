"""The CNNs are those of their papers, come back from disk, and learn by each method."""

import copy
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from idc.commands.opening import open_model
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig, PackagedResNet18


@pytest.mark.parametrize(
    ("arch", "millions", "giga"),
    [
        # Parameters as widely published for CIFAR-10; FLOPs of the first row are RobustBench's (published.md).
        ("preact-resnet18", 11.171146, 1.11),
        ("wrn-28-10", 36.479194, 10.49),
    ],
)
def test_published_size(arch, millions, giga):
    with torch.device("meta"):
        model = CNN(CNNConfig(arch, 10, (3, 32, 32))).eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            model.network(torch.empty(1, 3, 32, 32))
    assert sum(p.numel() for p in model.parameters()) == round(millions * 1e6)
    assert counter.get_total_flops() / 1e9 == pytest.approx(giga, abs=0.005)


def test_a_preactivation_block_by_hand():
    """One block of one channel with known numbers: norm(x) = x / sqrt(1 + 1e-5), convolutions that pass the centre."""
    from idc.peers.cnn import PreActBlock

    block = PreActBlock(1, 1, 1).eval()
    for conv in (block.conv1, block.conv2):
        torch.nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, 1, 1] = 2.0
    x = torch.tensor([[[[-1.0, 3.0]]]])
    scale = 1 / (1 + 1e-5) ** 0.5
    expected = x + torch.tensor([[[[0.0, 3.0 * scale * 2 * scale * 2]]]])
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("width", [3, 4, 8])
def test_a_narrow_network_has_the_gradients_of_another_memory_format(width):
    """In channels last, fewer than 8 channels ended the process on CPUs without AVX-512."""
    model = CNN(CNNConfig("preact-resnet18", 4, (1, 32, 32), width=width)).eval()
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    found = []
    for one in (model, plain):
        x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        one(x).logsumexp(1).sum().backward()
        found.append(x.grad)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("arch", ["preact-resnet18", "wrn-10-2"])
def test_round_trip(arch, tmp_path):
    model = CNN(CNNConfig(arch, 3, (1, 8, 8), width=2, class_names=("a", "b", "ü"))).eval()
    model.card = {"Data": "made up"}
    model.save_pretrained(tmp_path)
    again = open_model(str(tmp_path))
    assert isinstance(again, CNN)
    assert (again.config, again.card, again.training) == (model.config, model.card, False)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again(x), model(x))
    values = json.loads((tmp_path / "config.json").read_text())
    values["cnn"]["width"] = 4
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(IDCError, match="SHA-256"):
        open_model(str(tmp_path))


def test_the_packaged_resnet_is_the_one_that_the_library_tests_itself_with():
    """Its constructor, weights and input range as in pyautoattack's own example, built here independently."""
    import sys
    from pathlib import Path

    import pyautoattack

    folder = Path(pyautoattack.__file__).parent / "examples"
    sys.path.insert(0, str(folder))
    try:
        import resnet
    finally:
        sys.path.remove(str(folder))
    expected = resnet.ResNet18()
    expected.load_state_dict(torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = open_model("pyautoattack-resnet18")
    assert isinstance(model, PackagedResNet18)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected.eval()(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(IDCError, match=r"in \[0, 1\]"):
        model(2 * x)


@pytest.mark.parametrize("change", [{"arch": "vgg"}, {"arch": "wrn-27-10"}, {"width": -1}, {"class_names": ("a",)}])
def test_bad_configurations(change):
    with pytest.raises(IDCError):
        CNNConfig(**{"arch": "wrn-10-1", "num_classes": 3, "image_shape": (1, 8, 8)} | change)
