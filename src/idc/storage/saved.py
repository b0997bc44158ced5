"""A model's folder: ``config.json`` + ``model.safetensors`` (or shards of it) + a card, checked on the way back in.

The config holds hashes of the weights and of itself. A truncated, edited or mismatching file is an error, never a wrong
model. What the config says beyond that is the business of the model's own room.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from idc import zoo
from idc.errors import IDCError
from idc.storage import hub
from idc.storage.files import make_folder, sha256, whole_file, write_json, write_text

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
INDEX = f"{WEIGHTS}.index.json"  # of shards, as the hub has it
_SHARD = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors")
FORMAT = 1
_TRAIN = "check the path, or train one: idc train, idc train-peer"
STORED = ("fp32", "bf16")  # the precisions of a weights file
_KINDS = {
    "classifier": "an IDC",
    "cnn": "a CNN (idc evaluate takes it)",
    "diffusion": "a diffusion model (name it as zdc:ddpm=FOLDER or diffpure:ddpm=FOLDER,classifier=MODEL)",
}
M = TypeVar("M", bound=nn.Module)
_REMEDY = "copy or download the model again, or save it anew"


def digest(values: dict[str, Any]) -> str:
    """SHA-256 of JSON-ready values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write(folder: Path, state: Mapping[str, Tensor], values: dict[str, Any], card: str) -> None:
    """Write the three files; each appears whole or not at all, the config last.

    Args:
        state: the weights.
        values: JSON-ready, what the config says.
        card: text of the model card.
    """
    make_folder(folder)
    (folder / CONFIG).unlink(missing_ok=True)  # until the new one is there, the folder is no model
    _write_tensors(folder / WEIGHTS, state)
    for old in (INDEX, *_shards(folder)):
        (folder / old).unlink(missing_ok=True)
    write_text(folder / CARD, card)
    _sign(folder, {"format": FORMAT} | values | {"weights_sha256": sha256(folder / WEIGHTS)})


def _sign(folder: Path, values: dict[str, Any]) -> None:
    """Write the config, with its own hash."""
    write_json(folder / CONFIG, values | {"config_sha256": digest(values)})


def _unsigned(folder: Path) -> dict[str, Any]:
    """The config of a folder of our own, without its hash."""
    values: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    values.pop("config_sha256")
    return values


def _write_tensors(file: Path, state: Mapping[str, Tensor]) -> None:
    with whole_file(file) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, part, metadata={"format": "pt"})


def _shards(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("model-*.safetensors") if _SHARD.fullmatch(p.name))


