import pytest
import scipy.stats
import torch

from idc.noise import Streams, derive_seed, normal


def test_noise_is_standard_normal():
    values = normal(torch.arange(200), (3, 16, 16), seed=0)
    assert values.shape == (1, 200, 3, 16, 16)
    assert scipy.stats.kstest(values.flatten().numpy()[:100_000], "norm").pvalue > 1e-3
    pairs = values.flatten()
    assert abs(torch.corrcoef(torch.stack([pairs[:-1], pairs[1:]]))[0, 1]) < 0.01


def test_noise_belongs_to_the_image_not_to_its_place():
    ids = torch.tensor([5, 9, 2, 77])
    together = normal(ids, (1, 4, 4), seed=3, draws=3, step=1)
    for place, image in enumerate(ids):
        alone = normal(image.view(1), (1, 4, 4), seed=3, draws=3, step=1)
        assert torch.equal(together[:, place], alone[:, 0])
    assert torch.equal(normal(ids, (1, 4, 4), seed=3, draws=2, step=1), together[:2])


def test_streams_are_independent():
    ids = torch.arange(50)
    streams = [
        normal(ids, (1, 8, 8), seed=seed, draws=2, step=step)[draw].flatten()
        for seed in (0, 1)
        for step in (0, 1)
        for draw in (0, 1)
    ]
    correlation = torch.corrcoef(torch.stack(streams)) - torch.eye(8)
    assert correlation.abs().max() < 0.08  # 4.5 standard errors of 3,200 values
    images = normal(ids, (1, 32, 32), seed=0)[0].flatten(1)
    assert (torch.corrcoef(images) - torch.eye(50)).abs().max() < 0.17


def test_odd_sizes_and_global_generator():
    before = torch.get_rng_state()
    assert normal(torch.arange(2), (1, 3, 3), seed=0).shape == (1, 2, 1, 3, 3)
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_differ_by_key_and_do_not_depend_on_the_process():
    assert derive_seed("a", 1) != derive_seed("a", 2) != derive_seed("b", 2)
    assert derive_seed("step", 0, 7) == 3489756336763783713  # recorded: a change would break resumed runs


def test_a_models_noise_is_that_of_its_images():
    """Inside ``feeding``, random tensors of a batch are those of ``normal``, call by call, whatever the batch."""
    streams = Streams(torch.tensor([7, 3, 11]), 5)
    with streams.feeding(range(2, 4)):
        first, second = torch.randn(6, 2, 2), torch.randn_like(torch.empty(6, 4))
    expected = normal(streams.ids, (2, 2), seed=5, draws=4, step=0)[2:]
    torch.testing.assert_close(first, expected.flatten(0, 1), rtol=0, atol=0)
    torch.testing.assert_close(second, normal(streams.ids, (4,), seed=5, draws=4, step=1)[2:].flatten(0, 1))
    with streams.take(torch.tensor([2])).feeding(range(3, 4)):
        alone = torch.randn((1, 2, 2))
    torch.testing.assert_close(alone[0], first[5], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("draw", "mean", "deviation"),
    [
        (lambda n: torch.rand(n, 5000), 0.5, 12**-0.5),
        (lambda n: torch.rand_like(torch.empty(n, 5000)), 0.5, 12**-0.5),
        (lambda n: torch.empty(n, 5000).normal_(3, 2), 3, 2),
        (lambda n: torch.empty(n, 5000).uniform_(-1, 1), 0, 3**-0.5),
        (lambda n: torch.bernoulli(torch.full((n, 5000), 0.3)), 0.3, 0.21**0.5),
        (lambda n: torch.bernoulli(torch.zeros(n, 5000), 0.3), 0.3, 0.21**0.5),
        (lambda n: torch.ones(n, 5000).bernoulli(0.3), 0.3, 0.21**0.5),
        (lambda n: torch.nn.functional.dropout(torch.ones(n, 5000), 0.25), 1, 3**-0.5),
        (lambda n: torch.nn.Dropout(0.25)(torch.ones(n, 5000)), 1, 3**-0.5),
    ],
)  # fmt: skip
def test_every_kind_of_call_is_answered_with_the_right_distribution(draw, mean, deviation):
    streams = Streams(torch.arange(20), 1)
    state = torch.get_rng_state()
    with streams.feeding(range(1)):
        values = draw(20)
    with streams.feeding(range(1)):
        again = draw(20)
    assert torch.equal(values, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert values.mean().item() == pytest.approx(mean, abs=5 * deviation / 100_000**0.5)
    assert values.std().item() == pytest.approx(deviation, rel=0.02)
    assert not torch.equal(values[0], values[1])


def test_named_generators_and_other_shapes_are_left_alone():
    streams = Streams(torch.arange(3), 1)
    with streams.feeding(range(1)):
        own = torch.randn(3, 2, generator=torch.Generator().manual_seed(4))
        torch.manual_seed(9)
        weights = torch.randn(5, 2)
    assert torch.equal(own, torch.randn(3, 2, generator=torch.Generator().manual_seed(4)))
    torch.manual_seed(9)
    assert torch.equal(weights, torch.randn(5, 2))


def test_streams_of_other_keys_are_unrelated():
    streams = Streams(torch.arange(50), 0)
    first, second = streams.of("a").normal((100,)), streams.of("b", 1).normal((100,))
    assert abs((first * second).mean()) < 5 / 5000**0.5
    assert not torch.equal(streams.of("a").salted(), streams.of("b").salted())
    assert torch.equal(streams.of("a").take(torch.tensor([4])).normal((100,))[0], first[4])
