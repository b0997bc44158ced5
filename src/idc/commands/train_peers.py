"""What ``idc train-peer`` does: a peer's data, network and recipe, each by its name, put together to a run."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

from idc.commands.defaults import usual_cnn_schedule, usual_size, usual_width
from idc.commands.train import Loading, fresh_weights, load_splits, run_training
from idc.errors import IDCError
from idc.peers.cnn import CNN, CNNConfig
from idc.peers.diffusion import Diffusion, DiffusionConfig
from idc.storage.saved import open_saved
from idc.training.cnn_objective import CNNObjective
from idc.training.noise_objective import NoiseObjective
from idc.training.recipe import ATTACK_SETTINGS, CNN_RECIPES, NOISE_RECIPES, usual_recipe
from idc.training.result import TrainResult
from idc.training.settings import S, override


def choose(recipes: dict[str, S], name: str, data: str, changes: dict[str, Any] | None) -> S:
    """A recipe by name ("auto": digits for digits, else fast), with changes.

    Raises:
        IDCError: for another name, or changes that do not fit.
    """
    name = usual_recipe(data) if name == "auto" else name
    if name not in recipes:
        raise IDCError(f"recipe {name!r}", f"one of {', '.join(recipes)}", "correct its name")
    return override(recipes[name], changes or {})


def start_cnn(
    data: str,
    out: Path,
    *,
    start: str | None = None,
    arch: str | None = None,
    width: int = 0,
    recipe: str = "auto",
    resume: bool = False,
    changes: dict[str, Any] | None = None,
    began: float | None = None,
    say: Callable[[str], object] = print,
    **loading: Unpack[Loading],
) -> TrainResult:
    """Train a CNN: what ``idc train-peer cnn`` does.

    Args:
        data: see ``idc.data.load``.
        out: the run's folder.
        start: a saved CNN (a folder, a run or a hub id) whose weights the training begins with. Network, image size and
            channels are then by default its own; of other classes the last layer is fresh.
        arch, width: see ``CNNConfig``; by default "preact-resnet18", with recipe "auto" narrow for few images, see
            ``usual_width``.
        recipe: a name in ``CNN_RECIPES``, or "auto": digits for digits, else fast with an image size and a schedule for
            these images; ``changes`` override its fields.
        resume, began, say, loading: as for ``start_training``.

    Raises:
        IDCError: for any input that cannot be used.
    """
    began = time.monotonic() if began is None else began
    chosen = choose(CNN_RECIPES, recipe, data, changes)
    if not (chosen.adversarial or resume) and (idle := sorted({"eps", *ATTACK_SETTINGS} & set(changes or {}))):
        given = f"{idle[0]} with method = {chosen.method}, which has no attack"
        raise IDCError(given, "one without the other", "use --method pgd-at, trades or mart, or leave it out")
    own = recipe == "auto" and usual_recipe(data) == "fast"
    begun = open_saved(start, CNN) if start else None
    if begun:
        channels, size, _ = begun.input_shape
        arch, width = arch or begun.config.arch, width or begun.config.width
        loading["image_size"] = loading.get("image_size") or size
        loading["channels"] = loading.get("channels") or channels
    if own and loading.get("image_size") is None:
        loading["image_size"] = usual_size(data)
    train, validation = load_splits(data, say=say, **loading)
    if own:
        chosen = usual_cnn_schedule(len(train), changes)
    arch = arch or "preact-resnet18"
    if recipe == "auto" and arch == "preact-resnet18":
        width = width or usual_width(data, len(train))
    config = CNNConfig(arch, train.num_classes, train.shape, width, train.class_names)
    with fresh_weights(chosen):
        model = CNN(config)
    say(f"{arch}, {config.width} channels wide (--width), method {chosen.method}: {len(train):,} images")
    about = {"data": data, "arch": arch, "width": config.width} | ({"from": start} if start else {})
    told = f"begins with the weights of {start}: {begin_with(model, begun, name=str(start))}" if begun else ""
    objective = CNNObjective(model, chosen)
    return run_training(
        objective, chosen, train, validation, out, resume=resume, about=about, changes=changes, began=began, say=say,
        chosen=told,
    )  # fmt: skip


def begin_with(model: CNN, begun: CNN, *, name: str) -> str:
    """Give ``model`` the weights of ``begun``: all of them, or of other classes all but the last layer's.

    Returns:
        What was taken over, in words.

    Raises:
        IDCError: if its network is another: ``name`` is what the error calls it.
    """
    ours, theirs = (
        f"{c.arch} of width {c.width} for {c.image_shape[0]} channels" for c in (model.config, begun.config)
    )
    if ours != theirs:
        remedy = "leave --arch, --width and --channels out: they are then the model's"
        raise IDCError(f"weights of {name} ({theirs})", f"a {ours}", remedy)
    weights, same = begun.network.state_dict(), model.class_names == begun.class_names
    kept = {key: value for key, value in weights.items() if same or not key.startswith("linear.")}
    model.network.load_state_dict(model.network.state_dict() | kept)
    taken = f"all {len(weights)} tensors" if same else "all but the last layer, which is fresh for other classes"
    return taken + ("; it takes grey images" if model.input_shape[0] == 1 else "")


NETWORKS: dict[str, dict[str, Any]] = {
    # Half the channels and blocks of "ddpm", which is the published network for CIFAR-10.
    "small": {"channels": (64, 128, 128, 128), "layers": 1, "attention": (1,)},
    "ddpm": {"channels": (128, 256, 256, 256), "layers": 2, "attention": (1,), "groups": 32, "dropout": 0.1},
    # For a CPU: an eighth of "small"'s FLOPs.
    "nano": {"channels": (64, 64), "layers": 1, "patch": 2},
    "digits": {"channels": (32, 32), "layers": 1, "patch": 4},
}


def start_ddpm(
    data: str,
    out: Path,
    *,
    start: str | None = None,
    network: str = "auto",
    recipe: str = "auto",
    resume: bool = False,
    changes: dict[str, Any] | None = None,
    began: float | None = None,
    say: Callable[[str], object] = print,
    **loading: Unpack[Loading],
) -> TrainResult:
    """Train a diffusion model: what ``idc train-peer ddpm`` does.

    Args:
        start: a saved diffusion model (a folder, a run or a hub id) whose weights the training begins with. Network,
            noise schedule, image size and channels are then its own, and so, unless ``changes`` say otherwise, is
            whether it is told the class; of other classes their embedding is fresh.
        network: a name in ``NETWORKS``, or "auto": "digits" for digits, else "small".
        recipe: a name in ``NOISE_RECIPES``, or "auto"; ``changes`` override its fields.
        data, out, resume, began, say, loading: as for ``start_cnn``.

    Raises:
        IDCError: for any input that cannot be used.
    """
    began = time.monotonic() if began is None else began
    chosen = choose(NOISE_RECIPES, recipe, data, changes)
    if network != "auto" and network not in NETWORKS:
        raise IDCError(f"network {network!r}", f"one of {', '.join(NETWORKS)}", "correct its name")
    begun = Diffusion.from_pretrained(start) if start else None
    if begun:
        _check_network(begun, network, name=str(start))
        channels, size, _ = begun.config.image_shape
        loading["image_size"] = loading.get("image_size") or size
        loading["channels"] = loading.get("channels") or channels
        if "conditional" not in (changes or {}):
            chosen = override(chosen, {"conditional": begun.config.num_classes > 0})
    elif network == "auto":
        network = "digits" if data == "digits" else "small"
    train, validation = load_splits(data, say=say, **loading)
    names = train.class_names if chosen.conditional else ()
    own: dict[str, Any] = {"image_shape": train.shape, "num_classes": len(names), "class_names": names}
    config = replace(begun.config, **own) if begun else DiffusionConfig(**own, **NETWORKS[network])
    with fresh_weights(chosen):
        model = Diffusion(config)
    told = f"begins with the weights of {start}: {_begin_with(model, begun, name=str(start))}" if begun else ""
    objective = NoiseObjective(model, chosen)
    about = {"data": data, "network": network} | ({"from": start} if start else {})
    return run_training(
        objective, chosen, train, validation, out, resume=resume, about=about, changes=changes, began=began, say=say,
        chosen=told,
    )  # fmt: skip


def _check_network(begun: Diffusion, network: str, *, name: str) -> None:
    """``name`` is what the error calls the model.

    Raises:
        IDCError: if a network is asked for that is not that of ``begun``.
    """
    theirs = asdict(begun.config)
    if any(theirs[key] != value for key, value in NETWORKS.get(network, {}).items()):
        raise IDCError(f"weights of {name}", f"a network {network}", "leave --network out: it is then the model's")


def _begin_with(model: Diffusion, begun: Diffusion, *, name: str) -> str:
    """Give ``model`` the weights of ``begun``: all of them, or of other classes all but their embedding.

    Returns:
        What was taken over, in words.

    Raises:
        IDCError: if its images have other channels, or its network is one that no config of ours describes: ``name`` is
            what the error calls it.
    """
    ours, theirs = model.config.image_shape[0], begun.config.image_shape[0]
    if ours != theirs:
        raise IDCError(f"weights of {name} ({theirs} channels)", f"of {ours}", "leave --channels out")
    weights, same = begun.unet.state_dict(), model.config.class_names == begun.config.class_names
    kept = {key: value for key, value in weights.items() if same or not key.startswith("class_embedding.")}
    fresh = model.unet.state_dict()
    whole = fresh | kept
    if {key: value.shape for key, value in whole.items()} != {key: value.shape for key, value in fresh.items()}:
        raise IDCError(f"weights of {name}", "a network that idc train-peer ddpm made", "begin with one of those")
    model.unet.load_state_dict(whole)
    if same:
        return f"all {len(weights)} tensors"
    return "all but the classes' embedding" + (", which is fresh" if model.config.num_classes else "")