def split(folder: Path, largest: int) -> None:
    """Cut the weights of a saved model into files of at most so many bytes, where a host takes no larger ones.

    A single tensor above that size stays whole. What fits already, or is cut already, is left as it is.

    Args:
        folder: as ``write`` left it.
        largest: bytes of a file.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    weights = folder / WEIGHTS
    if not weights.exists() or weights.stat().st_size <= largest:
        return
    state = load_file(weights)
    room = max(1, largest - 200 * len(state) - 1_000)  # besides the header, which names every tensor
    plan = split_torch_state_dict_into_shards(state, max_shard_size=room)
    if not plan.is_sharded:
        return
    for name, tensors in plan.filename_to_tensors.items():
        _write_tensors(folder / name, {tensor: state[tensor] for tensor in tensors})
    write_json(folder / INDEX, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})
    hashes = {name: sha256(folder / name) for name in plan.filename_to_tensors}
    _sign(folder, _unsigned(folder) | {"weights_sha256": hashes})
    weights.unlink()


def locate(source: str, *, revision: str | None = None) -> Path:
    """The folder of a model: a local one as it is, one that comes with the package by its name, a hub id after its
    download. A name means the first of these that there is.

    Raises:
        IDCError: if there is no such model, or no network for a hub id.
    """
    path = Path(os.path.expanduser(source))
    try:
        path.exists()
    except OSError as error:  # a name too long, say
        raise IDCError(source, "a readable path", f"check it ({error.strerror})") from error
    if path.is_dir():
        best, last = path / "best", path / "last"
        if (path / CONFIG).exists():
            return path
        if (best / CONFIG).exists():
            return best  # the folder of a training run stands for its best model
        if not best.exists() and (last / CONFIG).exists():
            raise IDCError(path, "a run that has validated a model", f"go on with it (--resume), or take {last}")
        return path
    if not path.exists() and (shipped := zoo.folder(source)):
        return shipped
    if path.exists() or hub.looks_like_path(source):
        raise IDCError(source, f"a model folder with {CONFIG} and {WEIGHTS}", _TRAIN)
    if zoo.resembles(source):
        known = ", ".join(zoo.names())
        raise IDCError(source, "a model that comes with idc", f"take one of {known}, a folder, or a hub id owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        offline = not hub.reachable()
        fetch = partial(snapshot_download, source, local_files_only=offline)
        folder = Path(fetch(revision=revision, allow_patterns=[CONFIG]))  # its name is the commit's
        # Only now is it known whether this is a model of ours, and which of the files there are its weights.
        weights = _named_weights(folder)
        return Path(fetch(revision=folder.name, allow_patterns=[CONFIG, *weights])) if weights else folder
    except LocalEntryNotFoundError as error:
        raise hub.unreachable(source, "model") from error
    except (HfHubHTTPError, OSError) as error:
        raise IDCError(
            source, "a model on the hub", f"check its name and your access ({type(error).__name__})"
        ) from error


def _named_weights(folder: Path) -> list[str]:
    """The weights files that a config promises, as far as can be told without checking it."""
    try:
        promised = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["weights_sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [name for name in promised if _SHARD.fullmatch(name)] if isinstance(promised, dict) else [WEIGHTS]


def read_config(folder: Path, key: str) -> dict[str, Any]:
    """The content of config.json, checked against its own hash; ``key`` names what it must hold.

    Raises:
        IDCError: if it is missing, damaged or of another kind of model.
    """
    file = folder / CONFIG
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise IDCError(folder, f"a model folder with {CONFIG} and {WEIGHTS}", _TRAIN) from error
    except ValueError as error:
        raise IDCError(file, "whole JSON", _REMEDY) from error
    if not isinstance(values, dict) or key not in values:
        held = next((k for k in _KINDS if isinstance(values, dict) and k in values), None)
        remedy = f"this folder holds {_KINDS[held]}" if held else "this folder holds some other model"
        raise IDCError(file, f"the config of {_KINDS.get(key, key)}", remedy)
    if values.get("format") != FORMAT:
        raise IDCError(file, f"format {FORMAT}, found {values.get('format')}", "update idc: pip install -U idc")
    own = values.pop("config_sha256", None)
    if own != digest(values):
        raise IDCError(file, "its own SHA-256 (it was edited or damaged)", _REMEDY)
    return values


def check_stored(dtype: str) -> None:
    """Refuse what is no precision of a weights file.

    Raises:
        IDCError: for another word.
    """
    if dtype not in STORED:
        raise IDCError(f"dtype {dtype!r}", f"one of {', '.join(STORED)}", "correct it")


def holds(folder: Path, key: str) -> bool:
    """Whether the folder's config is of that kind of model, as far as can be told without checking it."""
    try:
        return key in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def load_weights(module: nn.Module, folder: Path, values: dict[str, Any]) -> None:
    """Give ``module`` the weights that ``read_config`` promised, in its own precision: a bf16 file becomes float32.

    Raises:
        IDCError: if they are missing, are others, or do not fit.
    """
    promised = values.get("weights_sha256")
    files: dict[str, Any] = promised if isinstance(promised, dict) else {WEIGHTS: promised}
    for name, expected in files.items():
        weights = folder / name
        if name != WEIGHTS and not _SHARD.fullmatch(name):  # no path that leads out of the folder
            raise IDCError(folder / CONFIG, "names of shards such as model-00001-of-00002.safetensors", _REMEDY)
        try:
            actual = sha256(weights)
        except OSError as error:
            raise IDCError(weights, "a readable weights file", _REMEDY) from error
        if actual != expected:
            raise IDCError(
                weights,
                f"the weights named in {CONFIG} (their SHA-256 differs: truncated, edited or mixed up)",
                _REMEDY,
            )
    try:
        module.load_state_dict({k: v for name in files for k, v in load_file(folder / name).items()})
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise misfit(folder, error) from error


def load(folder: Path, key: str, build: Callable[[Any], M]) -> tuple[M, dict[str, Any]]:
    """A model from its folder, in evaluation mode and with its card.

    Args:
        key: the kind of model, as ``read_config`` takes it.
        build: the model with fresh weights from what the config holds under ``key``.

    Returns:
        The model, and all that the config says.

    Raises:
        IDCError: if a file is missing, damaged or does not fit.
    """
    values = read_config(folder, key)
    try:
        model = build(values[key])
    except (KeyError, TypeError, ValueError) as error:
        raise misfit(folder, error) from error
    load_weights(model, folder, values)
    model.card = values.get("card", {})
    return model.eval(), values


def misfit(folder: Path, error: Exception) -> IDCError:
    """The error for weights and config that do not belong together."""
    reason = (str(error).strip().splitlines() or [""])[0][:120]
    return IDCError(folder, f"weights that fit {CONFIG} ({reason})", _REMEDY)


def card_lines(card: dict[str, Any]) -> list[str]:
    """The end of a model card: facts, then tables (a mapping, or a list of rows) and lists of sentences."""
    lines = [f"- {key}: {value}" for key, value in card.items() if not isinstance(value, dict | list)]
    for key, content in card.items():
        if not isinstance(content, dict | list) or not content:
            continue
        lines += ["", f"## {key.capitalize()}", ""]
        if isinstance(content, dict):
            lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in content.items())]
        elif isinstance(content[0], dict):
            rows = [content[0].keys(), ["---"] * len(content[0]), *(row.values() for row in content)]
            lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
        else:
            lines += [f"- {sentence}" for sentence in content]
    return [*lines, "", "Adversarial robustness is not implied: measure it before you rely on it.", ""]


def change_card(folder: Path, facts: dict[str, Any]) -> None:
    """Replace facts of a saved model's card, in its config and its text."""
    values = _unsigned(folder)
    old = values.get("card", {})
    values["card"] = old | facts
    first = next(filter(None, card_lines(old)))
    head = (folder / CARD).read_text(encoding="utf-8").partition(first)[0]
    write_text(folder / CARD, head + "\n".join(card_lines(values["card"])))
    _sign(folder, values)
