"""Fixtures of all tests."""

import pytest
import torch

import program
from idc.method.classifier import IDC
from tiny import tiny_model


@pytest.fixture
def model() -> IDC:
    return tiny_model()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def idc():
    """The program in this process: exit code, stdout, stderr."""

    def call(*args):
        result = program.idc(*args)
        return result.returncode, result.stdout, result.stderr

    return call
