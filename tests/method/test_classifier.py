"""The classifier against the paper's definitions, written out here with plain loops."""

import itertools
from dataclasses import replace

import pytest
import torch

from idc import IDC, IDCConfig, IDCError
from idc.method.bridge import BridgeSpec
from idc.method.labels import orthogonal_labels
from idc.method.unet import UNetSpec
from tiny import TINY, tiny_model


@pytest.fixture
def noise():
    return torch.randn(3, 5, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def test_distances_and_logits(model, images, noise):
    translated = model.translate(images, noise=noise)
    expected = [[(x - p).abs().mean().item() for p in model.labels] for x in translated]
    distances = model.distances(images, noise=noise)
    assert torch.allclose(distances, torch.tensor(expected), atol=1e-6)
    assert torch.allclose(model(images, noise=noise), -distances / 0.1, atol=1e-5)


def test_forward_is_differentiable_by_finite_differences():
    model = tiny_model(clip=False).double()
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 0.8 + 0.1
    noise = torch.randn(2, 1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    direction = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(model(image, noise=noise)[0, 1], image)
    with torch.no_grad():
        h = 1e-6
        ends = [model(image + s * h * direction, noise=noise)[0, 1] for s in (1, -1)]
    assert (gradient * direction).sum().item() == pytest.approx(((ends[0] - ends[1]) / (2 * h)).item(), rel=1e-4)


def test_predict_leaves_mode_and_global_generator_as_found(model, images):
    model.train()
    model.unet.net.conv_in.eval()
    before = torch.get_rng_state()
    model.predict(images)
    assert model.training
    assert not model.unet.net.conv_in.training
    assert torch.equal(before, torch.get_rng_state())


def test_with_answer_shares_weights_and_changes_only_the_answer(model, images):
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    noise = torch.randn(2, *images.shape, generator=torch.Generator().manual_seed(2))
    before = model(images, noise=noise)
    one, quiet = model.one_step, model.with_answer(eta=0.0)
    # One evaluation at T-1, of the image itself, written out.
    y = 2 * images - 1
    x0_hat = (y - model.unet(y, torch.full((5,), 3), y)).clamp(-1, 1)
    torch.testing.assert_close(one.translate(images), (x0_hat + 1) / 2)
    assert [(m.config.visits, m.config.bridge.eta) for m in (one, quiet)] == [((3,), 1.0), ((3, 1, 0), 0.0)]
    assert [m.stochastic for m in (model, one, quiet)] == [True, False, False]
    assert one.unet is quiet.unet is model.unet
    assert one.state_dict().keys() == expected.keys()
    own = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    assert {name: tensor.data_ptr() for name, tensor in one.state_dict().items()} == own
    # What is done to one of them is not done to the others.
    other = model.with_network(torch.nn.Identity())
    other.register_buffer("more", torch.zeros(1))
    one.card = {"Data": "another"}
    assert model.state_dict().keys() == expected.keys()
    assert model.card == {}
    assert torch.equal(model(images, noise=noise), before)


def test_labels_of_another_kind_are_those_of_the_config():
    model = tiny_model(label_kind="hadamard", label_cell=2, label_seed=3)
    assert torch.equal(model.labels, orthogonal_labels(4, (1, 8, 8), seed=3, kind="hadamard", cell=2))
    for wrong in ({"label_kind": "random"}, {"label_cell": 3}):
        with pytest.raises(IDCError):
            tiny_model(**wrong)


@pytest.mark.parametrize(("channels", "size"), list(itertools.product((1, 3, 4), (8, 12))))
def test_any_size_and_channels_that_the_strides_allow(channels, size):
    model = tiny_model(shape=(channels, size, size))
    assert model.predict(torch.rand(2, channels, size, size)).distances.shape == (2, 4)


def test_patches_concat_residual_and_positions_run():
    spec = UNetSpec(
        8, (1, 2), groups=4, head_channels=8, patch=2, condition="concat", residual=True, position_channels=3
    )
    model = IDC(IDCConfig(3, (3, 16, 8), spec, bridge=BridgeSpec(timesteps=6))).eval()
    assert model.config.visits[0] == 5
    assert model.predict(torch.rand(2, 3, 16, 8), draws=2).classes.shape == (2,)


BAD_IMAGES = {
    "shape": torch.rand(2, 3, 8, 8),
    "batch": torch.rand(1, 8, 8),
    "integers": torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
    "range": torch.rand(2, 1, 8, 8) * 255,
    "negative": torch.rand(2, 1, 8, 8) - 0.5,
    "nan": torch.full((2, 1, 8, 8), float("nan")),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images(model, name):
    for verb in (model.predict, model.translate, model.distances, model):
        with pytest.raises(IDCError):
            verb(BAD_IMAGES[name])


def test_bad_settings(model, images):
    for wrong in ({"visits": (2, 0)}, {"visits": ()}, {"eta": 2.0}):
        with pytest.raises(IDCError):
            model.with_answer(**wrong)
    with pytest.raises(IDCError, match=r"images of type ndarray: expected a torch\.Tensor"):
        model.distances(torch.rand(2, 1, 8, 8).numpy())
    with pytest.raises(IDCError, match="draws"):
        model.predict(images, draws=0)
    with pytest.raises(IDCError, match="multiple of 2"):
        IDC(IDCConfig(4, (1, 9, 9), replace(TINY, multipliers=(1, 2))))
    with pytest.raises(IDCError, match="class names"):
        tiny_model(class_names=("a",))
    with pytest.raises(IDCError, match="temperature"):
        tiny_model(temperature=0)


def test_bf16_stays_inside_the_network(model, images, noise):
    """The network rounds to eight bits; bridge, distances and logits do not, and the answers stay what they were."""
    half, full = model.with_precision("bf16"), model.with_precision("fp32")
    found, expected = half(images, noise=noise[:2]), full(images, noise=noise[:2])
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.02 * (expected.max() - expected.min()) + 0.05
    assert half.translate(images, noise=noise).dtype == torch.float32
    seen = []
    hook = model.unet.net.conv_in.register_forward_hook(lambda _, args, output: seen.append(output.dtype))
    for name, logits in half.surrogates().items():
        assert logits(images).dtype == torch.float32, name
    hook.remove()
    assert set(seen) == {torch.bfloat16}
    x = images.clone().requires_grad_()
    half(x, noise=noise[:2]).sum().backward()
    assert x.grad.dtype == torch.float32
    assert torch.isfinite(x.grad).all()
    assert not full.bf16
    assert half.one_step.bf16
    with pytest.raises(IDCError, match="fp32, bf16, auto"):
        model.with_precision("fp16")


@pytest.mark.parametrize("draws", [0, "3", 2.5, [3]])
def test_draws_that_are_no_count_are_one_line(model, images, draws):
    for ask in (model, model.predict):
        with pytest.raises(IDCError, match=r"draws = .*: expected a whole number, at least 1"):
            ask(images, draws=draws)


@pytest.mark.parametrize("visits", [3, "3,0", (3.5, 0), [[3]], True])
def test_visits_that_are_no_list_of_timesteps_are_one_line(model, visits):
    with pytest.raises(IDCError, match=r"visits = .*: expected timesteps such as \[3, 1, 0\]"):
        model.with_answer(visits=visits)


@pytest.mark.parametrize("network", [replace(TINY, decoder=False, time_embedding=False), TINY])
def test_a_mirrored_answer_is_the_same_for_both_and_survives_saving(tmp_path, network):
    """Of a network that knows no timestep but T-1, and of one that knows others and answers there."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = IDC(IDCConfig(5, (1, 8, 8), network, clip=False, visits=(3,))).eval()
    plain.card = {"Data": "digits", "calibration": {}}
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    both = plain.with_answer(mirrored=True)
    one, other = (2 * plain.translate(image) - 1 for image in (images, images.flip(-1)))
    torch.testing.assert_close(both.translate(images), ((one + other) / 2 + 1) / 2, rtol=0, atol=1e-5)
    assert (plain.config.unet.mirrored, both.config.unet.mirrored, both.card) == (False, True, {"Data": "digits"})
    assert both.unet.net is plain.unet.net
    plain.unet.forward = lambda *args: pytest.fail("compiled for the plain answer")
    torch.testing.assert_close(plain.with_answer(mirrored=True)(images), both(images))
    del plain.unet.forward
    both.save_pretrained(tmp_path / "m")
    again = IDC.from_pretrained(tmp_path / "m")
    torch.testing.assert_close(again(images), both(images))
    torch.testing.assert_close(again(images.flip(-1)), both(images))
    assert not torch.allclose(plain(images), both(images))


def test_a_chain_is_not_mirrored(model):
    with pytest.raises(IDCError, match=r"visits 3,1,0 of a network that is mirrored: .*--one-step"):
        model.with_answer(mirrored=True)
