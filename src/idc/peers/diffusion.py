"""The noise-prediction network that DiffPure and the diffusion classifiers share (DDPM; Ho, Jain and Abbeel, 2020).

x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps with a_t the product of 1 - beta up to t; the network predicts eps. The schedule
and the samplers are those of ``diffusers``.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from idc.errors import IDCError
from idc.storage import hub
from idc.storage.fields import check, setting, short
from idc.storage.saved import SavedModel, device_of
from idc.storage.tensor_file import check_weights
from idc.types import name_classes


@dataclass(frozen=True, slots=True)
class DiffusionConfig:
    """All that defines a diffusion model but its weights.

    Args:
        image_shape: (C, H, W).
        num_classes: K, or 0 for a model that knows no classes.
        channels: of each level of the U-Net; each further level halves the image.
        layers: residual blocks a level.
        attention: which levels, counted from 0, have self-attention besides the middle block.
        patch: the image enters as non-overlapping patch x patch blocks (space to depth).
        groups: of every GroupNorm.
        dropout: inside residual blocks, while training.
        timesteps: T.
        schedule: of beta, as ``diffusers`` names it; "linear" is DDPM's, made for T = 1000.
        betas: T values to use instead of the schedule's.
        class_names: K names; () numbers them.
    """

    image_shape: tuple[int, int, int] = setting(least=1)
    num_classes: int = setting(0, least=0)
    channels: tuple[int, ...] = setting((64, 128, 128), least=1, filled=True)
    layers: int = setting(1, least=1)
    attention: tuple[int, ...] = setting((), least=0)
    patch: int = setting(1, least=1)
    groups: int = setting(16, least=1)
    dropout: float = setting(0.0, least=0, below=1)
    timesteps: int = setting(1000, least=1)
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    betas: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "class_names", name_classes(self.class_names, self.num_classes))
        stride = self.patch * 2 ** (len(self.channels) - 1)
        if any(size % stride for size in self.image_shape[1:]):
            raise IDCError(f"images of {self.image_shape}", f"a size that is a multiple of {stride}", "resize them")
        if any(c % self.groups for c in self.channels):
            raise IDCError(f"channels {short(self.channels)}", f"multiples of groups = {self.groups}", "change either")
        if self.betas and len(self.betas) != self.timesteps:
            raise IDCError(f"{len(self.betas)} betas", f"{self.timesteps}, one a timestep", "give all or none")


def _build_unet(config: DiffusionConfig) -> nn.Module:
    from diffusers import UNet2DModel

    levels = range(len(config.channels))
    channels, height, width = config.image_shape
    attends = [i in config.attention for i in levels]
    net: Any = UNet2DModel(
        sample_size=(height // config.patch, width // config.patch),
        in_channels=channels * config.patch**2,
        out_channels=channels * config.patch**2,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        norm_num_groups=config.groups,
        attention_head_dim=None,  # one head, as DDPM
        dropout=config.dropout,
        num_class_embeds=config.num_classes + 1 if config.num_classes else None,
    )
    made: nn.Module = net
    return made


class Diffusion(SavedModel):
    """eps(x_t, t, class): the noise in an image. Images and noise (B, C, H, W); images on [-1, 1].

    Args:
        config: see ``DiffusionConfig``.
        unet: a ``diffusers.UNet2DModel`` to use instead of a fresh one.
    """

    key, part = "diffusion", "unet"

    def __init__(self, config: DiffusionConfig, unet: nn.Module | None = None) -> None:
        super().__init__(config)
        self.config: DiffusionConfig = config
        self.unet = self.build(config) if unet is None else unet
        self.checkpointing = True  # recompute each evaluation in the backward pass: the memory of one, not of all
        self.alphas: Tensor
        self.register_buffer("alphas", self.scheduler().alphas_cumprod, persistent=False)

    def scheduler(self, *, clip: bool = False, **settings: Any) -> Any:
        """A ``diffusers.DDIMScheduler`` of this model's betas; eta = 1 makes it DDPM's sampler. ``clip``: the x_0 of
        each step is kept in [-1, 1], as DDPM has it; what is to be differentiated leaves it."""
        from diffusers import DDIMScheduler

        config = self.config
        return DDIMScheduler(
            num_train_timesteps=config.timesteps, beta_schedule=config.schedule, clip_sample=clip,
            trained_betas=list(config.betas) or None, **settings,
        )  # fmt: skip

    @property
    def no_class(self) -> int:
        """The label that stands for no class in a class-conditional model."""
        return self.config.num_classes

    def noised(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t for (B,) or () timesteps t; ``x0`` and ``eps`` (B, C, H, W)."""
        a = self.alphas[t].view(-1, 1, 1, 1)
        return a.sqrt() * x0 + (1 - a).sqrt() * eps

    def denoised(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x_0 that ``x_t`` and its noise imply: the inverse of ``noised``."""
        a = self.alphas[t].view(-1, 1, 1, 1)
        return (x_t - (1 - a).sqrt() * eps) / a.sqrt()

    def forward(self, x_t: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
        """The predicted noise, (B, C, H, W) in x_t's type; ``t`` (B,) or (); ``classes`` (B,), none: ``no_class``."""
        if self.checkpointing and torch.is_grad_enabled() and not self.training:
            found: Tensor = checkpoint(self.predict, x_t, t, classes, use_reentrant=False, preserve_rng_state=False)
            return found
        return self.predict(x_t, t, classes)

    def predict(self, x_t: Tensor, t: Tensor, classes: Tensor | None) -> Tensor:
        """``forward`` without checkpointing."""
        if self.config.num_classes and classes is None:
            classes = torch.full((len(x_t),), self.no_class, device=x_t.device)
        return self.through(self.unet, x_t, t, classes).to(x_t.dtype)

    def through(self, unet: Callable[..., Any], x_t: Tensor, t: Tensor, classes: Tensor | None) -> Tensor:
        """The noise as ``unet`` (this model's, or its average) predicts it, in the network's own type."""
        x = nn.functional.pixel_unshuffle(x_t, self.config.patch) if self.config.patch > 1 else x_t
        out: Tensor = unet(x, t, class_labels=classes).sample
        return nn.functional.pixel_shuffle(out, self.config.patch) if self.config.patch > 1 else out

    def samples(self, count: int, random: torch.Generator, *, steps: int = 50) -> Tensor:
        """(count, C, H, W) images in [0, 1] drawn from the model by DDPM's sampler in few steps; of the classes in turn
        if it knows any."""
        scheduler = self.scheduler(clip=True, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        shape, device = (count, *self.config.image_shape), self.alphas.device
        classes = torch.arange(count, device=device) % self.config.num_classes if self.config.num_classes else None
        x = torch.randn(shape, generator=random).to(device)
        for t in scheduler.timesteps:
            noise = torch.randn(shape, generator=random).to(device)
            eps = self(x, t.to(device), classes)
            x = scheduler.step(
                eps, int(t), x, eta=1.0, use_clipped_model_output=True, variance_noise=noise
            ).prev_sample  # fmt: skip
        return ((x + 1) / 2).clamp(0, 1)

    # -- files ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def read(values: dict[str, Any]) -> DiffusionConfig:
        return DiffusionConfig(**values)

    build = staticmethod(_build_unet)

    @staticmethod
    def extent(config: DiffusionConfig) -> tuple[int, int]:
        return len(config.channels) * config.layers, max(config.channels)

    def card_head(self) -> list[str]:
        kind = f"{self.config.num_classes} classes" if self.config.num_classes else "no classes"
        return [f"# Diffusion model, {'x'.join(map(str, self.config.image_shape))}, {kind}", ""]

    @classmethod
    def from_pretrained(  # type: ignore[override]  # as SavedModel's
        cls, source: str | Path, *, device: str | torch.device = "cpu", **options: Any
    ) -> Self:
        """Load a model that ``save_pretrained`` wrote, or any unconditional model of ``diffusers`` (a folder or a hub
        id such as ``google/ddpm-cifar10-32``), in evaluation mode. Arguments as for ``SavedModel``.

        Raises:
            IDCError: if there is none, or a file is missing, damaged or does not fit; for an option that is none.
        """
        place = device_of(options.pop("map_location", device))
        hub.check_options(options)
        path = Path(source).expanduser()
        parts = ("model_index.json", "unet", "scheduler_config.json")
        if any((path / part).exists() for part in parts):
            return cls(*_from_diffusers(str(path), options)).eval().to(place)
        if not path.exists() and not hub.looks_like_path(str(source)):
            return cls(*_from_diffusers(str(source), options)).eval().to(place)
        return super().from_pretrained(source, device=place, **options)


def _from_diffusers(source: str, given: dict[str, Any]) -> tuple[DiffusionConfig, nn.Module]:
    """A ``diffusers`` pipeline of a UNet2DModel and a scheduler, whose betas are taken as they are; weights are read as
    safetensors only."""
    local = Path(source).is_dir()
    offline = bool(given.get("local_files_only")) or (not local and not hub.reachable())
    options: dict[str, Any] = given | {"local_files_only": offline}
    try:
        try:
            unet, scheduler = _parts(source, {}, {}, options)
        except OSError:  # DDPMPipeline.save_pretrained puts them into folders of their own
            unet, scheduler = _parts(source, {"subfolder": "unet"}, {"subfolder": "scheduler"}, options)
        check_weights(unet.state_dict(), unet.state_dict())
    except (OSError, ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        if offline:
            raise hub.unreachable(source, "model") from error
        reason = (str(error).strip().splitlines() or [""])[0][:120]
        raise IDCError(
            source, f"a diffusers pipeline of a UNet2DModel in safetensors ({reason})", "check its name and files"
        ) from error
    made, size = unet.config, unet.config.sample_size
    if made.num_class_embeds or made.class_embed_type:
        raise IDCError(source, "an unconditional UNet2DModel", "use another, or train one: idc train-peer ddpm")
    if scheduler.config.prediction_type != "epsilon" or made.in_channels != made.out_channels:
        raise IDCError(source, "a model that predicts the noise", "use another, or train one: idc train-peer ddpm")
    shape = (made.in_channels, *((size, size) if isinstance(size, int) else size))
    betas = tuple(scheduler.betas.tolist())
    return DiffusionConfig(shape, channels=(16,), timesteps=len(betas), betas=betas), unet


def _parts(source: str, unet: dict[str, str], scheduler: dict[str, str], options: dict[str, Any]) -> tuple[Any, Any]:
    from diffusers import DDPMScheduler, UNet2DModel

    with warnings.catch_warnings():  # of an argument that diffusers gives the hub's library
        warnings.filterwarnings("ignore", message="The `local_dir_use_symlinks` argument", category=UserWarning)
        return (
            UNet2DModel.from_pretrained(source, use_safetensors=True, **unet, **options),
            DDPMScheduler.from_pretrained(source, **scheduler, **options),
        )
