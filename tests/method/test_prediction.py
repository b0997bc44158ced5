"""``predict``: the mean over draws, whatever the batch."""

import pytest
import torch

from idc.errors import IDCError


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
    assert model.with_answer(eta=0.0).predict(images, draws=4).draws == 1
    assert sizes == [5, 5, 5]
    sizes.clear()
    model.with_answer(visits=(3, 1, 1, 0)).predict(images, draws=4)
    assert sizes == [5, 20, 20]


def test_ids_may_be_a_list_and_are_one_an_image(model, images):
    found = model.predict(images, draws=2, ids=[3, 1, 4, 15, 9])
    assert torch.equal(found.distances, model.predict(images, draws=2, ids=torch.tensor([3, 1, 4, 15, 9])).distances)
    for wrong in ([1, 2], 3, "abcde", [0.5] * 5, [[1]] * 5, [2**70] * 5, [None] * 5):
        with pytest.raises(IDCError, match="5 whole numbers, one an image"):
            model.predict(images, draws=2, ids=wrong)


def test_distances_that_are_not_finite_have_no_least(model, images):
    model.unet.net.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(IDCError, match="NaN or infinite"):
        model.predict(images, draws=2)


def test_an_empty_batch_gives_an_empty_prediction(model):
    found = model.predict(torch.empty(0, 1, 8, 8))
    assert found.classes.shape == (0,)
    assert found.distances.shape == (0, 4)


def test_it_is_shown_in_a_line_and_not_by_its_tensors(model, images):
    found = model.predict(images, draws=2)
    assert repr(found) == f"Prediction(5 images: {', '.join(found.names)})"
    assert repr(model.predict(images.repeat(2, 1, 1, 1), draws=2)).endswith(f"{found.names[0]}, ...)")
