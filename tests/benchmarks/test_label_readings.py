"""The readings of the comparison of labels with logits, by their definitions written out in numpy and by IDC itself."""

import label_readings as own
import numpy as np
import pytest
import torch
from label_models import MetricIDC, RandomParts, ReadClassifier, ReadoutIDC
from label_readings import Learned, Parts, Weighted, Whole
from label_sides import CODES

from idc.attacks.target import ANSWER, Target
from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.loss import label_logits
from idc.method.unet import UNetSpec
from idc.noise import Streams
from idc.training.recipe import Recipe

SHAPE, K = (1, 16, 16), 4
SPEC = UNetSpec(4, (1, 2), groups=1, patch=2, residual=True, norm="batch", middle_attention=False, decoder=False)
RECIPE = Recipe(eps=0.1, t_weights=(0, 0, 0, 1))
IMAGES = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
POINTS = 3 * torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1)) - 1.5


def fresh(kind=IDC, *, side=None, cell=4):
    config = IDCConfig(K, SHAPE, SPEC, visits=(3,), label_kind="hadamard" if side is None else CODES, label_cell=cell)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = None if side is None else own.codes(K, SHAPE, side=side, cell=cell)
        model = kind(config, labels).eval()
        for parameter in model.unet.net.conv_out.parameters():
            torch.nn.init.normal_(parameter, 0, 0.3)
    return model


MODEL, PARTED, METRIC, READOUT = fresh(), fresh(side=8, cell=2), fresh(MetricIDC), fresh(ReadoutIDC)
PARTS = Parts(PARTED, RECIPE, side=8)


def squares(image, side=8):
    """Of (C, H, W), row by row."""
    _, height, width = image.shape
    return [image[:, i : i + side, j : j + side] for i in range(0, height, side) for j in range(0, width, side)]


def test_the_vote_counts_what_each_square_answers():
    found = PARTS.answer(POINTS, PARTED.unet).numpy()
    labels = PARTED.labels.numpy()
    for row, point in zip(found, np.clip((POINTS.numpy() + 1) / 2, 0, 1), strict=True):
        votes, means = np.zeros(K), np.zeros(K)
        for number, square in enumerate(squares(point)):
            distances = [np.abs(square - squares(label)[number]).mean() for label in labels]
            votes[int(np.argmin(distances))] += 1
            means += np.array(distances) / 4
        np.testing.assert_allclose(row, votes - means / 2, atol=1e-5)
        assert np.argmax(row) in np.flatnonzero(votes == votes.max())  # distances break ties and nothing else


@pytest.mark.parametrize(("shape", "side", "cell"), [((1, 16, 16), 8, 2), ((3, 16, 16), 0, 4), ((3, 16, 16), 8, 2)])
def test_every_part_of_the_labels_is_a_hadamard_code_of_its_own(shape, side, cell):
    labels = 2 * own.codes(K, shape, side=side, cell=cell) - 1
    parts = labels.flatten(1)[:, own.places(shape, side)]  # (K, P, n)
    assert sorted(own.places(shape, side).flatten().tolist()) == list(range(labels[0].numel()))
    for part in parts.transpose(0, 1):
        torch.testing.assert_close(part @ part.T, part.shape[1] * torch.eye(K))
    assert len({part.numpy().tobytes() for part in parts.transpose(0, 1)}) > 1


def test_the_mean_distance_of_the_sets_is_that_to_the_label_as_a_whole():
    """So an IDC itself answers by several sets."""
    distances = PARTS.distances_of_parts(PARTED.translate(IMAGES) * 2 - 1).mean(0)
    torch.testing.assert_close(distances, PARTED.distances(IMAGES), rtol=1e-4, atol=1e-6)


def test_learned_is_the_cross_entropy_of_the_shipped_training():
    classes, t = torch.arange(5) % K, torch.full((5,), 3)
    labels = 2 * MODEL.labels - 1
    sample = MODEL.bridge.sample(labels[classes], POINTS, t, torch.zeros_like(POINTS))
    logits = label_logits(sample, sample.x_t - POINTS, labels, temperature=RECIPE.ce_temperature)
    expected = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
    found = -Whole(MODEL, RECIPE).learned(POINTS, MODEL.unet).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_weighted_distance_by_hand():
    reading = Weighted(METRIC, RECIPE)
    with torch.no_grad():
        METRIC.unet.metric.copy_(torch.linspace(-1, 1, METRIC.unet.metric.numel()))
    raw = np.exp(np.linspace(-1, 1, 256))
    weights = 256 * raw / raw.sum()
    points, labels = ((v.flatten(1).numpy() + 1) / 2 for v in (POINTS, 2 * METRIC.labels - 1))
    expected = [[(weights * np.abs(p - label)).sum() / 256 for label in labels] for p in points]
    np.testing.assert_allclose(reading.distances(POINTS, METRIC.unet).detach(), expected, atol=1e-5)
    # Minus half the weighted squared L2 distance, but for what is the same for every class, on the usual scale.
    squares = [[-(weights * (p - label) ** 2).sum() * 2 / 256 for label in labels] for p in points]
    inner, plain = reading.inner(POINTS, METRIC.unet).detach(), MODEL.inner_products()[0]
    scale = float(plain.abs().mean())
    np.testing.assert_allclose(
        inner - inner.mean(1, keepdim=True), scale * (np.array(squares) - np.mean(squares, 1, keepdims=True)), atol=1e-5
    )


def test_a_readout_by_hadamard_labels_is_their_distance_within_the_unit_cube():
    points = POINTS.clamp(-1, 1)
    with torch.no_grad():
        READOUT.unet.readout.copy_(2 * READOUT.labels.flatten(1) - 1)
        found = Learned(READOUT, RECIPE).learned(points, READOUT.unet)
    torch.testing.assert_close(found, Whole(READOUT, RECIPE).learned(points, READOUT.unet), rtol=1e-4, atol=1e-4)


def test_margins_are_to_the_best_other():
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, -1.0]])
    assert own.margins(scores).tolist() == [[1, -2, -1], [0, 0, -1]]


CLASSIFIERS = {
    "vote": ReadClassifier(PARTED, PARTS),
    "random half": RandomParts(PARTED, PARTS),
    "metric": ReadClassifier(METRIC, Weighted(METRIC, RECIPE)),
    "readout": ReadClassifier(READOUT, Learned(READOUT, RECIPE)),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_surrogates_have_gradients(name):
    model = CLASSIFIERS[name]
    assert model.surrogates()
    for function in model.surrogates().values():
        x = IMAGES.clone().requires_grad_()
        logits = function(x)
        assert logits.shape == (len(x), K)
        (gradient,) = torch.autograd.grad((logits * torch.arange(K)).sum(), x)
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_a_random_half_is_the_vote_of_half_of_the_parts_and_each_images_own():
    model = RandomParts(PARTED, PARTS).eval()
    target, streams = Target.of(model), Streams(torch.arange(6), 0)
    together = target.logits(ANSWER, IMAGES, streams, draws=8)
    alone = target.logits(ANSWER, IMAGES[2:3], streams.take(torch.tensor([2])), draws=8)
    torch.testing.assert_close(alone[:, 0], together[:, 2], rtol=1e-4, atol=1e-5)
    assert (together.ceil().sum(2) == 2).all()  # votes: less than half a vote is taken off each
    assert (together[0] != together[1]).any()
