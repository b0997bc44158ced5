"""Small models shared by the tests."""

import sys
from pathlib import Path

import pytest
import torch

from idc import cli
from idc.classifier import IDC
from idc.config import IDCConfig
from idc.unet import UNetSpec

TINY = UNetSpec(8, (1, 2), groups=4, head_channels=8)


def tiny_model(num_classes: int = 4, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0, **settings: object) -> IDC:
    """An untrained classifier that answers in milliseconds. Weights are made large enough for the chain to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = IDC(IDCConfig(num_classes, shape, TINY, **settings)).eval()
        for parameter in model.unet.net.conv_out.parameters():
            torch.nn.init.normal_(parameter, 0, 0.2)
    return model


def save_digits_model(folder: Path) -> Path:
    """An untrained classifier of 8x8 digits, saved: it answers nearly at random and in milliseconds."""
    tiny_model(10, class_names=tuple("0123456789")).save_pretrained(folder)
    return folder


@pytest.fixture
def model() -> IDC:
    return tiny_model()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def idc(monkeypatch, capsys):
    """The program in this process, which has imported all that takes long: exit code, stdout, stderr."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["idc", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return call
