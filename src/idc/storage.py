"""A saved classifier: ``config.json`` + ``model.safetensors`` + a model card, checked on the way back in.

The config holds hashes of the weights, of the labels as they must come out of their seed, and of itself. A truncated,
edited or mismatching file is an error, never a wrong classifier.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from idc import __version__, hub
from idc.bridge import BridgeSpec
from idc.errors import IDCError
from idc.files import sha256, whole_file, write_json, write_text
from idc.unet import UNetSpec, resolve_spec, spec_to_dict

if TYPE_CHECKING:
    from idc.classifier import IDC, IDCConfig

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = 1


def config_to_dict(config: "IDCConfig") -> dict[str, Any]:
    """JSON-ready values; ``config_from_dict`` reads them back."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    values["unet"] = spec_to_dict(config.unet)
    values["bridge"] = dataclasses.asdict(config.bridge)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def config_from_dict(values: dict[str, Any]) -> "IDCConfig":
    """Raises KeyError, TypeError or IDCError for values that do not make a config."""
    from idc.classifier import IDCConfig

    given = dict(values)
    unet: UNetSpec = resolve_spec(given.pop("unet"))
    return IDCConfig(unet=unet, bridge=BridgeSpec(**given.pop("bridge")), **given)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def save(model: "IDC", folder: Path) -> None:
    """Write the three files into ``folder``; each appears whole or not at all, the config last."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    (folder / CONFIG).unlink(missing_ok=True)  # until the new one is there, the folder is no model
    with whole_file(folder / WEIGHTS) as part:
        save_file(state, part, metadata={"format": "pt"})
    values: dict[str, Any] = {
        "format": FORMAT,
        "idc_version": __version__,
        "classifier": config_to_dict(model.config),
        "labels_sha256": model.labels_sha256,
        "weights_sha256": sha256(folder / WEIGHTS),
        "card": model.card,
    }
    write_text(folder / CARD, card_text(model))
    write_json(folder / CONFIG, values | {"config_sha256": _digest(values)})


def locate(source: str, *, revision: str | None = None) -> Path:
    """The folder of a model: a local one as it is, a hub id after its download.

    Raises:
        IDCError: if there is no such model, or no network for a hub id.
    """
    path = Path(os.path.expanduser(source))
    try:
        path.exists()
    except OSError as error:  # a name too long, say
        raise IDCError(source, "a readable path", f"check it ({error.strerror})") from error
    if path.is_dir():
        run = path / "best"  # the folder of a training run stands for its best model
        return run if not (path / CONFIG).exists() and (run / CONFIG).exists() else path
    if path.exists() or hub.looks_like_path(source):
        raise IDCError(source, f"a model folder with {CONFIG} and {WEIGHTS}", "check the path, or train one: idc train")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        offline = not hub.reachable()
        patterns = [CONFIG, WEIGHTS]
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns, local_files_only=offline))
    except LocalEntryNotFoundError as error:
        raise hub.unreachable(source, "model") from error
    except (HfHubHTTPError, OSError) as error:
        raise IDCError(
            source, "a model on the hub", f"check its name and your access ({type(error).__name__})"
        ) from error


def load(source: str, *, revision: str | None = None) -> "IDC":
    """Load a model and check all of it. See ``IDC.from_pretrained``."""
    from idc.classifier import IDC

    folder = locate(source, revision=revision)
    values = read_config(folder)
    remedy = "copy or download the model again, or save it anew"
    weights = folder / WEIGHTS
    try:
        actual = sha256(weights)
    except OSError as error:
        raise IDCError(weights, "a readable weights file", remedy) from error
    if actual != values["weights_sha256"]:
        raise IDCError(
            weights, f"the weights named in {CONFIG} (their SHA-256 differs: truncated, edited or mixed up)", remedy
        )
    try:
        model = IDC(config_from_dict(values["classifier"]))
        state = load_file(weights)
        model.load_state_dict(state)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise IDCError(folder, f"weights that fit {CONFIG} ({reason})", remedy) from error
    if model.labels_sha256 != values["labels_sha256"]:
        raise IDCError(
            folder, "image labels equal to those it was trained with", "report this machine's LAPACK: the QR differs"
        )
    model.card = values.get("card", {})
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json, checked against its own hash."""
    file = folder / CONFIG
    remedy = "copy or download the model again, or save it anew"
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise IDCError(
            folder, f"a model folder with {CONFIG} and {WEIGHTS}", "check the path, or train one: idc train"
        ) from error
    except ValueError as error:
        raise IDCError(file, "whole JSON", remedy) from error
    if not isinstance(values, dict) or "classifier" not in values:
        raise IDCError(file, "the config of an idc model", "this folder holds some other model")
    if values.get("format") != FORMAT:
        raise IDCError(file, f"format {FORMAT}, found {values.get('format')}", "update idc: pip install -U idc")
    digest = values.pop("config_sha256", None)
    if digest != _digest(values):
        raise IDCError(file, "its own SHA-256 (it was edited or damaged)", remedy)
    return values


def card_text(model: "IDC") -> str:
    """The model card: what it is, its classes, data, recipe and figures, in the hub's layout."""
    config, card = model.config, model.card
    parameters = sum(p.numel() for p in model.parameters())
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
        f"- Parameters: {parameters:,}; timesteps visited: {visits} of T = {config.bridge.timesteps}; "
        f"eta = {config.bridge.eta}",
    ]  # fmt: skip
    lines += [f"- {key}: {value}" for key, value in card.items() if not isinstance(value, dict)]
    for key, table in card.items():
        if isinstance(table, dict):
            lines += ["", f"## {key.capitalize()}", "", "| | |", "| --- | --- |"]
            lines += [f"| {name} | {value} |" for name, value in table.items()]
    lines += ["", "Adversarial robustness is not implied: measure it before you rely on it.", ""]
    return "\n".join(lines)
