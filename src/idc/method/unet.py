"""The network U(x_t, t), a pruned U-Net: guided-diffusion's (ADM) layers over ``diffusers.UNet2DModel``."""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

from idc.errors import IDCError
from idc.storage.fields import check, setting


@dataclass(frozen=True, slots=True)
class UNetSpec:
    """A network given in full. ``idc.method.presets`` names the usual ones.

    Args:
        base_channels: channels of the first level.
        multipliers: channels of each level, in units of ``base_channels``; each further level halves the image.
        res_blocks: residual blocks a level of the encoder (one more in the decoder).
        attention_at: downsampling factors at which blocks have self-attention, besides the middle block.
        head_channels: channels of an attention head.
        groups: of every GroupNorm, where there are any.
        dropout: inside residual blocks.
        patch: the image enters as non-overlapping patch x patch blocks (space to depth): 1 in the paper; 2 quarters the
            pixels that every layer works on.
        condition: "none" (the paper: the network sees x_t) or "concat" (BBDM's template: x_t and the image).
        residual: add x_t to the output, so that the network itself only has to learn -x0. Same functions, much
            quicker to train: a network without it spends its first epochs learning to copy the image.
        position_channels: learned maps, one value a pixel (or patch), appended to the input: a convolution alone cannot
            tell where it is, but has to draw labels that differ from place to place.
        norm: "group" (the paper), or "batch": BatchNorm outside of attention, as CNNs have, which a CPU does faster.
            Timesteps share its statistics, and in training those of the noisy x_t: it is meant for networks that
            answer in one step, at T-1, where there is next to no noise.
        middle_attention: whether the middle block has self-attention, as in the paper.
        decoder: whether there is one. Without it (ADM's classifier, the "half U-Net") each place of the last level
            draws its stride x stride pixels by itself (depth to space): labels, unlike images, need no fine detail.
        time_embedding: whether the network is told t. One that answers in one step, at T-1, need not be; only a network
            without a decoder may lack it.
        mirrored: the output is the mean of those for the image and for its mirror image, left to right: twice the FLOPs
            with the same weights, and the same answer to both. Of a model that answers in one step, where x_t is the
            image: on the way to a label it is partly that label, which has no mirror image.
    """

    base_channels: int = setting(least=1)
    multipliers: tuple[int, ...] = setting(least=1, filled=True)
    res_blocks: int = setting(1, least=1)
    attention_at: tuple[int, ...] = setting((), least=1)
    head_channels: int = setting(32, least=1)
    groups: int = setting(32, least=1)
    dropout: float = setting(0.0, least=0, below=1, remedy="use 0.3, as the paper does, or 0")
    patch: int = setting(1, least=1)
    condition: Literal["none", "concat"] = setting("none", remedy="use none, as the paper does")
    residual: bool = False
    position_channels: int = setting(0, least=0, remedy="use 16, or 0 for none")
    norm: Literal["group", "batch"] = setting("group", omit_default=True, remedy="use group, as the paper does")
    middle_attention: bool = setting(True, omit_default=True)
    decoder: bool = setting(True, omit_default=True)
    time_embedding: bool = setting(True, omit_default=True)
    mirrored: bool = setting(False, omit_default=True)

    def __post_init__(self) -> None:
        check(self, remedy="start from a preset and change one field at a time")
        if self.decoder and not self.time_embedding:
            raise IDCError("a decoder without time_embedding", "one of them", "set decoder: false, or leave both")
        for channels in self.channels:
            if channels % self.groups and self.grouped:
                raise IDCError(f"{channels} channels", f"a multiple of groups = {self.groups}", "change base_channels")
        if self.attends and self.channels[-1] % self.head_channels:
            raise IDCError(
                f"head_channels = {self.head_channels}", f"a divisor of {self.channels[-1]}", "change head_channels"
            )

    @property
    def one_step(self) -> bool:
        """Whether the network is for the timestep T-1 alone, where x_t is the image."""
        return self.mirrored or not self.time_embedding

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.base_channels * m for m in self.multipliers)

    @property
    def attends(self) -> bool:
        """Whether there is any self-attention."""
        return self.middle_attention or bool(self.attention_at)

    @property
    def grouped(self) -> bool:
        """Whether there is any GroupNorm; attention has one in any case."""
        return self.norm == "group" or self.attends

    @property
    def stride(self) -> int:
        """Height and width of an image must be multiples of this."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))


def check_image_shape(spec: UNetSpec, shape: tuple[int, int, int]) -> None:
    """Raise IDCError unless images of ``shape`` (C, H, W) pass through the network's strides."""
    channels, height, width = shape
    if channels not in (1, 3, 4):
        raise IDCError(f"{channels} channels", "1, 3 or 4", "convert the images to grey, RGB or RGBA")
    if height % spec.stride or width % spec.stride or min(height, width) < spec.stride:
        size = max(spec.stride, round(max(height, width) / spec.stride) * spec.stride)
        raise IDCError(
            f"image size {height}x{width}",
            f"a multiple of {spec.stride} (the network's stride)",
            f"use --image-size {size} or a preset with fewer levels",
        )


