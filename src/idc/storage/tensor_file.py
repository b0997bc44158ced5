"""Files of ``torch.save``: read without executing anything in them, and only if they are whole."""

import zipfile
from pathlib import Path
from typing import Any

import torch


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
