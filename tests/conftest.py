"""Fixtures of all tests."""

import socket

import pytest
import torch

import program
from idc import cost
from idc.method.classifier import IDC
from tiny import tiny_model

cost.peak_rates.__kwdefaults__.update(program.BRIEFLY)


@pytest.fixture
def model() -> IDC:
    return tiny_model()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def connections(monkeypatch) -> list[tuple]:
    """What this process connects to, as (host, port, time limit); nothing of it is answered."""
    asked = []

    def refuse(self, address):
        asked.append((*address, self.gettimeout()))
        raise ConnectionRefusedError

    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


@pytest.fixture
def idc():
    """The program in this process: exit code, stdout, stderr."""

    def call(*args):
        result = program.idc(*args)
        return result.returncode, result.stdout, result.stderr

    return call
