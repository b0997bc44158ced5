"""The surrogates: easier to differentiate than the answer, and right where it is."""

import pytest
import torch

from idc.types import Classifier
from tiny import tiny_model


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
    assert set(model.one_step.surrogates()) == {"one-step-inner", "one-step-l2"}


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
