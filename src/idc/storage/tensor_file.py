"""Files of tensors: safetensors with a checksum, and those of ``torch.save``, of which nothing is executed."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from idc.storage.files import whole_file

_SUM = "sha256"


def save_tensors(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write tensors, and texts ``about`` them, as one file of safetensors, whole or not at all."""
    held, told = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(about or {})
    with whole_file(file) as part:
        save_file(held, part, metadata=told | {_SUM: _sum(held, told)})


def load_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What ``save_tensors`` wrote, on the CPU: the tensors, and the texts about them. A file without a checksum, of
    before there was one, is read as it is.

    Raises:
        ValueError: it cannot be read, or a bit of it was changed.
    """
    try:
        with safe_open(file, "pt") as opened:
            told = dict(opened.metadata() or {})
            held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from error
    if told.pop(_SUM, None) not in (None, _sum(held, told)):
        raise ValueError("its checksum differs")
    return held, told


def _sum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    state = hashlib.sha256(repr(sorted(about.items())).encode())
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


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
