import scipy.stats
import torch

from idc.noise import derive_seed, normal


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
