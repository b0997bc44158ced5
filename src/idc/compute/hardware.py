"""What a device is good at, so that the fast way is chosen without being asked for."""

import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from idc.errors import IDCError

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = ("fp32", "bf16", "auto")


def accelerator() -> "Accelerator":
    """This process among those that train together: one, or several on one machine or many."""
    from accelerate import Accelerator

    # Without a GPU, accelerate takes several processes for one each unless it is told that they share the CPU.
    shared = "LOCAL_RANK" in os.environ and not torch.cuda.is_available()
    return Accelerator(cpu=True) if shared else Accelerator()


def bf16_pays(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 matrices itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether "fp32", "bf16" or "auto" (what pays) means bf16 on this device.

    Raises:
        IDCError: for another word.
    """
    if precision not in PRECISIONS:
        raise IDCError(f"precision {precision!r}", f"one of {', '.join(PRECISIONS)}", "correct --precision")
    return bf16_pays(device) if precision == "auto" else precision == "bf16"


def unet_format(device: torch.device, *, batch_norm: bool = False) -> torch.memory_format:
    """The memory format in which a U-Net runs fastest; ``batch_norm``: one with BatchNorm for GroupNorm.

    Convolutions like channels last, GroupNorm on the CPU does not: where AVX-512 is all that multiplies bf16, a step of
    nano takes 1.4 times as long in it. Networks with BatchNorm have no such trouble.
    """
    amx = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    channels_last = device.type == "cuda" or amx or batch_norm
    return torch.channels_last if channels_last else torch.contiguous_format


def cnn_format(width: int) -> torch.memory_format:
    """The memory format of a CNN whose narrowest layers have ``width`` channels: channels last, but where oneDNN's 1x1
    convolutions of stride 2 and fewer than 8 channels end the process in it (torch 2.13, CPUs without AVX-512)."""
    breaks = width < 8 and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return torch.contiguous_format if breaks else torch.channels_last


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs: Triton and a C compiler for a GPU, else a compiler of C++."""
    if device.type == "cuda":
        names = (os.environ.get("CC", "cc"), "gcc", "clang")
        return find_spec("triton") is not None and any(map(shutil.which, names))
    return shutil.which(os.environ.get("CXX", "g++")) is not None
