from typing import get_args

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from idc.errors import IDCError
from idc.method.labels import LabelKind, fingerprint, gram_report, inner_products, orthogonal_labels

KINDS = get_args(LabelKind)


def independent_labels(num_classes, shape, seed):
    """Gram-Schmidt in numpy float64 with LAPACK's sign (each column's R diagonal is negative for its reflector)."""
    size = int(np.prod(shape))
    gaussian = torch.randn(num_classes, size, generator=torch.Generator().manual_seed(seed)).double().numpy()
    basis = []
    for row in gaussian:
        for _ in range(2):
            for b in basis:
                row = row - (row @ b) * b
        basis.append(row / np.linalg.norm(row))
    return np.stack(basis)


@pytest.mark.parametrize(("num_classes", "shape"), [(10, (3, 32, 32)), (7, (1, 8, 8)), (4, (4, 2, 2)), (16, (1, 4, 4))])
def test_labels_are_scaled_orthonormal_directions(num_classes, shape):
    labels = orthogonal_labels(num_classes, shape)
    assert labels.shape == (num_classes, *shape)
    flat = labels.flatten(1).double().numpy()
    assert np.allclose(flat.min(1), 0, atol=1e-7)
    assert np.allclose(flat.max(1), 1, atol=1e-7)
    for row, direction in zip(flat, independent_labels(num_classes, shape, 0), strict=True):
        plus, minus = ((s * direction - (s * direction).min()) / np.ptp(direction) for s in (1, -1))
        assert min(abs(row - plus).max(), abs(row - minus).max()) < 1e-4


def test_a_copy_is_returned_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    orthogonal_labels(3, (1, 4, 4)).zero_()
    assert orthogonal_labels(3, (1, 4, 4)).max() == 1
    assert torch.equal(before, torch.get_rng_state())


def test_fingerprint_tells_labels_apart_and_forgives_rounding():
    labels = orthogonal_labels(10, (3, 8, 8))
    assert fingerprint(labels) == fingerprint(labels * (1 + 1e-7))
    others = [orthogonal_labels(10, (3, 8, 8), seed=1), orthogonal_labels(9, (3, 8, 8)), labels.flip(0), 1 - labels]
    assert len({fingerprint(x) for x in (labels, *others)}) == 5


def test_gram_report_on_known_labels():
    a, b = torch.tensor([1.0, 0, 1, 0]), torch.tensor([1.0, 1, 0, 0])
    report = gram_report(torch.stack([a, b]).view(2, 1, 2, 2))
    assert report.max_cosine == pytest.approx(0.5)
    assert report.max_cosine_centred == pytest.approx(0.0)
    assert report.max_cosine_signed == pytest.approx(0.0)
    assert report.norm_ratio == pytest.approx(1.0)
    assert report.min_distance == report.mean_distance == pytest.approx(0.5)
    wide = gram_report(torch.tensor([[1.0, 0, 1, 0], [0.5, 1, 0.5, 0.5]]).view(2, 1, 2, 2))
    assert wide.norm_ratio == pytest.approx(2.0)
    assert wide.max_cosine_signed == pytest.approx(0.5)


def test_real_labels_are_orthogonal_once_their_mean_is_removed():
    report = gram_report(orthogonal_labels(10, (3, 32, 32)))
    assert report.max_cosine > 0.8  # the common constant image
    assert report.max_cosine_centred < 0.01


@pytest.mark.parametrize(("num_classes", "shape"), [(1, (1, 8, 8)), (65, (1, 8, 8))])
def test_impossible_numbers_of_classes(num_classes, shape):
    with pytest.raises(IDCError, match=f"{num_classes} classes"):
        orthogonal_labels(num_classes, shape)


# -- the other kinds ---------------------------------------------------------------------------------------------------

SHAPES = [(1, 8, 8), (3, 8, 8), (3, 32, 32), (1, 28, 28), (3, 12, 12), (4, 4, 2)]


def rows(num_classes, shape, **settings):
    return orthogonal_labels(num_classes, shape, **settings).flatten(1).double().numpy()


def test_the_papers_labels_are_what_they_were():
    """Fingerprints with which models/digits and models/nano were saved before there were other kinds."""
    known = {
        (1, 32, 32): "25a7ab5114fa24e81ea2af5aa99909ec1411780db63a373bf9c6875ec42369d8",
        (3, 32, 32): "ed4ec35f90ae6d558195910021b680972ab6602edff61efd7df612c55021df42",
    }
    assert {shape: fingerprint(orthogonal_labels(10, shape)) for shape in known} == known


@pytest.mark.parametrize("shape", [*SHAPES, (3, 10, 10), (1, 20, 20), (3, 14, 14)])
@pytest.mark.parametrize("seed", [0, 3])
def test_hadamard_labels_are_orthogonal_signs(shape, seed):
    signs = 2 * rows(10, shape, kind="hadamard", seed=seed) - 1
    size = signs.shape[1]
    assert set(np.unique(signs)) == {-1, 1}
    assert np.array_equal(signs @ signs.T, size * np.eye(10))
    assert np.array_equal(signs.sum(1), np.zeros(10))  # orthogonal to the constant row, which is none of them


