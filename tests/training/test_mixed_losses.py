"""The loss of mixed images, of IDC and of a CNN: the mixture of the losses towards both classes."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from idc.attacks.threat import Threat
from idc.data import ImageSet
from idc.data.mixing import mix
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig
from idc.training.adversarial import random_start
from idc.training.bridge_objective import BridgeObjective
from idc.training.cnn_objective import CNNObjective
from idc.training.recipe import ONE_STEP, CNNRecipe
from tiny import tiny_model

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
CLASSES = torch.arange(6) % 4
DATA = ImageSet((255 * IMAGES).byte(), CLASSES, torch.arange(6), tuple("abcd"), "toys", "train", "")


def idc(**changes):
    return BridgeObjective(tiny_model(), replace(ONE_STEP, precision="fp32", **changes))


def cnn(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CNN(CNNConfig("preact-resnet18", 4, (1, 8, 8), width=8))
    return CNNObjective(model, CNNRecipe(**{"method": "standard"} | changes))


def attacked_idc(**changes):
    """The objective, and the logits that its attack climbs: the model's own surrogate at the attack's temperature."""
    made = BridgeObjective(tiny_model(), replace(ONE_STEP, precision="fp32", eps=0.1, **changes))
    scale = made.model.config.temperature / made.recipe.attack_temperature
    return made, lambda model, images: model.surrogates()["one-step-inner"](images) * scale


def attacked_cnn(**changes):
    made = cnn(method="pgd-at", eps=0.1, **changes)
    return made, lambda model, images: model(images)


def terms(made, images=IMAGES, classes=CLASSES):
    made.to(torch.device("cpu"), bf16=False)
    made.network.eval()
    made.begin(0.5, replay=0)
    # An IDC that predicts each image mirrored: nothing stays of the noise at T-1, which differs from call to call.
    call = made.network if isinstance(made, CNNObjective) else lambda x_t, t, y: x_t - y.flip(-1)
    return made.loss(call, images, classes, torch.Generator().manual_seed(3))


def hinged(**changes):
    return idc(hinge_weight=3.0, **changes)


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
@pytest.mark.parametrize("made", [idc, hinged, cnn])
def test_the_loss_is_the_mixture_of_those_towards_both_classes(made, kind):
    """Against the loss of the mixed images one by one, as images of one class and then of the other."""
    mixed = mix(IMAGES, CLASSES, kind, 1.0, torch.Generator().manual_seed(3))
    found = terms(made(mix=kind))
    for name in found:
        each = [
            share * terms(made(), image[None], own[None])[name]
            + (1 - share) * terms(made(), image[None], other[None])[name]
            for image, own, other, share in zip(mixed.images, CLASSES, mixed.others, mixed.share, strict=True)
        ]
        torch.testing.assert_close(found[name], torch.stack(each).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", [idc, cnn])
def test_a_rate_of_0_changes_nothing_bit_for_bit(made):
    found, plain = terms(made(mix="cutmix", mix_rate=0.0)), terms(made())
    assert {k: v.item() for k, v in found.items()} == {k: v.item() for k, v in plain.items()}


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
@pytest.mark.parametrize("made", [attacked_idc, attacked_cnn])
def test_the_attack_climbs_the_plain_sum_of_both_cross_entropies(made, kind):
    """One step, from the same start, along the sign of the gradient that the test takes itself."""
    objective, logits = made(mix=kind, attack_steps=1, attack_step=0.03)
    objective.to(torch.device("cpu"), bf16=False)
    objective.network.eval()
    objective.begin(0.5, replay=0)
    seen = []
    watch = lambda *given: seen.append(given[-1]) or objective.network(*given)  # noqa: E731  # y is the last of an IDC
    objective.loss(watch, IMAGES, CLASSES, torch.Generator().manual_seed(3))
    random = torch.Generator().manual_seed(3)
    mixed = mix(IMAGES, CLASSES, kind, 1.0, random)
    start = random_start(mixed.images, Threat("linf", 0.1), random).requires_grad_()
    found = logits(objective.model, start)
    both = sum(
        (share * F.cross_entropy(found, classes, reduction="none")).sum()
        for share, classes in ((mixed.share, CLASSES), (1 - mixed.share, mixed.others))
    )
    (gradient,) = torch.autograd.grad(both, start)
    expected = (start + 0.03 * gradient.sign()).clamp(mixed.images - 0.1, mixed.images + 0.1).clamp(0, 1)
    scale = 4 if made is attacked_cnn else 2
    away = (seen[-1] / scale + 0.5 - expected).abs()
    assert (away < 1e-5).float().mean() > 0.99  # where the gradient is next to 0, rounding decides its sign
    assert not torch.allclose(expected, start, atol=0.01)


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
@pytest.mark.parametrize("made", [idc, cnn])
def test_the_loss_of_attacked_mixed_images_is_that_of_mixed_ones(made, kind, monkeypatch):
    """An attack that moves nothing leaves the loss as it is without one."""
    under = {"eps": 0.1, "attack_temperature": 0.02} if made is idc else {"eps": 0.1, "method": "pgd-at"}
    objective = made(mix=kind, **under)
    monkeypatch.setattr(objective, "_attacked", lambda images, *_, **__: images)
    found, plain = terms(objective), terms(made(mix=kind))
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value)


def test_an_idc_mixes_at_the_last_timestep_alone_and_not_in_free_training():
    with pytest.raises(IDCError, match="mix = cutmix with replays = 2"):
        idc(mix="cutmix", eps=0.1, replays=2)
    with pytest.raises(IDCError, match="--t-weights 0,0,0,1"):
        idc(mix="cutmix", t_weights=()).check(DATA)
    idc(mix="cutmix", eps=0.1).check(DATA)
