"""The classifier against the definitions of method.md, written out here with plain loops."""

import itertools

import numpy as np
import pytest
import torch

from conftest import tiny_model
from idc import IDC, IDCConfig, IDCError
from idc.bridge import BridgeSpec
from idc.labels import orthogonal_labels
from idc.types import Classifier
from idc.unet import UNetSpec

M = np.linspace(0.001, 0.999, 4)
VAR = 2 * (M - M**2)


@torch.no_grad()
def plain_chain(model, images, visits, noise, eta=1.0):
    """Sampling as method.md states it: every step evaluated, in float64 arithmetic around the float32 network."""
    y = 2 * images.double() - 1
    x = y
    for i, t in enumerate(visits):
        x0 = (x - model.unet(x.float(), torch.full((len(x),), t), y.float()).double()).clamp(-1, 1)
        if i + 1 == len(visits):
            return (x0 + 1) / 2
        n = visits[i + 1]
        s2 = max((VAR[t] - VAR[n] * ((1 - M[t]) / (1 - M[n])) ** 2) * VAR[n] / VAR[t], 0)
        mean = (1 - M[n]) * x0 + M[n] * y + np.sqrt((VAR[n] - s2) / VAR[t]) * (x - (1 - M[t]) * x0 - M[t] * y)
        x = mean + eta * np.sqrt(s2) * noise[i].double()
    raise AssertionError


