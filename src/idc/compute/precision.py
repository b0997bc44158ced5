"""Half precision with float32 at both ends of a network: where an attack's changes come in, and where they show."""

from typing import Any

import torch
from torch import Tensor, nn

MULTIPLYING = (nn.Linear, nn.modules.conv._ConvNd)


def _autocast(kind: str) -> bool:
    """Whether autocast is on for that kind of device; some, such as "meta", know none. The usual ones are not asked:
    older compilers of torch break the graph there."""
    known = kind in ("cpu", "cuda") or torch.amp.is_autocast_available(kind)
    return known and torch.is_autocast_enabled(kind)


class Float32(nn.Module):
    """Mixed into a layer of float32 weights: it computes in float32 whatever autocast says."""

    weight: Tensor

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kind = x.device.type
        if not _autocast(kind) or self.weight.dtype != torch.float32:
            return super().forward(x, *args, **kwargs)  # of the layer's own class
        with torch.autocast(kind, enabled=False):
            return super().forward(x.float(), *args, **kwargs)


class Float32Input(Float32):
    """The same for a network's first layer: what it makes is rounded, as autocast would have it, but not what it sees.

    A pixel of 8 bits fills bf16's mantissa: between two such values there is none left for an attack.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kind = x.device.type
        found = super().forward(x, *args, **kwargs)
        return found.to(torch.get_autocast_dtype(kind)) if _autocast(kind) else found


class Float32InputConv2d(Float32Input, nn.Conv2d):  # type: ignore[misc]  # it takes what either takes
    """The first layer of nearly every network; here by its name, so that it can be pickled."""


class Float32Linear(Float32, nn.Linear):  # type: ignore[misc]
    """The last one."""


# One class for all layers of a kind: compiled code is made anew for another class.
_MIXED: dict[tuple[Any, Any], type[nn.Module]] = {
    (Float32Input, nn.Conv2d): Float32InputConv2d,
    (Float32, nn.Linear): Float32Linear,
}


def compute_in_float32(layer: nn.Module, kind: type[Float32] = Float32) -> None:
    """Make ``layer``, of whatever class, one of that class and of ``kind``. Weights and their names stay,
    which a module around it would change: in saved models, and for code that reads the layer's weights."""
    own = type(layer)
    if (kind, own) not in _MIXED:
        _MIXED[kind, own] = type(f"{kind.__name__}{own.__name__}", (kind, own), {})
    layer.__class__ = _MIXED[kind, own]


def halve(module: nn.Module, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Make ``module`` one for autocast to bf16, for good: the weights of the layers that multiply are rounded once,
    where autocast would in every call. Layers that may see the image, or make the logits, compute in float32.

    Args:
        module: in evaluation mode, its parameters without gradients.
        image_shape: (C, H, W): convolutions of C channels and linear layers of C*H*W features may see the image.
        num_classes: K: linear layers of K outputs may make the logits.
    """
    channels, height, width = image_shape
    layers = [layer for layer in module.modules() if isinstance(layer, MULTIPLYING) and not isinstance(layer, Float32)]
    for layer in layers:
        linear = isinstance(layer, nn.Linear)
        seen = layer.in_features == channels * height * width if linear else layer.in_channels == channels
        if linear and layer.out_features == num_classes:
            compute_in_float32(layer)
        elif seen:
            compute_in_float32(layer, Float32Input)
        elif not layer._forward_pre_hooks:  # which may make its weights anew
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