@pytest.mark.parametrize(("shape", "size"), [((1, 2, 2), 4), ((1, 4, 4), 16), ((3, 2, 2), 12), ((1, 6, 6), 36)])
def test_all_hadamard_labels_and_the_constant_make_a_whole_matrix(shape, size):
    signs = 2 * rows(size - 1, shape, kind="hadamard") - 1
    whole = np.vstack([np.ones(size), signs])
    assert np.array_equal(whole.T @ whole, size * np.eye(size))


def test_hadamard_labels_of_a_power_of_two_are_sylvesters():
    every = {tuple(row) for row in scipy.linalg.hadamard(64)[1:]}
    found = [tuple(row) for row in 2 * rows(63, (1, 8, 8), kind="hadamard", seed=5) - 1]
    assert len(found) == len(set(found)) == 63
    assert set(found) == every


def test_low_frequency_labels_are_scaled_images_of_the_dct():
    """All of one channel, against scipy's inverse transform of one coefficient, by cycles a pixel."""
    shape = (1, 6, 8)
    found = rows(47, shape, kind="low-frequency")
    order = sorted(np.ndindex(6, 8), key=lambda f: (f[0] / 6) ** 2 + (f[1] / 8) ** 2)[1:]
    cycles = []
    for v, u in order:
        one = np.zeros((6, 8))
        one[v, u] = 1
        image = scipy.fft.idctn(one, norm="ortho").ravel()
        image = (image - image.min()) / np.ptp(image)
        hits = np.flatnonzero(np.abs(found - image).max(1) < 1e-6)
        assert len(hits) == 1
        cycles.append(((v / 6) ** 2 + (u / 8) ** 2, hits[0]))
    ranked = [c for c, _ in sorted(cycles, key=lambda c: c[1])]
    assert ranked == sorted(ranked)  # the lower the frequency, the earlier the label


@pytest.mark.parametrize("shape", SHAPES)
def test_low_frequency_labels_are_orthogonal_without_their_means(shape):
    report = gram_report(orthogonal_labels(10, shape, kind="low-frequency"))
    assert report.max_cosine_centred < 1e-6


def test_low_frequency_labels_use_the_channels_once_the_plane_is_used_up():
    found = orthogonal_labels(8 + 8, (3, 3, 3), kind="low-frequency")
    assert torch.equal(found[:8, 0], found[:8, 1])
    assert torch.equal(found[:8, 0], found[:8, 2])
    assert all(not torch.equal(label[0], label[2]) for label in found[8:])
    assert gram_report(found).max_cosine_centred < 1e-6
    assert torch.allclose(found[8], torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1).expand(3, 3, 3))


