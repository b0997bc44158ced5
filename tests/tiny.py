"""Models that answer in milliseconds."""

from pathlib import Path

import torch

from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.unet import UNetSpec

TINY = UNetSpec(8, (1,), groups=4, head_channels=8)
# In the place of the preset "digits" where what it learns is no matter.
SMALL_DIGITS = UNetSpec(8, (1,), groups=4, head_channels=8, patch=8, residual=True)


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
