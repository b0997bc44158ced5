"""A saved IDC: its config, its card, and the check that its labels come out as they were."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from idc import __version__
from idc.errors import IDCError
from idc.method.bridge import BridgeSpec
from idc.method.config import IDCConfig
from idc.method.unet import UNetSpec, resolve_spec
from idc.storage import saved
from idc.storage.fields import recorded

if TYPE_CHECKING:
    from idc.method.classifier import IDC


def config_from_dict(values: dict[str, Any]) -> IDCConfig:
    """What ``recorded`` made of a config, read. Raises KeyError, TypeError or IDCError for values that make none."""
    given = dict(values)
    unet: UNetSpec = resolve_spec(given.pop("unet"))
    return IDCConfig(unet=unet, bridge=BridgeSpec(**given.pop("bridge")), **given)


def save(model: "IDC", folder: Path) -> None:
    """Write config, weights and card into ``folder``."""
    values = {
        "idc_version": __version__,
        "classifier": recorded(model.config),
        "labels_sha256": model.labels_sha256,
        "card": model.card,
    }
    saved.write(folder, model.state_dict(), values, card_text(model))


def load(source: str, *, revision: str | None = None) -> "IDC":
    """Load a model and check all of it. See ``IDC.from_pretrained``."""
    from idc.method.classifier import IDC

    folder = saved.locate(source, revision=revision)
    model, values = saved.load(folder, "classifier", lambda config: IDC(config_from_dict(config)))
    if model.labels_sha256 != values["labels_sha256"]:
        raise IDCError(
            folder, "image labels equal to those it was trained with",
            "report this machine's LAPACK: the QR differs" if model.config.label_kind == "qr"
            else "use the version of idc that saved it",
        )  # fmt: skip
    return model


def card_text(model: "IDC") -> str:
    """The model card: what it is, its classes, data, recipe and figures, in the hub's layout."""
    config, card = model.config, model.card
    parameters = sum(p.numel() for p in model.parameters())
    rounded = "" if {p.dtype for p in model.parameters()} == {torch.float32} else " (stored in bf16)"
    shape, visits = "x".join(map(str, config.image_shape)), ", ".join(map(str, config.visits))
    lines = [
        "---", "library_name: idc", "license: apache-2.0", "pipeline_tag: image-classification",
        "tags: [image-classification, adversarial-robustness, diffusion]", "---", "",
        f"# Image-to-Image Diffusion Classifier, {config.num_classes} classes, {shape}", "",
        "Translates an image into one of K orthogonal image labels by a Brownian-bridge diffusion model and answers "
        "with the nearest (Mei, Dong and Xu, AAAI 2025).", "",
        "```python", "from idc import IDC", 'model = IDC.from_pretrained("THIS FOLDER OR HUB ID")',
        f"prediction = model.predict(images)  # (B, {', '.join(map(str, config.image_shape))}) in [0, 1]", "```", "",
        f"- Classes: {', '.join(config.class_names[:200])}",
        f"- Image labels: {config.label_kind}, seed {config.label_seed}"
        + (f", in cells of {config.label_cell}x{config.label_cell} pixels" if config.label_cell > 1 else ""),
        f"- Parameters: {parameters:,}{rounded}; timesteps visited: {visits} of T = {config.bridge.timesteps}; "
        f"eta = {config.bridge.eta}",
    ]  # fmt: skip
    return "\n".join([*lines, *saved.card_lines(card)])
