"""What a device is good at, so that the fast way is chosen without being asked for."""

import torch


def bf16_pays(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 matrices itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def unet_format(device: torch.device) -> torch.memory_format:
    """The memory format in which a U-Net runs fastest.

    Convolutions like channels last everywhere, but on the CPU GroupNorm does not: in bf16 a training step of the small
    U-Nets takes 1.3 to 1.5 times as long (``benchmarks/speed.py``). Networks with BatchNorm have no such trouble.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