@pytest.fixture
def noise():
    return torch.randn(3, 5, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("visits", [(3,), (3, 0), (3, 1, 0), (3, 1, 1, 0), (3, 2, 1, 0), (3, 1)])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_translate_follows_method_md(model, images, noise, visits, eta):
    found = model.translate(images, visits=visits, eta=eta, noise=noise)
    assert torch.allclose(found.double(), plain_chain(model, images, visits, noise, eta), atol=1e-5)


def test_the_authors_visits_give_the_same_answer_for_one_evaluation_more(model, images, noise):
    short = model.translate(images, visits=(3, 1, 0), noise=noise[[0, 2]])
    assert torch.allclose(short.double(), plain_chain(model, images, (3, 1, 1, 0), noise), atol=1e-5)
    assert torch.equal(short, model.translate(images, visits=(3, 1, 1, 0), noise=noise))
    assert not torch.allclose(short, model.translate(images, visits=(3, 1, 0), noise=noise[[1, 2]]), atol=1e-3)


def test_distances_and_logits(model, images, noise):
    translated = model.translate(images, noise=noise)
    expected = [[(x - p).abs().mean().item() for p in model.labels] for x in translated]
    distances = model.distances(images, noise=noise)
    assert torch.allclose(distances, torch.tensor(expected), atol=1e-6)
    assert torch.allclose(model(images, noise=noise), -distances / 0.1, atol=1e-5)


def test_a_generator_decides_the_noise_and_none_means_fresh(model, images):
    def run(seed):
        return model(images, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    assert not torch.equal(model(images), model(images))
    assert torch.equal(model(images, eta=0.0), model(images, eta=0.0))


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


def test_predict_is_the_mean_over_draws_and_counts_agreement(model, images):
    from idc.noise import normal

    ids = torch.tensor([3, 1, 4, 15, 9])
    found = model.predict(images, draws=6, ids=ids, seed=2)
    streams = [normal(ids, (1, 8, 8), seed=2, draws=6, step=step) for step in range(2)]
    each = torch.stack([model.distances(images, noise=torch.stack([s[d] for s in streams])) for d in range(6)])
    assert torch.allclose(found.distances, each.mean(0), atol=1e-5)
    assert torch.equal(found.classes, each.mean(0).argmin(1))
    votes = torch.stack([(each.argmin(2) == k).float().mean(0) for k in range(4)], dim=1)
    assert torch.allclose(found.votes, votes)
    assert torch.allclose(found.agreement, (each.argmin(2) == found.classes).float().mean(0))
    assert found.names == [model.class_names[c] for c in found.classes]


def test_predict_does_not_depend_on_the_batch(model, images):
    ids = torch.arange(5) + 10
    whole = model.predict(images, draws=4, ids=ids)
    parts = [model.predict(images[i : i + 1], draws=4, ids=ids[i : i + 1], batch_size=3) for i in range(5)]
    assert torch.allclose(whole.distances, torch.cat([p.distances for p in parts]), atol=1e-6)


def test_predict_evaluates_the_first_pass_once_for_all_draws(model, images):
    sizes = []
    model.unet.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    model.predict(images, draws=4)
    assert sizes == [5, 20, 20]
    sizes.clear()
    model.predict(images, draws=4, eta=0.0)
    assert sizes == [5, 5, 5]
    sizes.clear()
    model.predict(images, draws=4, visits=(3, 1, 1, 0))
    assert sizes == [5, 20, 20]


def test_predict_leaves_mode_and_global_generator_as_found(model, images):
    model.train()
    model.unet.net.conv_in.eval()
    before = torch.get_rng_state()
    model.predict(images)
    assert model.training
    assert not model.unet.net.conv_in.training
    assert torch.equal(before, torch.get_rng_state())


def test_trajectory_holds_every_evaluation(model, images, noise):
    steps = model.trajectory(images, noise=noise)
    assert [s.t for s in steps] == [3, 1, 0]
    assert torch.equal(steps[0].x_t, 2 * images - 1)
    assert torch.allclose((steps[-1].x0_hat + 1) / 2, model.translate(images, noise=noise))


def test_with_answer_shares_weights_and_changes_only_the_answer(model, images):
    one = model.with_answer(visits=(3,))
    assert torch.equal(one(images), model(images, visits=(3,)))
    assert not one.stochastic
    assert model.stochastic
    assert one.unet is model.unet
    assert not model.with_answer(eta=0.0).stochastic
    assert model.config.visits == (3, 1, 0)


def test_it_is_a_classifier_with_surrogates_whose_gradients_reach_the_image(model, images):
    assert isinstance(model, Classifier)
    surrogates = model.surrogates()
    assert {"one-step-inner", "chain-inner", "chain-l2", "mean-x0-inner"} <= set(surrogates)
    for logits in surrogates.values():
        x = images.clone().requires_grad_()
        values = logits(x)
        assert values.shape == (5, 4)
        (gradient,) = torch.autograd.grad(values[:, 0].sum(), x)
        assert (gradient != 0).float().mean() > 0.9
    assert set(model.with_answer(visits=(3,)).surrogates()) == {"one-step-inner", "one-step-l2"}


@pytest.mark.parametrize(
    "labels",
    [{}, {"label_kind": "hadamard"}, {"label_kind": "low-frequency"}, {"label_kind": "blocks", "label_cell": 2}],
)
def test_surrogates_rank_a_perfect_translation_first(labels):
    """A network that returns x_t - P_2 translates everything into label 2: every surrogate must say 2."""
    model = tiny_model(**labels)
    target = 2 * model.labels[2] - 1

    class Perfect(torch.nn.Module):
        def forward(self, x_t, t, y):
            return x_t - target

    model = model.with_network(Perfect())
    images = torch.rand(3, 1, 8, 8)
    assert model.predict(images).classes.tolist() == [2, 2, 2]
    assert model.distances(images)[:, 2].max() < 1e-6
    for logits in model.surrogates().values():
        assert logits(images).argmax(1).tolist() == [2, 2, 2]


def test_the_papers_inner_products_are_plain(model, images):
    with torch.no_grad():
        x0_hat = (2 * images - 1) - model.unet(2 * images - 1, torch.tensor(3), 2 * images - 1)
    expected = x0_hat.flatten(1) @ (2 * model.labels.flatten(1) - 1).T / (64 * 0.1)
    torch.testing.assert_close(model.surrogates()["one-step-inner"](images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["hadamard", "low-frequency", "blocks"])
def test_inner_surrogates_of_other_labels_answer_as_l2_does(kind, images):
    surrogates = tiny_model(7, label_kind=kind).surrogates()
    inner, l2 = (surrogates[f"one-step-{name}"](images) for name in ("inner", "l2"))
    assert torch.equal(inner.argsort(1), l2.argsort(1))
    assert inner.argmax(1).unique().numel() > 1


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
    with pytest.raises(IDCError, match="draws"):
        model.predict(images, draws=0)
    with pytest.raises(IDCError, match="multiple of 2"):
        tiny_model(shape=(1, 9, 9))
    with pytest.raises(IDCError, match="class names"):
        tiny_model(class_names=("a",))
    with pytest.raises(IDCError, match="temperature"):
        tiny_model(temperature=0)


def test_an_empty_batch_gives_an_empty_prediction(model):
    found = model.predict(torch.empty(0, 1, 8, 8))
    assert found.classes.shape == (0,)
    assert found.distances.shape == (0, 4)


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
