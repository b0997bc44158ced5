"""The loss of mixed images, of IDC and of a CNN: the mixture of the losses towards both classes."""

from dataclasses import replace

import pytest
import torch

from idc.data import ImageSet
from idc.data.mixing import mix
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig
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
    return CNNObjective(model, CNNRecipe(method="standard", label_smoothing=0.1, **changes))


def terms(made, images=IMAGES, classes=CLASSES):
    made.to(torch.device("cpu"), bf16=False)
    made.network.eval()
    made.begin(0.5, replay=0)
    # An IDC that predicts each image mirrored: nothing stays of the noise at T-1, which differs from call to call.
    call = made.network if isinstance(made, CNNObjective) else lambda x_t, t, y: x_t - y.flip(-1)
    return made.loss(call, images, classes, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
@pytest.mark.parametrize("made", [idc, cnn])
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


def test_images_are_not_mixed_under_attack_nor_where_x_t_shows_a_label():
    with pytest.raises(IDCError, match="mix = cutmix with eps"):
        idc(mix="cutmix", eps=0.1)
    with pytest.raises(IDCError, match="mix = mixup with method = pgd-at"):
        CNNRecipe(mix="mixup")
    with pytest.raises(IDCError, match="--t-weights 0,0,0,1"):
        idc(mix="cutmix", t_weights=()).check(DATA)
    idc(mix="cutmix").check(DATA)
