"""The O(B*K) loss against the plain definition, which stacks (B, K, C, H, W) tensors."""

import pytest
import torch

from idc.cost import peak_bytes
from idc.method.bridge import Bridge
from idc.method.labels import orthogonal_labels
from idc.method.loss import bridge_loss, label_distances, label_logits, squared_hinge


def make(batch=6, classes=5, shape=(3, 4, 4), seed=0, near=None):
    random = torch.Generator().manual_seed(seed)
    labels = 2 * orthogonal_labels(classes, shape) - 1
    c = torch.randint(classes, (batch,), generator=random)
    y = 2 * torch.rand(batch, *shape, generator=random) - 1
    t = torch.randint(4, (batch,), generator=random)
    sample = Bridge().sample(labels[c], y, t, torch.randn(batch, *shape, generator=random))
    output = torch.randn(batch, *shape, generator=random) if near is None else sample.target + near
    return sample, output.requires_grad_(), labels, c


def stacked(sample, output, labels, c, weight=0.2):
    """The paper's losses, term by term, with m_{-1} = 0."""
    m = torch.linspace(0.001, 0.999, 4, dtype=torch.float64)
    before = torch.cat([torch.zeros(1, dtype=torch.float64), m[:-1]])
    var = 2 * (m - m**2)
    totals, intras, inters = [], [], []
    for i in range(len(c)):
        t = sample.t[i]
        noise = var[t].sqrt() * sample.eps[i].double()
        y, x0, u = sample.y[i].double(), sample.x0[i].double(), output[i].double()
        targets = [before[t] * (p.double() - x0) + m[t] * (y - p.double()) + noise for p in labels]
        d = torch.stack([(target - u).abs().mean() for target in targets])
        intra = (m[t] * (y - x0) + noise - u).abs().mean()
        wrong = torch.cat([d[: c[i]], d[c[i] + 1 :]]).min()
        inter = torch.zeros((), dtype=torch.float64) if d.argmin() == c[i] else wrong
        totals.append(intra - weight * inter)
        intras.append(intra)
        inters.append(inter)
    return torch.stack(totals), torch.stack(intras), torch.stack(inters)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("near", [None, 1e-5])
def test_equals_the_stacked_definition(seed, near):
    args = make(seed=seed, near=near, batch=12)
    found, expected = bridge_loss(*args), stacked(*args)
    for mine, theirs in zip((found.total, found.intra, found.inter), expected, strict=True):
        assert torch.allclose(mine.double(), theirs, atol=2e-5)
    assert (found.inter > 0).any() if near is None else (found.inter == 0).all()


def test_gradient_equals_that_of_the_stacked_definition():
    args = make(batch=12)
    (mine,) = torch.autograd.grad(bridge_loss(*args).total.sum(), args[1])
    (theirs,) = torch.autograd.grad(stacked(*args)[0].sum(), args[1])
    assert torch.allclose(mine, theirs.to(mine), atol=1e-6)


def test_gradcheck_of_the_distances():
    sample, output, labels, _ = make(batch=2, classes=3, shape=(1, 2, 2))
    double = {f: getattr(sample, f) for f in ("x_t", "x0", "y", "eps", "target", "gap")}
    from dataclasses import replace

    sample = replace(sample, **{k: v.double() for k, v in double.items()})
    output = output.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda u: label_distances(sample, u, labels.double()), (output,))


def test_weight_zero_is_the_intra_term():
    args = make()
    found = bridge_loss(*args, inter_weight=0)
    assert torch.equal(found.total, found.intra)
    assert torch.allclose(found.intra, (args[0].target - args[1]).abs().flatten(1).mean(1))


def test_logits_against_explicit_distances():
    sample, output, labels, _ = make()
    d = ((sample.x_t - output)[:, None] - labels[None]).abs().flatten(2).mean(2) / 2
    torch.testing.assert_close(label_logits(sample, output, labels), -d / 0.02, rtol=1e-4, atol=1e-4)


def test_the_squared_hinge_image_by_image():
    distances = torch.tensor([[0.1, 0.4, 0.3], [0.1, 0.4, 0.3], [0.2, 0.25, 0.9], [0.5, 0.5, 0.5]])
    classes = torch.tensor([0, 1, 0, 2])
    expected = torch.tensor([0.0, (0.1 + 0.4 - 0.1) ** 2, (0.1 + 0.2 - 0.25) ** 2, 0.01])
    torch.testing.assert_close(squared_hinge(distances, classes, margin=0.1), expected)


def test_memory_grows_with_b_times_k_not_with_b_times_k_times_d():
    args = make(batch=16, classes=200, shape=(3, 16, 16))
    stacked_bytes = 16 * 200 * 3 * 16 * 16 * 4

    def step():
        bridge_loss(*args).total.sum().backward()

    step()
    assert 0 < peak_bytes(step, torch.device("cpu")) < stacked_bytes / 10
