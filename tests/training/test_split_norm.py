"""A BatchNorm with two statistics beside two BatchNorms; what is saved of it is a plain network."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from idc import IDC
from idc.data.strong import strongly_augmented
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig
from idc.training.cnn_objective import CNNObjective
from idc.training.recipe import CNNRecipe
from idc.training.split_norm import halves, plain_norms, split_norms


def norm(seed=0):
    made = nn.BatchNorm2d(3)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in (made.weight, made.bias, made.running_mean):
            value.copy_(torch.randn(3, generator=random))
    return made


@pytest.mark.parametrize("copies", [1, 2])
def test_two_statistics_are_those_of_two_norms(copies):
    """In training and in evaluation; in a batch of clean and attacked images the halves take turns."""
    split, base, strong = norm(), norm(), norm()
    split_norms(split)
    random = torch.Generator().manual_seed(1)
    for step in range(3):
        first, second = torch.randn(2, copies, 4, 3, 5, 5, generator=random)
        x = torch.cat([half for pair in zip(first, 2 * second + 1, strict=True) for half in pair])
        if step == 2:
            for module in (split, base, strong):
                module.eval()
        with halves(split, 4):
            found = split(x).unflatten(0, (copies, 2, 4))
        torch.testing.assert_close(found[:, 0].flatten(0, 1), base(first.flatten(0, 1)))
        torch.testing.assert_close(found[:, 1].flatten(0, 1), strong((2 * second + 1).flatten(0, 1)))
        torch.testing.assert_close(split.running_mean, base.running_mean)
        torch.testing.assert_close(split.running_var, base.running_var)
        torch.testing.assert_close(split.strong_mean, strong.running_mean)
        torch.testing.assert_close(split.strong_var, strong.running_var)
    assert split.num_batches_tracked == 2
    torch.testing.assert_close(split(first[0]), base(first[0]))  # outside, it is a plain one


def test_the_gradient_is_that_of_two_norms():
    split, base = norm(), norm()
    strong = deepcopy(base)
    strong.weight, strong.bias = base.weight, base.bias
    split_norms(split)
    x = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    with halves(split, 4):
        split(x).square().cos().sum().backward()
    (base(x[:4]).square().cos().sum() + strong(x[4:]).square().cos().sum()).backward()
    torch.testing.assert_close(split.weight.grad, base.weight.grad)
    torch.testing.assert_close(split.bias.grad, base.bias.grad)


def objective(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CNN(CNNConfig("preact-resnet18", 4, (1, 8, 8), width=8))
    made = CNNObjective(model, CNNRecipe(eps=0.1, attack_steps=1, strong_branch=True, **changes))
    made.to(torch.device("cpu"), bf16=False)
    made.begin(0.5, replay=0)
    return made


IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["pgd-at", "trades"])
def test_a_step_is_of_both_halves_and_what_is_saved_is_plain(tmp_path, method):
    made = objective(method=method, weight_perturbation=0.01, rectify=(0.5, 0.5))
    made.network.train()
    seen = []
    call = lambda x: seen.append(x) or made.network(x)  # noqa: E731
    made.loss(call, IMAGES, torch.arange(6) % 4, torch.Generator().manual_seed(3))["total"].backward()
    made.end()
    assert len(seen[0]) == 12 * (1 if method == "pgd-at" else 2)
    state = made.network.state_dict()
    means = [(state[n.replace("strong", "running")], v) for n, v in state.items() if n.endswith("strong_mean")]
    assert means
    assert not any(torch.equal(*pair) for pair in means)
    made.save(made.network, tmp_path, {})
    loaded = CNN.from_pretrained(tmp_path)
    assert not [name for name in loaded.state_dict() if "strong" in name]
    made.network.eval()
    torch.testing.assert_close(loaded(IMAGES), made.model(IMAGES))
    kept = {n: v.clone() for n, v in state.items()}
    with torch.no_grad():
        for value in made.network.parameters():
            value.add_(1)
    made.load(made.network, tmp_path)
    assert all(torch.equal(v, kept[n]) for n, v in made.network.state_dict().items())
    assert type(plain_norms(made.network).blocks[0].norm1) is nn.BatchNorm2d
    assert made.network.blocks[0].norm1.strong_mean is not None


def test_the_batch_is_the_images_and_as_many_augmented_ones():
    made = objective()
    images, targets = made.batch(IMAGES, torch.arange(6) % 4, torch.Generator().manual_seed(3))
    assert torch.equal(images[:6], IMAGES)
    assert torch.equal(images[6:], strongly_augmented(IMAGES, torch.Generator().manual_seed(3)))
    assert targets.classes.tolist() == [0, 1, 2, 3, 0, 1] * 2
    with pytest.raises(IDCError, match="mix = cutmix with strong_branch"):
        CNNRecipe(mix="cutmix", strong_branch=True)


def test_a_network_without_batch_norm_has_no_second_statistics():
    with pytest.raises(IDCError, match="without BatchNorm"):
        split_norms(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.GroupNorm(2, 4)))


def test_an_idc_has_a_branch_too(tmp_path):
    from dataclasses import replace

    from idc.training.bridge_objective import BridgeObjective
    from idc.training.recipe import Recipe
    from tiny import tiny_model

    model = tiny_model()
    model = IDC(replace(model.config, unet=replace(model.config.unet, norm="batch", middle_attention=False)))
    made = BridgeObjective(model, Recipe(eps=0.1, ce_weight=1.0, method="trades", strong_branch=True, rollout=0.5))
    made.to(torch.device("cpu"), bf16=False)
    made.begin(0.5, replay=0)
    made.network.train()
    made.loss(made.network, IMAGES, torch.arange(6) % 4, torch.Generator().manual_seed(3))["total"].backward()
    made.save(made.network, tmp_path, {})
    assert not [name for name in IDC.from_pretrained(tmp_path).state_dict() if "strong" in name]