class Dropout(nn.Dropout):
    """torch's dropout, with a quicker mask on the CPU: torch's own is drawn in series, a double an element.

    Here 16 bits of torch's generator decide an element: p is rounded to a multiple of 2^-16, and what is kept is scaled
    by the rate at which it really is. Compiled code has a quick one of its own; where something takes over torch's
    random calls (``idc.noise.PerImage``), those are made as ever.
    """

    def forward(self, x: Tensor) -> Tensor:
        idle = not self.training or self.p in (0, 1) or x.device.type != "cpu"
        if idle or torch.compiler.is_compiling() or has_torch_function_unary(x):
            return super().forward(x)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16).ge_(dropped - 2**15).to(x.dtype).mul_(2**16 / (2**16 - dropped))
        return x * kept.as_strided(x.shape, torch.empty_like(x, device="meta").stride())


class Encoder(nn.Module):
    """The encoder and the middle of a ``diffusers.UNet2DModel``, called as that is without ``return_dict``:
    x (B, C, H, W), t (B,) or () -> a tuple of one, (B, out_channels, H', W') at the size of the last level.

    Args:
        time_embedding: see ``UNetSpec``.
    """

    def __init__(self, unet: Any, out_channels: int, *, time_embedding: bool) -> None:
        super().__init__()
        self.time_proj = unet.time_proj
        self.time_embedding: nn.Module | None = unet.time_embedding if time_embedding else None
        self.conv_in, self.down_blocks, self.mid_block = unet.conv_in, unet.down_blocks, unet.mid_block
        channels = unet.config.block_out_channels[-1]
        self.norm_out = nn.GroupNorm(unet.config.norm_num_groups, channels, eps=unet.config.norm_eps)
        self.conv_out = nn.Conv2d(channels, out_channels, 3, padding=1)
        blocks: list[Any] = [m for m in self.modules() if hasattr(m, "time_emb_proj")]
        for block in () if time_embedding else blocks:  # to which None then stands for no embedding
            block.time_emb_proj, block.time_embedding_norm = None, "default"

    def forward(self, x: Tensor, t: Tensor, *, return_dict: Literal[False]) -> tuple[Tensor]:
        embedded = None
        if self.time_embedding is not None:
            embedded = self.time_embedding(self.time_proj(t.expand(x.shape[0])).to(x.dtype))
        x = self.conv_in(x)
        for block in self.down_blocks:
            x, _ = block(x, embedded)
        x = self.mid_block(x, embedded)
        return (self.conv_out(nn.functional.silu(self.norm_out(x))),)


