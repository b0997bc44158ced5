"""Tensors out of files: read without executing anything in them, and only if they are whole and of the right kind."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_tensors(file: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU. A file of today's form is a zip archive, whose own checksums are compared
    first: ``torch.load`` does not, and reads a flipped bit as another weight.

    Raises:
        ValueError: a checksum does not fit; it names the damaged record.
        OSError, RuntimeError, EOFError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError: as ``torch.load``, of
            anything else that is no such file, or that holds more than tensors and plain values.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the record {damaged} is damaged")
    return torch.load(file, weights_only=True, map_location="cpu")


def check_weights(held: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Refuse what ``load_state_dict`` would take: numbers of another kind than the network's, which it converts (but
    floats of another size), and NaN or infinite ones, which answer every image alike. It takes an eighth of the time
    that hashing them does.

    Raises:
        ValueError: which names the tensor.
    """
    for name, value in held.items():
        own = network[name]
        if value.dtype != own.dtype and not (value.is_floating_point() and own.is_floating_point()):
            kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (value, own)]
            raise ValueError(f"{name}: {kinds[0]} in the file, {kinds[1]} in the network")
        if value.is_floating_point() and value.numel() and not all(map(torch.isfinite, torch.aminmax(value))):
            raise ValueError(f"{name}: NaN or infinite numbers in the file")
