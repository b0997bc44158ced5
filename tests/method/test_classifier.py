"""The classifier against the definitions of method.md, written out here with plain loops."""

import itertools

import pytest
import torch

from idc import IDC, IDCConfig, IDCError
from idc.method.bridge import BridgeSpec
from idc.method.labels import orthogonal_labels
from idc.method.unet import UNetSpec
from tiny import tiny_model


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
    one = model.with_answer(visits=(3,))
    assert torch.equal(one(images), model(images, visits=(3,)))
    assert not one.stochastic
    assert model.stochastic
    assert one.unet is model.unet
    assert not model.with_answer(eta=0.0).stochastic
    assert model.config.visits == (3, 1, 0)


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
    for wrong in ({"visits": (2, 0)}, {"eta": 2.0}):
        with pytest.raises(IDCError):
            model.predict(images, **wrong)
    with pytest.raises(IDCError, match=r"images of type ndarray: expected a torch\.Tensor"):
        model.predict(torch.rand(2, 1, 8, 8).numpy())
    with pytest.raises(IDCError, match="draws"):
        model.predict(images, draws=0)
    with pytest.raises(IDCError, match="multiple of 2"):
        tiny_model(shape=(1, 9, 9))
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
    assert half.with_answer(visits=(3,)).bf16
    with pytest.raises(IDCError, match="fp32, bf16, auto"):
        model.with_precision("fp16")
