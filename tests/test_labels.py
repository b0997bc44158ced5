import numpy as np
import pytest
import torch

from idc.errors import IDCError
from idc.labels import fingerprint, gram_report, orthogonal_labels


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
    assert report.min_distance == report.mean_distance == pytest.approx(0.5)


def test_real_labels_are_orthogonal_once_their_mean_is_removed():
    report = gram_report(orthogonal_labels(10, (3, 32, 32)))
    assert report.max_cosine > 0.8  # the common constant image
    assert report.max_cosine_centred < 0.01


@pytest.mark.parametrize(("num_classes", "shape"), [(1, (1, 8, 8)), (65, (1, 8, 8))])
def test_impossible_numbers_of_classes(num_classes, shape):
    with pytest.raises(IDCError, match=f"{num_classes} classes"):
        orthogonal_labels(num_classes, shape)
