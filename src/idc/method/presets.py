"""Networks by name: the presets, a mapping of a network's fields, or a YAML file of them."""

from dataclasses import replace
from typing import Any

from idc.errors import IDCError
from idc.method.unet import UNetSpec
from idc.storage.fields import short, take
from idc.storage.yaml_file import YAML_SUFFIXES, read_yaml

_CONVOLUTIONAL: dict[str, Any] = {  # a CNN's layers alone
    "groups": 1, "residual": True, "norm": "batch", "middle_attention": False, "decoder": False,
}  # fmt: skip
PRESETS: dict[str, UNetSpec] = {
    "paper-cifar10": UNetSpec(64, (1, 4), attention_at=(32, 16, 8), head_channels=32, dropout=0.3),
    "paper-cifar100": UNetSpec(64, (1, 4, 8), attention_at=(32, 16, 8), head_channels=64, dropout=0.3),
    "bbdm": UNetSpec(128, (1, 4, 8), res_blocks=2, attention_at=(32, 16, 8), head_channels=64, condition="concat"),
    "nano": UNetSpec(32, (1, 1, 2), groups=8, patch=2, residual=True, position_channels=16),
    # Fewer pixels and more channels than nano: fewer FLOPs, which a processor does faster, and more parameters.
    "nano-patch4": UNetSpec(64, (1, 1), groups=8, patch=4, residual=True, position_channels=16),
    "digits": UNetSpec(32, (1, 1, 1), groups=8, patch=4, residual=True, position_channels=16),
    # A PreActResNet-18's levels and about its cost, at widths 16 and 8.
    "nano-encoder": UNetSpec(16, (1, 2, 4, 8), groups=8, residual=True, decoder=False),
    "nano-encoder-bn": UNetSpec(16, (1, 2, 4, 8), **_CONVOLUTIONAL),
    # At about the same FLOPs on a quarter of the pixels, and for one timestep.
    "nano-encoder-patch2": UNetSpec(32, (1, 3, 4), patch=2, time_embedding=False, **_CONVOLUTIONAL),
    # Three times the FLOPs and the parameters of nano-encoder-patch2: as much as an hour of two cores trains.
    "small-encoder": UNetSpec(64, (1, 2, 4), patch=2, time_embedding=False, **_CONVOLUTIONAL),
    # For a GPU: the levels of a wide ResNet, two fifths of the FLOPs of one pass of the paper's network.
    "base-encoder": UNetSpec(96, (1, 2, 4), res_blocks=2, position_channels=16, time_embedding=False, **_CONVOLUTIONAL),
    "digits-encoder": UNetSpec(8, (1, 2, 4, 8), groups=4, residual=True, decoder=False),
}


def resolve_spec(spec: str | dict[str, Any] | UNetSpec) -> UNetSpec:
    """A spec from a preset's name, from a mapping of its fields (with an optional ``preset`` to start from), or as is.

    Raises:
        IDCError: for an unknown preset or field.
    """
    if isinstance(spec, UNetSpec):
        return spec
    if isinstance(spec, str):
        if spec not in PRESETS:
            remedy = "or give a network's fields in a YAML file"
            raise IDCError(f"preset {short(spec)}", f"one of {', '.join(PRESETS)}", remedy)
        return PRESETS[spec]
    given = dict(spec)
    start = given.pop("preset", None)
    own = take(UNetSpec, given, what="network field")
    if start is not None:
        return replace(resolve_spec(start if isinstance(start, str) else short(start)), **own)
    try:
        return UNetSpec(**own)
    except TypeError as error:
        expected = "at least base_channels and multipliers"
        raise IDCError(f"network {short(own)}", expected, "add them, or a preset") from error


def network_fields(name: str) -> dict[str, Any]:
    """What ``resolve_spec`` takes, from a preset's name or a YAML file.

    Raises:
        IDCError: for a file that cannot be used.
    """
    if not name.endswith(YAML_SUFFIXES):
        return {"preset": name}
    return read_yaml(name, holds="a network's fields", remedy="write for example: preset: nano")


def load_network(name: str) -> UNetSpec:
    """A network from a preset's name or a YAML file of its fields.

    Raises:
        IDCError: for neither.
    """
    return resolve_spec(network_fields(name))