@given(st.integers(2, 40), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
def test_blocks_cut_the_plane(num_classes, channels, height, width):
    if num_classes > height * width:
        with pytest.raises(IDCError, match=f"{num_classes} classes"):
            orthogonal_labels(num_classes, (channels, height, width), kind="blocks")
        return
    found = orthogonal_labels(num_classes, (channels, height, width), kind="blocks")
    assert set(found.unique().tolist()) == {0, 1}
    assert torch.equal(found.sum(0), torch.ones(channels, height, width))  # disjoint, and nothing left out
    assert torch.equal(found, found[:, :1].expand_as(found))
    sizes = found[:, 0].flatten(1).sum(1)
    assert sizes.max() - sizes.min() <= 1


def test_blocks_are_rectangles_where_they_can_be():
    found = orthogonal_labels(4, (3, 8, 8), kind="blocks")
    corners = {(int(r), int(c)) for r, c in (label[0].nonzero()[0] for label in found)}
    assert corners == {(0, 0), (0, 4), (4, 0), (4, 4)}
    assert all(label[0].any(0).sum() == label[0].any(1).sum() == 4 for label in found)


def test_blocks_have_the_gram_matrix_of_one_hot_vectors():
    report = gram_report(orthogonal_labels(16, (1, 8, 8), kind="blocks"))
    assert report.max_cosine == 0
    assert report.max_cosine_centred == pytest.approx(1 / 15)
    assert report.max_cosine_signed == pytest.approx(1 - 4 / 16)
    assert report.min_distance == report.mean_distance == pytest.approx(2 / 16)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", [1, 2, 4])
def test_cells_are_constant_and_labels_still_orthogonal(kind, cell):
    labels = orthogonal_labels(4, (3, 16, 8), kind=kind, cell=cell)
    assert labels.shape == (4, 3, 16, 8)
    assert labels.is_contiguous()
    assert (labels.amin((1, 2, 3)) == 0).all()
    assert (labels.amax((1, 2, 3)) == 1).all()
    small = orthogonal_labels(4, (3, 16 // cell, 8 // cell), kind=kind)
    for row, column in np.ndindex(cell, cell):
        assert torch.equal(labels[:, :, row::cell, column::cell], small)
    report, other = gram_report(labels), gram_report(small)  # every value as often as any other: the same geometry
    assert report.max_cosine_signed == pytest.approx(other.max_cosine_signed)
    assert report.max_cosine_centred == pytest.approx(other.max_cosine_centred)


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_gives_a_copy_and_leaves_the_global_generator_alone(kind):
    before = torch.get_rng_state()
    orthogonal_labels(3, (1, 4, 4), kind=kind).zero_()
    orthogonal_labels(3, (1, 4, 4), kind=kind, cell=2).zero_()
    assert orthogonal_labels(3, (1, 4, 4), kind=kind).max() == 1
    assert torch.equal(before, torch.get_rng_state())


def test_kinds_cells_and_drawn_seeds_have_fingerprints_of_their_own():
    settings = [{"kind": kind, "cell": cell} for kind in KINDS for cell in (1, 2)]
    settings += [{"kind": kind, "seed": 1} for kind in ("qr", "hadamard")]
    assert len({fingerprint(orthogonal_labels(5, (1, 8, 8), **s)) for s in settings}) == len(settings)


@pytest.mark.parametrize(
    ("kind", "shape", "cell", "most"),
    [
        ("qr", (1, 4, 4), 1, 16), ("qr", (3, 8, 8), 4, 12), ("hadamard", (1, 4, 4), 1, 15),
        ("hadamard", (3, 8, 8), 4, 11), ("low-frequency", (1, 4, 4), 1, 15), ("low-frequency", (3, 4, 4), 2, 11),
        ("blocks", (3, 4, 4), 1, 16), ("blocks", (3, 4, 4), 2, 4),
    ],
)  # fmt: skip
def test_as_many_labels_as_can_be_orthogonal_and_no_more(kind, shape, cell, most):
    labels = orthogonal_labels(most, shape, kind=kind, cell=cell)
    # Without the constant image that scaling adds, they are still so many directions.
    flat = labels.flatten(1).double()
    assert torch.linalg.matrix_rank(flat - flat.mean(1, keepdim=True)) >= most - 1
    with pytest.raises(IDCError, match=f"{most + 1} classes: expected at most {most} "):
        orthogonal_labels(most + 1, shape, kind=kind, cell=cell)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "onehot"}, "'onehot'.*qr, hadamard, low-frequency, blocks"),
        ({"cell": 3}, "cell 3 for images of 1x10x10"),
        ({"cell": 0}, "cell 0"), ({"cell": -1}, "cell -1"), ({"cell": 2.0}, "cell 2.0"), ({"cell": "2"}, "cell 2"),
        ({"kind": "hadamard"}, "1x10x10, 100 values"),
        ({"kind": "hadamard", "cell": 2}, "in cells of 2, 25 values"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be(settings, message):
    with pytest.raises(IDCError, match=message):
        orthogonal_labels(4, (1, 10, 10), **settings)


@pytest.mark.parametrize("kind", ["qr", "hadamard", "low-frequency", "blocks"])
@pytest.mark.parametrize("cell", [1, 2])
def test_inner_products_rank_labels_as_their_l2_distance_does(kind, cell):
    labels = orthogonal_labels(7, (3, 8, 8), kind=kind, cell=cell)
    weights, offsets = inner_products(labels, published=False)
    signed = 2 * labels.flatten(1) - 1
    random = torch.Generator().manual_seed(0)
    mixed = torch.rand(500, 7, generator=random).pow(4)
    points = mixed / mixed.sum(1, keepdim=True) @ signed + 0.2 * torch.randn(500, 192, generator=random)
    found = points @ weights.T - offsets
    distances = (points[:, None] - signed).square().sum(2)
    assert torch.equal(found.argsort(1, descending=True), distances.argsort(1))
    # A perfect translation stands as far above the others, on average, as with the paper's labels on 3x32x32.
    gaps = []
    for k, values in enumerate(signed @ weights.T - offsets):
        gaps += [(values[k] - v).item() / 192 for j, v in enumerate(values) if j != k]
    papers = 2 * rows(10, (3, 32, 32)) - 1
    gram = papers @ papers.T / 3072
    expected = np.mean([gram[i, i] - gram[i, j] for i in range(10) for j in range(10) if i != j])
    assert np.mean(gaps) == pytest.approx(expected, rel=0.05)


def test_inner_products_of_the_papers_labels_are_plain():
    labels = orthogonal_labels(5, (1, 8, 8))
    weights, offsets = inner_products(labels, published=True)
    assert torch.equal(weights, 2 * labels.flatten(1) - 1)
    assert not offsets.any()
