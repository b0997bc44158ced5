"""Half precision with float32 at both ends of a network: where an attack's changes come in, and where they show."""

import torch
from torch import Tensor, nn

MULTIPLYING = (nn.Linear, nn.modules.conv._ConvNd)


def _autocast(kind: str) -> bool:
    """Whether autocast is on for that kind of device; some, such as "meta", know none."""
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


class Float32(nn.Module):
    """Mixed into a layer: it computes in float32 whatever autocast says."""

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if not _autocast(kind):
            return super().forward(x)  # of the layer's own class
        with torch.autocast(kind, enabled=False):
            return super().forward(x.float())


class Float32Input(Float32):
    """The same for a network's first layer: what it makes is rounded, as autocast would have it, but not what it sees.

    A pixel of 8 bits fills bf16's mantissa: between two such values there is none left for an attack.
    """

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        found = super().forward(x)
        return found.to(torch.get_autocast_dtype(kind)) if _autocast(kind) else found


def compute_in_float32(layer: nn.Module, kind: type[Float32] = Float32) -> None:
    """Make ``layer``, of whatever class, one of that class and of ``kind``. Weights and their names stay."""
    own = type(layer)
    if not issubclass(own, kind):
        layer.__class__ = type(f"{kind.__name__}{own.__name__}", (kind, own), {})


def halve(module: nn.Module, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Make ``module`` one for autocast to bf16, for good: the weights of the layers that multiply are rounded once,
    where autocast would in every call. Layers that may see the image, or make the logits, compute in float32.

    Args:
        module: in evaluation mode, its parameters without gradients.
        image_shape: (C, H, W): convolutions of C channels and linear layers of C*H*W features may see the image.
        num_classes: K: linear layers of K outputs may make the logits.
    """
    channels, height, width = image_shape
    for layer in list(module.modules()):
        if isinstance(layer, nn.Linear) and layer.out_features == num_classes:
            compute_in_float32(layer)
        elif getattr(layer, "in_channels", getattr(layer, "in_features", 0)) in (channels, channels * height * width):
            if isinstance(layer, MULTIPLYING):
                compute_in_float32(layer, Float32Input)
        elif isinstance(layer, MULTIPLYING) and not layer._forward_pre_hooks:  # which may make its weights anew
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
