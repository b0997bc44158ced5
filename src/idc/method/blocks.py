"""The layers of diffusers' U-Net as code compiled for a GPU runs them fast; everywhere else they are diffusers' own.

Convolutions on a GPU want channels last. diffusers' residual block asks for the other format in training, and so does
torch's GroupNorm on a GPU; compiled code then copies every activation back and forth, in both directions. What is here
computes the same, up to rounding, and never leaves the format that it is given.
"""

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from idc.compute.precision import Float32Input

ALIGNED = 8  # channels: what tensor cores take without padding, copied in by every call


def compiled_for_gpu(x: Tensor) -> bool:
    """Whether this is code that is being compiled, for a GPU."""
    return torch.compiler.is_compiling() and x.device.type == "cuda"


class GroupNorm(nn.GroupNorm):
    """The moments of a group are put together from those of its channels, which lie side by side in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return self.by_channel(x) if compiled_for_gpu(x) else super().forward(x)

    def by_channel(self, x: Tensor) -> Tensor:
        """x (B, C, ...) -> the same; float32 under autocast, as torch has it."""
        given, x = x, x.float()
        variances, means = torch.var_mean(x, dim=tuple(range(2, x.ndim)), correction=0)
        variances, means = (v.view(len(x), self.num_groups, -1) for v in (variances, means))
        centre = means.mean(2, keepdim=True)
        variance = (variances + (means - centre).square()).mean(2, keepdim=True)
        scale = torch.rsqrt(variance + self.eps) * self.weight.view(1, self.num_groups, -1)
        shift = self.bias.view(1, self.num_groups, -1) - centre * scale
        shape = (*x.shape[:2], *(1 for _ in x.shape[2:]))
        normed = x * scale.reshape(shape) + shift.reshape(shape)
        return normed if torch.is_autocast_enabled(x.device.type) else normed.to(given.dtype)


def doubled(x: Tensor) -> Tensor:
    """Every pixel as a square of four: (B, C, H, W) -> (B, C, 2H, 2W), in channels last.

    torch's nearest neighbours come back as (B, C, H, W) in memory, and their gradient is summed by atomic additions.
    """
    batch, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None, :].expand(batch, height, 2, width, 2, channels)
    return pixels.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class ResnetBlock(ResnetBlock2D):  # computes what diffusers' own does
    """diffusers' residual block without its copies."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
        if not compiled_for_gpu(input_tensor):
            return super().forward(input_tensor, temb, *args, **kwargs)  # type: ignore[arg-type]  # None: no embedding
        return self.without_copies(input_tensor, temb)

    def without_copies(self, x: Tensor, temb: Tensor | None) -> Tensor:
        """x (B, C, H, W), temb (B, E) or None -> (B, C', H', W')."""
        inside = self.nonlinearity(self.norm1(x))
        if self.upsample is not None:
            x, inside = doubled(x), doubled(inside)
        elif self.downsample is not None:
            x, inside = self.downsample(x), self.downsample(inside)
        inside = self.conv1(inside)
        if self.time_emb_proj is not None:
            temb = self.time_emb_proj(temb if self.skip_time_act else self.nonlinearity(temb))[:, :, None, None]
        if temb is not None and self.time_embedding_norm == "scale_shift":
            scale, shift = temb.chunk(2, dim=1)
            inside = self.norm2(inside) * (1 + scale) + shift
        else:
            inside = self.norm2(inside if temb is None else inside + temb)
        inside = self.conv2(self.dropout(self.nonlinearity(inside)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return (x + inside) / self.output_scale_factor


class AlignedConv2d(nn.Conv2d):
    """Channels of zeros bring the ends of a network, such as RGB, to what tensor cores take."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        more_in, more_out = -self.in_channels % ALIGNED, -self.out_channels % ALIGNED
        if not compiled_for_gpu(x) or not (more_in or more_out):
            return super()._conv_forward(x, weight, bias)
        return self.aligned(x, weight, bias, more_in, more_out)

    def aligned(self, x: Tensor, weight: Tensor, bias: Tensor | None, more_in: int, more_out: int) -> Tensor:
        """The convolution with so many channels of zeros more, which are cut off again."""
        if more_in:  # what is put together of several parts may be of either format
            x = F.pad(x, (0, 0, 0, 0, 0, more_in)).contiguous(memory_format=torch.channels_last)
        weight = F.pad(weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
        bias = None if bias is None else F.pad(bias, (0, more_out))
        return super()._conv_forward(x, weight, bias)[:, : self.out_channels]


class Float32InputAlignedConv2d(Float32Input, AlignedConv2d):  # type: ignore[misc]  # it takes what either takes
    """A network's first layer."""


def for_compiled_code(net: nn.Module) -> None:
    """Give the layers of a diffusers network the forms above. Weights and their names stay.

    Args:
        net: its first layer, ``conv_in``, computes in float32 from now on; see ``Float32Input``.
    """
    forms: dict[type, type[nn.Module]] = {nn.GroupNorm: GroupNorm, ResnetBlock2D: ResnetBlock}
    for layer in net.modules():
        if type(layer) in forms:
            layer.__class__ = forms[type(layer)]
    net.conv_in.__class__, net.conv_out.__class__ = Float32InputAlignedConv2d, AlignedConv2d
