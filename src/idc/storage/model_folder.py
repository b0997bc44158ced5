"""The files of a saved model: ``config.json``, ``model.safetensors`` (or shards of it) and a card.

The config holds hashes of the weights and of itself. A truncated, edited or mismatching file is an error, never a wrong
model. What the config says beyond that is the business of ``idc.storage.saved`` and of the model's own module.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from idc.errors import IDCError
from idc.storage.files import digest, make_folder, parse_json, sha256, whole_file, write_json, write_text
from idc.text import in_markdown, table_row

if TYPE_CHECKING:  # ``idc models`` reads cards and headers, and does not wait for torch
    from torch import Tensor

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
INDEX = f"{WEIGHTS}.index.json"  # of shards, as the hub has it
_SHARD = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors")
FORMAT = 1
SAMPLE = "training images"  # fact of a card: see ``idc.data.ImageSet.sample``
TRAIN = "check the path, or train one: idc train, idc train-peer"
_KINDS = {  # in words, for errors: the module of another kind need not have been imported
    "classifier": "an IDC",
    "cnn": "a CNN (idc evaluate takes it)",
    "diffusion": "a diffusion model (name it as zdc:ddpm=FOLDER or diffpure:ddpm=FOLDER,classifier=MODEL)",
}
_REMEDY = "copy or download the model again, or save it anew"


def write(folder: Path, state: Mapping[str, "Tensor"], values: dict[str, Any], card: str) -> None:
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
    values: dict[str, Any] = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
    values.pop("config_sha256")
    return values


def _write_tensors(file: Path, state: Mapping[str, "Tensor"]) -> None:
    from safetensors.torch import save_file

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
    from safetensors.torch import load_file

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


def named_weights(folder: Path) -> list[str]:
    """The weights files that a config promises, as far as can be told without checking it."""
    try:
        promised = parse_json((folder / CONFIG).read_text(encoding="utf-8"))["weights_sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [name for name in promised if _SHARD.fullmatch(name)] if isinstance(promised, dict) else [WEIGHTS]


def read_config(folder: Path, kinds: Collection[str]) -> dict[str, Any]:
    """The content of config.json, checked against its own hash; ``kinds`` are the keys of which it must hold one.

    Raises:
        IDCError: if it is missing, damaged or of another kind of model.
    """
    file = folder / CONFIG
    try:
        values: Any = parse_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise IDCError(folder, f"a model folder with {CONFIG} and {WEIGHTS}", TRAIN) from error
    except ValueError as error:
        raise IDCError(file, "whole JSON", _REMEDY) from error
    held = set(values) if isinstance(values, dict) else set()
    if held.isdisjoint(kinds):
        found = next((words for key, words in _KINDS.items() if key in held), "some other model")
        wanted = " or ".join(_KINDS.get(key, key).partition(" (")[0] for key in kinds)
        raise IDCError(file, f"the config of {wanted}", f"this folder holds {found}")
    if values.get("format") != FORMAT:
        raise IDCError(file, f"format {FORMAT}, found {values.get('format')}", "update idc: pip install -U idc")
    own = values.pop("config_sha256", None)
    if own != digest(values):
        raise IDCError(file, "its own SHA-256 (it was edited or damaged)", _REMEDY)
    return values


def weights_files(folder: Path, values: dict[str, Any]) -> list[Path]:
    """The weights files that ``read_config`` promised, each checked against its hash.

    Raises:
        IDCError: if one is missing, or another.
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
    return [folder / name for name in files]


def shapes(*files: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in weights files, from their headers alone.

    Raises:
        SafetensorError, OSError: for another file.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, framework="numpy") as opened:
            found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return found


def read_state(files: list[Path]) -> dict[str, "Tensor"]:
    """All tensors of weights files, as stored."""
    from safetensors.torch import load_file

    return {name: value for file in files for name, value in load_file(file).items()}


def misfit(folder: Path, error: Exception) -> IDCError:
    """The error for weights and config that do not belong together."""
    reason = (str(error).strip().splitlines() or [""])[0][:120]
    return IDCError(folder, f"weights that fit {CONFIG} ({reason})", _REMEDY)


def card_lines(card: dict[str, Any]) -> list[str]:
    """The end of a model card: facts, then tables (a mapping, or a list of rows) and lists of sentences; but for
    ``SAMPLE``, which says nothing to people."""
    card = {key: value for key, value in card.items() if key != SAMPLE}
    facts = {key: value for key, value in card.items() if not isinstance(value, dict | list)}
    lines = [f"- {in_markdown(key)}: {in_markdown(value)}" for key, value in facts.items()]
    for key, content in card.items():
        if not isinstance(content, dict | list) or not content:
            continue
        lines += ["", f"## {in_markdown(key).capitalize()}", ""]
        if isinstance(content, dict):
            lines += ["| | |", "| --- | --- |", *(table_row(*map(in_markdown, row)) for row in content.items())]
        elif isinstance(content[0], dict):
            rows = [content[0].keys(), ["---"] * len(content[0]), *(row.values() for row in content)]
            lines += [table_row(*map(in_markdown, row)) for row in rows]
        else:
            lines += [f"- {in_markdown(sentence)}" for sentence in content]
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
