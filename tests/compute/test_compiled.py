"""Half precision and compiled code: what they must not change, of any classifier."""

import pickle
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from idc.commands.opening import open_both
from idc.commands.request import Request
from idc.compute import compiled
from idc.compute.compiled import check_networks, compile_networks
from idc.compute.precision import compute_in_float32
from idc.cost import answer_cost
from idc.errors import IDCError
from idc.evaluation.adapter import as_classifier
from idc.evaluation.identity import describe_model
from idc.method.presets import PRESETS
from idc.method.unet import BridgeUNet
from idc.peers.cnn import CNN, CNNConfig
from tiny import save_digits_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["idc", "cnn"])
def request_of(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "idc":
        save_digits_model(folder)
    else:
        torch.manual_seed(0)
        names = tuple("0123456789")
        CNN(CNNConfig("wrn-10-1", 10, (1, 8, 8), width=2, class_names=names)).save_pretrained(folder)
    return Request(model=str(folder), data="digits", limit=12, one_step=request.param == "idc")


def gradient(model, images):
    x = images.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(model(x)[:, 3].sum(), x)
    return found


def test_compiled_networks_answer_the_same(request_of, monkeypatch):
    """Logits and gradients in batches of any size, and the counted cost, are those of the model as it is."""
    # Machine code of a whole network takes a minute: its tracing is looked at here, machine code right below.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, data = open_both(request_of, CPU)
    fast, _ = open_both(replace(request_of, compile=True), CPU)
    images = data.images.float().div(255)
    for part in (images[:1], images[:5], images):
        with torch.no_grad():
            torch.testing.assert_close(fast(part), plain(part), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gradient(fast, part), gradient(plain, part), rtol=1e-3, atol=1e-4)
    assert answer_cost(fast, CPU) == answer_cost(plain, CPU)


class Wide(nn.Module):
    """The layers of a CNN, once each."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 4)

    def forward(self, images):
        return self.linear(nn.functional.relu(self.norm(self.conv(images))).mean((2, 3)))


def test_machine_code_answers_the_same():
    """In batches of two sizes: the second takes what was made for the first."""
    torch.manual_seed(0)
    plain = as_classifier(Wide(3), input_shape=(1, 8, 8))
    fast = as_classifier(deepcopy(plain.module), input_shape=(1, 8, 8))
    compile_networks(fast, CPU)
    images = torch.rand(12, 1, 8, 8)
    for part in (images[:5], images):
        with torch.no_grad():
            torch.testing.assert_close(fast(part), plain(part), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gradient(fast, part), gradient(plain, part), rtol=1e-3, atol=1e-4)
    assert fast.compiled


def test_without_a_compiler_it_is_refused(monkeypatch):
    monkeypatch.setattr(compiled, "can_compile", lambda device: False)
    with pytest.raises(IDCError, match=r"g\+\+"):
        compile_networks(as_classifier(nn.Flatten(), input_shape=(1, 2, 2)), CPU)


def test_half_precision_of_any_classifier(request_of):
    """Near the full one, but not it; the logits are float32, and no coarser than the features make them."""
    plain, data = open_both(request_of, CPU)
    half, _ = open_both(replace(request_of, precision="bf16"), CPU)
    images = data.images.float().div(255)
    with torch.no_grad():
        expected, found = plain(images), half(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert not torch.equal(found, found.bfloat16().float())
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * expected.abs().max().item())
    assert (half.num_classes, half.class_names) == (plain.num_classes, plain.class_names)
    assert answer_cost(half, CPU) == answer_cost(plain, CPU)


def test_both_at_once_is_noted(request_of, monkeypatch):
    """Compiled code rounds to bf16 in other places: a result of one is not to be continued with the other."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    half, data = open_both(replace(request_of, precision="bf16"), CPU)
    both, _ = open_both(replace(request_of, precision="bf16", compile=True), CPU)
    fast, _ = open_both(replace(request_of, compile=True), CPU)
    images = data.images.float().div(255)
    with torch.no_grad():
        torch.testing.assert_close(both(images), half(images), rtol=1e-3, atol=1e-3)
    records = [describe_model(model, "m") for model in (half, both, fast)]
    assert [("precision" in r, "compiled" in r) for r in records] == [(True, False), (True, True), (False, False)]


class Own(nn.Module):
    """A user's module that names a weak spot; it notes in which precision each of its layers computed."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.linear = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 5, 1), nn.Linear(20, 4)
        self.kinds, self.config = {}, {"not": nn.ReLU}

    def forward(self, images):
        features = self.conv(self.first(images)).flatten(1)
        logits = self.linear(features)
        self.kinds = {"conv": features.dtype, "linear": logits.dtype}
        return logits

    def weak(self, images):
        return self.conv(self.first(images)).flatten(1)[:, :4]

    def surrogates(self):
        return {"weak": self.weak}


def test_what_is_computed_in_half_precision():
    """The convolutions, in surrogates too; not the layer that makes logits. Without it nothing is wrapped again."""
    own = Own()
    half = as_classifier(own, input_shape=(1, 4, 4), bf16=True)
    images = torch.rand(2, 1, 4, 4)
    assert half(images).dtype == torch.float32
    assert own.kinds == {"conv": torch.bfloat16, "linear": torch.float32}
    weak = half.surrogates()["weak"](images)
    assert weak.dtype == torch.float32
    torch.testing.assert_close(weak, weak.bfloat16().float(), rtol=0, atol=0)
    full = as_classifier(Own(), input_shape=(1, 4, 4))
    full(images)
    assert full.module.kinds == {"conv": torch.float32, "linear": torch.float32}
    assert full.config is None  # what the module calls so is its own affair


class Cosine(nn.Linear):
    """A head of another kind: the cosine of features and weights."""

    def forward(self, x):
        return 10 * nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight), self.bias)


def test_a_small_change_of_the_image_gets_through():
    """In [0.5, 1) bf16 has no values between those of 8 bits. A head of another class stays of that class."""
    torch.manual_seed(0)
    first, head = nn.Conv2d(1, 1, 1), Cosine(16, 4)
    nn.init.ones_(first.weight)
    nn.init.constant_(first.bias, -0.75)
    module = nn.Sequential(first, nn.Flatten(), head)
    images = torch.full((1, 1, 4, 4), 0.75)
    near = images + torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(1)) / 1024
    assert torch.equal(near.bfloat16(), images.bfloat16())
    expected = module(near)
    half = as_classifier(module, input_shape=(1, 4, 4), bf16=True)
    with torch.no_grad():
        torch.testing.assert_close(half(near), expected, rtol=0.02, atol=0.02)
        assert (half(near) - half(images)).abs().max() > 0.1


def test_logits_that_would_be_rounded_are_refused():
    convolution = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 4), nn.Flatten())
    with pytest.raises(IDCError, match="linear layer"):
        as_classifier(convolution, input_shape=(1, 4, 4), bf16=True)


class Unfolded(nn.Module):
    """Its first layer takes pixels apart before it multiplies them."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(4, 3, 1), nn.Linear(12, 5)

    def forward(self, images):
        return self.linear(self.conv(nn.functional.pixel_unshuffle(images, 2)).flatten(1))


def test_an_image_that_would_be_rounded_is_refused():
    torch.manual_seed(0)
    with pytest.raises(IDCError, match="first layer"):
        as_classifier(Unfolded(), input_shape=(1, 4, 4), bf16=True)


@pytest.mark.parametrize("preset", ["nano-encoder", "nano"])
def test_a_small_change_gets_through_a_u_net(preset):
    """What its first layer makes of one that bf16 does not know, with patches and without."""
    unet = BridgeUNet(replace(PRESETS[preset], position_channels=0), (3, 32, 32)).eval()
    first = unet.net.conv_in
    nn.init.ones_(first.weight)
    fan_in = first.weight[0].numel()
    nn.init.constant_(first.bias, -0.75 * fan_in)
    seen = []
    first.register_forward_hook(lambda layer, args, out: seen.append(out[0, 0, 8, 8].item()))
    x = torch.full((1, 3, 32, 32), 0.75)
    assert torch.equal(x.bfloat16(), (x + 1 / 2048).bfloat16())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for image in (x, x + 1 / 2048):
            unet(image, torch.tensor([3]), image)
    assert seen == [0, pytest.approx(fan_in / 2048, rel=0.01)]


def test_a_model_can_be_pickled_and_its_classes_are_shared():
    model = BridgeUNet(PRESETS["nano"], (3, 32, 32))
    again = pickle.loads(pickle.dumps(model))
    assert type(again.net.conv_in) is type(BridgeUNet(PRESETS["nano"], (3, 32, 32)).net.conv_in)
    heads = [Cosine(4, 4), Cosine(4, 4)]
    for head in heads:
        compute_in_float32(head)
    assert type(heads[0]) is type(heads[1])


def test_the_factory_s_own_module_is_left_alone(tmp_path, monkeypatch):
    """A module that a factory hands out twice is opened in bf16 and then as it is."""
    (tmp_path / "handed_out.py").write_text(
        "import torch\n"
        "torch.manual_seed(0)\n"
        "own = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 32), torch.nn.Flatten(), torch.nn.Linear(2, 10))\n"
        "def model():\n    return own\n"
    )
    monkeypatch.chdir(tmp_path)
    asked = Request(model="handed_out:model", data="digits", limit=4)
    for precision, same in (("bf16", False), ("fp32", True), ("bf16", False)):
        model, data = open_both(replace(asked, precision=precision), CPU)
        images = data.images.float().div(255)
        with torch.no_grad():
            assert torch.equal(model(images), sys.modules["handed_out"].own(images)) == same


class NoisyNet(nn.Module):
    stochastic = True

    def forward(self, images):
        return (images + torch.randn_like(images)).flatten(1)


def test_noise_within_compiled_code_is_refused():
    """It would no longer be the noise of the image's own stream."""
    with pytest.raises(IDCError, match="names its networks"):
        compile_networks(as_classifier(NoisyNet(), input_shape=(1, 2, 2)), CPU)
    named = NoisyNet()
    named.networks = (nn.Linear(1, 1),)
    assert check_networks(as_classifier(named, input_shape=(1, 2, 2))) == named.networks


def test_many_models_in_a_process(monkeypatch):
    """Each is compiled, however many there are: torch gives up after eight variants, in silence."""
    seen = []

    def backend(graph, example):
        seen.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    images = torch.rand(3, 1, 8, 8)
    for width in range(2, 12):
        counts = []
        for _ in range(2):
            model = as_classifier(Wide(width), input_shape=(1, 8, 8))
            compile_networks(model, CPU)
            with torch.no_grad():
                model(images)
            counts.append(len(seen))
        assert counts[1] == counts[0] == width - 1  # one of the same kind is not compiled anew
