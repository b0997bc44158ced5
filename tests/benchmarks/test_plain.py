"""The plain implementation that the benchmarks measure against computes what ours does."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from plain import PlainIDC, PlainTraining, class_losses

from idc.attacks.objective import CrossEntropy
from idc.attacks.target import ANSWER, Target
from idc.method.loss import bridge_loss
from idc.noise import Streams, normal
from tiny import tiny_model

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the same step on it")
MODEL = tiny_model()
PLAIN = PlainIDC(MODEL).eval()
IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([0, 1, 2, 3, 0, 1])


def test_labels():
    torch.testing.assert_close(PLAIN.labels(), 2 * MODEL.labels - 1, rtol=0, atol=1e-6)


def test_answers():
    noise = torch.randn(3, 6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    ours = MODEL(IMAGES, noise=noise[[0, 2]])  # visits 3, 1, 0: the noise of the step 1 -> 1 has no weight
    torch.testing.assert_close(PLAIN(IMAGES, noise), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_loss_and_its_gradient(num_classes):
    model = tiny_model(num_classes)
    plain = PlainIDC(model)
    random = torch.Generator().manual_seed(3)
    classes = torch.randint(num_classes, (16,), generator=random)
    images, eps = torch.rand(16, 1, 8, 8, generator=random), torch.randn(16, 1, 8, 8, generator=random)
    t = torch.arange(16) % 4
    labels, y = 2 * model.labels - 1, 2 * images - 1
    sample = model.bridge.sample(labels[classes], y, t, eps)
    terms = bridge_loss(sample, model.unet(sample.x_t, t, y), labels, classes)
    ours = terms.total.mean()
    assert (terms.inter > 0).any()
    assert (terms.inter == 0).any()
    theirs = plain.loss(images, classes, t, eps)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)
    expected = torch.autograd.grad(ours, list(model.unet.parameters()), allow_unused=True)
    found = torch.autograd.grad(theirs, list(plain.unet.parameters()), allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_loss_alone():
    random = torch.Generator().manual_seed(4)
    labels, y, eps, output = (torch.randn(n, 3, 4, 4, generator=random) for n in (5, 8, 8, 8))
    classes, t = torch.randint(5, (8,), generator=random), torch.arange(8) % 4
    sample = MODEL.bridge.sample(labels[classes], y, t, eps)
    m, var = PLAIN.m[t].view(-1, 1, 1, 1), PLAIN.var[t].view(-1, 1, 1, 1)
    theirs = class_losses(sample.target, output, labels, sample.x0, y, m, var, eps, PLAIN.m, t, classes)
    torch.testing.assert_close(theirs, bridge_loss(sample, output, labels, classes).total.mean())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_training_updates_weights_and_their_average(device):
    model, random = tiny_model(4, (3, 8, 8)), np.random.default_rng(0)
    files = []
    for _ in range(4):
        held = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(held, "PNG")
        files.append(held.getvalue())
    training = PlainTraining(PlainIDC(model).to(device), files, [0, 1, 2, 3])
    images, _ = training.batch([2])
    with Image.open(io.BytesIO(files[2])) as picture:
        assert torch.equal((images[0] * 255).round().byte().cpu().permute(1, 2, 0), torch.from_numpy(np.array(picture)))
    name, before = next((n, p.detach().clone()) for n, p in training.plain.unet.named_parameters())
    assert np.isfinite(training.step([0, 1, 2, 3]))
    after = dict(training.plain.unet.named_parameters())[name].detach()
    assert not torch.equal(after, before)
    torch.testing.assert_close(training.average[name], 0.995 * before + 0.005 * after)


def test_gradient_over_draws():
    """Ours, all draws in one batch that shares the first pass, against one pass a draw."""
    ids, draws = torch.arange(6), 4
    _, ours, _ = Target.of(MODEL).gradient(
        ANSWER, IMAGES, CLASSES, Streams(ids, 0), objective=CrossEntropy(), draws=draws
    )
    steps = [normal(ids, (1, 8, 8), seed=0, draws=draws, step=step) for step in (0, 1)]
    noises = [torch.stack([steps[0][d], torch.zeros_like(steps[0][d]), steps[1][d]]) for d in range(draws)]
    theirs = PLAIN.gradient(IMAGES, CLASSES, noises)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)
