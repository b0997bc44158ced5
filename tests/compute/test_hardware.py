"""The choice of memory format and precision: by the device, and without an effect on what is computed."""

from dataclasses import replace

import pytest
import torch

from idc import IDC
from idc.compute.hardware import bf16_pays, unet_format
from idc.training import bridge_objective
from idc.training.recipe import RECIPES
from tiny import tiny_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(("amx", "avx", "pays"), [(True, True, True), (False, True, True), (False, False, False)])
def test_bf16_where_it_is_multiplied(monkeypatch, amx, avx, pays):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert bf16_pays(CPU) == pays
    assert unet_format(CPU) == (torch.channels_last if amx else torch.contiguous_format)
    assert unet_format(CPU, batch_norm=True) == torch.channels_last
    assert tiny_model().with_precision("auto").bf16 == pays


@pytest.mark.parametrize(("norm", "batch_norm"), [("group", False), ("batch", True)])
def test_training_takes_the_format_of_its_norm(norm, batch_norm):
    model = tiny_model()
    model = IDC(replace(model.config, unet=replace(model.config.unet, norm=norm)))
    objective = bridge_objective.BridgeObjective(model, RECIPES["fast"])
    objective.to(CPU, bf16=False)
    assert objective.format == unet_format(CPU, batch_norm=batch_norm)
    assert model.unet.net.conv_in.weight.is_contiguous(memory_format=objective.format)


def test_the_loss_does_not_depend_on_the_format(monkeypatch):
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        monkeypatch.setattr(bridge_objective, "unet_format", lambda device, batch_norm, layout=layout: layout)
        model = tiny_model()
        objective = bridge_objective.BridgeObjective(model, RECIPES["fast"])
        objective.to(CPU, bf16=False)
        weight = model.unet.net.conv_in.weight
        assert weight.is_contiguous(memory_format=layout)
        terms = objective.loss(model.unet, images, torch.arange(4), torch.Generator().manual_seed(1))
        terms["total"].backward()
        found.append((terms["total"].detach(), weight.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
