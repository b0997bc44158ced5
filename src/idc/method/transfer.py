"""Fine-tuning: a network that begins with the weights of another, trained on other classes or another image size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.errors import IDCError

_POSITION = "position"  # the one tensor that depends on the image's size


def begin_with(network: nn.Module, other: nn.Module, *, name: str) -> str:
    """Give a ``BridgeUNet`` the weights of another: of the same layers and channels, for images of any size.

    Position maps (1, P, H, W) of another size are interpolated (bilinear). Nothing in a network depends on the classes:
    they are told apart by their image labels.

    Args:
        name: of the model that ``other`` is from, for the error.

    Returns:
        What was taken over, in words.

    Raises:
        IDCError: if its weights do not fit.
    """
    weights, own, resized = other.state_dict(), network.state_dict(), ""
    if _POSITION in weights and _POSITION in own and weights[_POSITION].shape[1] == own[_POSITION].shape[1]:
        sizes = ["x".join(map(str, held[_POSITION].shape[2:])) for held in (weights, own)]
        resized = f", position maps interpolated from {sizes[0]} to {sizes[1]}" if sizes[0] != sizes[1] else ""
        weights[_POSITION] = _resized(weights[_POSITION], own[_POSITION])
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
        raise IDCError(
            f"weights of {name}",
            "a model of the same network and as many colour channels",
            "leave --preset, --channels and the recipe's network out: they are then the model's",
        )
    network.load_state_dict(weights)
    return f"all {len(weights)} tensors{resized}"


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    if maps.shape == like.shape:
        return maps
    with torch.no_grad():
        return F.interpolate(maps.float(), size=like.shape[2:], mode="bilinear", align_corners=False).to(like.dtype)
