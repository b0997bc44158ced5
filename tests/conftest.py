"""Fixtures of all tests."""

import sys

import pytest
import torch

from idc import cli
from idc.method.classifier import IDC
from tiny import tiny_model


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
