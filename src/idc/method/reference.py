"""The authors' checkpoints: their .pth file -> ``IDC``.

The file holds ``{"model": state_dict, "ema": {name: tensor}, "epoch", "step"}`` with guided-diffusion's (ADM) names
behind ``denoise_fn.``. The names of our network follow from its spec, so any preset can be imported.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from idc.errors import IDCError
from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.presets import PRESETS, resolve_spec
from idc.method.unet import UNetSpec
from idc.storage.tensor_file import read_tensors

_PREFIX = "denoise_fn."
_SHAPE = (3, 32, 32)
_CLASSES = {"paper-cifar10": 10, "paper-cifar100": 100}
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "qkv": "qkv", "proj_out": "to_out.0"}


def modules(spec: UNetSpec) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(ADM module, diffusers module, names inside), in the order in which ADM numbers its blocks."""
    levels = range(len(spec.multipliers))
    attends = [2**level in spec.attention_at for level in levels]
    last = levels[-1]
    yield "", "", {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}
    yield "", "", {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
    number = 1
    for level in levels:
        for block in range(spec.res_blocks):
            yield f"input_blocks.{number}.0.", f"down_blocks.{level}.resnets.{block}.", _RES_BLOCK
            if attends[level]:
                yield f"input_blocks.{number}.1.", f"down_blocks.{level}.attentions.{block}.", _ATTENTION
            number += 1
        if level != last:
            yield f"input_blocks.{number}.0.", f"down_blocks.{level}.downsamplers.0.", _RES_BLOCK
            number += 1
    yield "middle_block.0.", "mid_block.resnets.0.", _RES_BLOCK
    yield "middle_block.1.", "mid_block.attentions.0.", _ATTENTION
    yield "middle_block.2.", "mid_block.resnets.1.", _RES_BLOCK
    number = 0
    for up, level in enumerate(reversed(levels)):
        for block in range(spec.res_blocks + 1):
            yield f"output_blocks.{number}.0.", f"up_blocks.{up}.resnets.{block}.", _RES_BLOCK
            if attends[level]:
                yield f"output_blocks.{number}.1.", f"up_blocks.{up}.attentions.{block}.", _ATTENTION
            if level and block == spec.res_blocks:
                inner = 2 if attends[level] else 1
                yield f"output_blocks.{number}.{inner}.", f"up_blocks.{up}.upsamplers.0.", _RES_BLOCK
            number += 1


def _split_heads(qkv: Tensor, head_channels: int) -> tuple[Tensor, ...]:
    """ADM's "legacy" order: the rows of ``qkv`` (3C, ...) lie head by head, in each q, then k, then v."""
    channels = qkv.shape[0] // 3
    split = qkv.reshape(channels // head_channels, 3, head_channels, *qkv.shape[1:])
    return tuple(split[:, part].reshape(channels, *qkv.shape[1:]) for part in range(3))


def translate_names(weights: Mapping[str, Tensor], spec: UNetSpec) -> dict[str, Tensor]:
    """A diffusers state dict from one with ADM names (without prefix); names the spec lacks are left out."""
    found: dict[str, Tensor] = {}
    for source, target, inside in modules(spec):
        for theirs, ours in inside.items():
            for kind in ("weight", "bias"):
                tensor = weights.get(f"{source}{theirs}.{kind}")
                if tensor is None:
                    continue
                if inside is _ATTENTION and tensor.ndim == 3:  # their projections are convolutions of width 1
                    tensor = tensor.squeeze(-1)
                if ours == "qkv":
                    for name, part in zip(
                        ("to_q", "to_k", "to_v"), _split_heads(tensor, spec.head_channels), strict=True
                    ):
                        found[f"{target}{name}.{kind}"] = part
                else:
                    found[f"{target}{ours}.{kind}"] = tensor
    return found


def _read(checkpoint: Path) -> dict[str, Any]:
    expected = "a checkpoint of the authors' code (a .pth file with 'model' and 'ema')"
    if not checkpoint.is_file():
        raise IDCError(checkpoint, expected, "check the path")
    try:
        content = read_tensors(checkpoint)
    except UnpicklingError as error:
        raise IDCError(
            checkpoint, expected, "it holds more than tensors, or is no checkpoint; it was not executed"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = f" ({error})" if isinstance(error, ValueError) and "damaged" in str(error) else ""
        raise IDCError(checkpoint, expected, f"it is damaged or some other file{reason}: download it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise IDCError(checkpoint, expected, "this file has no 'model' state")
    return content


def _weights(content: dict[str, Any], raw: bool, checkpoint: Path) -> dict[str, Tensor]:
    name = "model" if raw else "ema"
    chosen = content.get(name)
    if not isinstance(chosen, dict) or not chosen:
        raise IDCError(checkpoint, "averaged weights under 'ema'", "import the plain ones with --raw")
    own = {k.removeprefix(_PREFIX): v for k, v in chosen.items() if k.startswith(_PREFIX) and isinstance(v, Tensor)}
    if not own:
        raise IDCError(
            checkpoint, f"names that begin with {_PREFIX!r} under {name!r}", "this is another project's file"
        )
    for tensor_name, value in own.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise IDCError(f"{checkpoint}: {tensor_name[:80]}", "finite floating-point weights", "download it again")
    return {k: v.to(torch.float32) for k, v in own.items()}


def _fits(weights: Mapping[str, Tensor], spec: UNetSpec, state: Mapping[str, Tensor]) -> bool:
    shapes = {k: v.shape for k, v in translate_names(weights, spec).items()}
    count = sum(3 if ".qkv." in k else 1 for k in weights)
    return shapes == {k: v.shape for k, v in state.items()} and len(shapes) == count


def _fitting_preset(weights: Mapping[str, Tensor]) -> str | None:
    from idc.method.unet import BridgeUNet

    for name, spec in PRESETS.items():
        with torch.device("meta"):
            state = BridgeUNet(spec, _SHAPE).net.state_dict()
        if _fits(weights, spec, state):
            return name
    return None


def _check_schedule(content: dict[str, Any], model: IDC, checkpoint: Path) -> None:
    for name, ours in (("m_t", model.bridge.m_t), ("variance_t", model.bridge.var_t)):
        theirs = content["model"].get(name)
        if theirs is not None and (theirs.shape != ours.shape or not torch.allclose(theirs.float(), ours, atol=1e-5)):
            raise IDCError(
                checkpoint, f"the paper's schedule {name} of 4 timesteps", "it was trained with another bridge"
            )


def import_reference(
    checkpoint: Path,
    *,
    preset: str,
    raw: bool = False,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> IDC:
    """A classifier from a checkpoint of the paper's authors.

    Args:
        checkpoint: their .pth file; read with ``weights_only=True``, so nothing in it is executed.
        preset: the network that it holds, such as "paper-cifar10".
        raw: the plain weights instead of the averaged (EMA) ones.
        num_classes: K; by default that of the preset's data set.
        class_names: by default CIFAR-10's for 10 classes, else numbers.

    Raises:
        IDCError: if the file is no such checkpoint, or holds another network.
    """
    spec = resolve_spec(preset)
    content = _read(checkpoint)
    weights = _weights(content, raw, checkpoint)
    classes = num_classes or _CLASSES.get(preset, 10)
    names = tuple(class_names or (_CIFAR10 if classes == 10 else ()))
    model = IDC(IDCConfig(classes, _SHAPE, spec, class_names=names))
    network = model.unet.get_submodule("net")
    if not _fits(weights, spec, network.state_dict()):
        fitting = _fitting_preset(weights)
        remedy = f"use --preset {fitting}" if fitting else "no preset fits: it may be incomplete or of another network"
        raise IDCError(checkpoint, f"the {len(network.state_dict())} tensors of {preset}", remedy)
    _check_schedule(content, model, checkpoint)
    network.load_state_dict(translate_names(weights, spec))
    kind = "plain" if raw else "averaged (EMA)"
    source = f"{checkpoint.name}, {kind} weights, epoch {content.get('epoch')}, step {content.get('step')}"
    model.card = {"Source": f"the paper's authors: {source}"}
    return model.eval()