class BridgeUNet(nn.Module):
    """U(x_t, t): predicts x_t - x0. Images and output (B, C, H, W) on [-1, 1]; t (B,) int64.

    ``net`` is a ``diffusers.UNet2DModel``. Half precision stays inside: the first layer sees the input as it is,
    and the output has its dtype.
    """

    def __init__(self, spec: UNetSpec, shape: tuple[int, int, int]) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        from idc.method.blocks import for_compiled_code  # which imports diffusers too

        check_image_shape(spec, shape)
        self.spec = spec
        depth = spec.patch**2
        height, width = shape[1] // spec.patch, shape[2] // spec.patch
        if spec.position_channels:
            self.position = nn.Parameter(torch.randn(1, spec.position_channels, height, width))
        levels = range(len(spec.multipliers))
        attends = [2**i in spec.attention_at for i in levels]
        unet: Any = UNet2DModel(
            sample_size=(height, width),
            in_channels=shape[0] * depth * (2 if spec.condition == "concat" else 1) + spec.position_channels,
            out_channels=shape[0] * depth,
            block_out_channels=spec.channels,
            layers_per_block=spec.res_blocks,
            down_block_types=tuple("AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attends)),
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            norm_num_groups=spec.groups if spec.grouped else 1,
            attn_norm_num_groups=spec.groups,
            norm_eps=1e-5,
            add_attention=spec.middle_attention,
            attention_head_dim=spec.head_channels,
            dropout=spec.dropout,
            flip_sin_to_cos=True,
            freq_shift=0,
        )
        net = unet
        if not spec.decoder:
            net = Encoder(unet, out_channels=shape[0] * spec.stride**2, time_embedding=spec.time_embedding)
        for name, module in list(net.named_modules()):
            if type(module) is nn.Dropout:
                net.set_submodule(name, Dropout(module.p))
            if spec.norm == "batch" and isinstance(module, nn.GroupNorm) and "attentions" not in name:
                net.set_submodule(name, nn.BatchNorm2d(module.num_channels))
        for_compiled_code(net)
        self.net: nn.Module = net
        self.unfold = spec.patch if spec.decoder else spec.stride
        if spec.norm == "batch":  # GroupNorm on the CPU does not like it, see ``idc.compute.hardware.unet_format``
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    def as_mirrored(self) -> "BridgeUNet":
        """This network, with the same weights, ``mirrored``."""
        other = copy(self)
        for shared in ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks"):
            other.__dict__[shared] = self.__dict__[shared].copy()
        other.__dict__.pop("forward", None)  # compiled code of this one
        other.spec = replace(self.spec, mirrored=True)
        return other

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """``y`` is the image on [-1, 1]; only a "concat" network looks at it."""
        if not self.spec.mirrored:
            return self._predict(x_t, t, y)
        both, conditions = (torch.cat([x, x.flip(-1)]) for x in (x_t, y))
        x0 = both - self._predict(both, t.expand(len(x_t)).repeat(2), conditions)
        return x_t - (x0[: len(x_t)] + x0[len(x_t) :]) / 2

    def _predict(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Of these images alone, whether mirrored or not."""
        x = torch.cat([x_t, y], dim=1) if self.spec.condition == "concat" else x_t
        if self.spec.patch > 1:
            x = nn.functional.pixel_unshuffle(x, self.spec.patch)
        if self.spec.position_channels:
            x = torch.cat([x, self.position.to(x.dtype).expand(x.shape[0], -1, -1, -1)], dim=1)
        out: Tensor = self.net(x, t, return_dict=False)[0]
        if self.unfold > 1:
            out = nn.functional.pixel_shuffle(out, self.unfold)
        out = out.to(x_t.dtype)
        return x_t + out if self.spec.residual else out


def init_normal_(module: nn.Module, std: float = 0.02) -> None:
    """The authors' start: every convolution and linear weight ~ N(0, std), weights of norms ~ N(1, std), biases 0."""
    for child in module.modules():
        if isinstance(child, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.normal_(child.weight, 0.0, std)
        elif isinstance(child, nn.GroupNorm | nn.BatchNorm2d):
            nn.init.normal_(child.weight, 1.0, std)
        else:
            continue
        if child.bias is not None:
            nn.init.zeros_(child.bias)
