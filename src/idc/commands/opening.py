"""From what a user names to a model and its data: a saved model, a peer, a preset, or a module of the user's."""

import re
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idc import data as datasets
from idc.commands.plugins import is_plugin, plugin, respelled
from idc.commands.request import Request
from idc.compute.compiled import compile_networks
from idc.compute.hardware import uses_bf16
from idc.errors import IDCError
from idc.evaluation.adapter import as_classifier, declared_shape, told_mode
from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.presets import PRESETS, network_fields, resolve_spec
from idc.peers.cnn import CNN
from idc.peers.named import is_named, open_peer
from idc.storage.locate import packaged
from idc.storage.model_folder import SAMPLE
from idc.storage.saved import open_saved
from idc.storage.yaml_file import YAML_SUFFIXES
from idc.types import Classifier


def open_model(name: str) -> nn.Module:
    """A saved IDC or CNN (a folder, a run, a hub id), a peer by name, or a user's own module by its factory.

    Raises:
        IDCError: if there is no such model.
    """
    if is_named(name):
        return open_peer(name)
    if is_plugin(name):
        return plugin(name, nn.Module, partial(_made, name), "a function that returns an nn.Module")
    if re.fullmatch(r"\w+:\w+=.*", name):
        raise IDCError(name, "a peer: diffpure:..., zdc:... or rdc:...", "correct its name")
    if not Path(name).is_dir() and (meant := respelled(name, "model")):
        raise IDCError(name, "package.module:factory for a module of your own", f"write {meant}")
    return open_saved(name, IDC, CNN)


def _made(name: str, found: Any) -> Any:
    """What a function returns. Raises IDCError for a module, which each opening would share."""
    if isinstance(found, nn.Module):
        expected = f"a function that returns it (this is a {type(found).__name__} itself)"
        raise IDCError(name, expected, "write def model(): return ..., and name that")
    return found()


def open_both(request: Request, device: torch.device) -> tuple[Classifier, datasets.ImageSet]:
    """The model on ``device``, and its data in the shape that it takes.

    Raises:
        IDCError: if they do not fit.
    """
    own = open_model(request.model)
    if is_plugin(request.model) and (request.compile or request.precision != "fp32"):
        own = _copy(own, request.model)  # it is changed below, and the factory may hand it out again
    images = _loaded(request, own)
    if is_plugin(request.model) and not declared_shape(own, request.model):
        size = "x".join(map(str, images.shape))
        images = _noted(images, f"the module has no input_shape and is given them at {size}")
    if mode := told_mode(own, request.model):
        images = _noted(images, mode)
    if isinstance(own, IDC):
        own = _as_asked(own, request, device)
    elif request.one_step or request.visits or request.eta is not None or request.mirrored:
        raise IDCError(request.model, "an IDC for --one-step, --visits, --eta or --mirrored", "leave the flag out")
    bf16 = uses_bf16(request.precision, device) and not isinstance(own, IDC)  # which has a boundary of its own
    own = own.to(device)
    for parameter in own.parameters():  # a ScriptModule has no requires_grad_
        parameter.requires_grad_(False)
    classifier = as_classifier(own, input_shape=images.shape, name=request.model, bf16=bf16)
    images = in_its_order(classifier, images, request.model)
    if request.compile:
        compile_networks(classifier, device)
    return classifier, images


def _copy(module: nn.Module, name: str) -> nn.Module:
    try:
        return deepcopy(module)
    except Exception as error:
        remedy = "leave --precision and --compile out"
        raise IDCError(name, f"a module that can be copied ({type(error).__name__}: {error})", remedy) from error


def _as_asked(model: IDC, request: Request, device: torch.device) -> IDC:
    visits = model.one_step_visits if request.one_step else request.visits
    if visits is not None or request.eta is not None or request.mirrored:
        model = model.with_answer(visits=visits, eta=request.eta, mirrored=request.mirrored)
    model = model.to(device).with_precision(request.precision)
    model.checkpointing = request.checkpointing
    return model


def _loaded(request: Request, own: nn.Module) -> datasets.ImageSet:
    """The data in the shape that the model takes: the split that was asked for, else the test split. Of a source
    without splits of its own that is all images, unless the model was trained on some of them: then what the training
    held out."""
    channels, size, _ = declared_shape(own, request.model) or (None, None, None)
    load = partial(
        datasets.load, request.data, skip_bad=request.skip_bad, image_size=size, channels=channels, mixed_sizes=False
    )
    if request.split not in (None, "all") or datasets.has_splits(request.data):
        return load(split=request.split or "test", limit=request.limit)
    whole, card, why = load(split="all"), getattr(own, "card", None), ""
    split: datasets.Split = "all"
    if _trained_on(whole, card if isinstance(card, dict) else {}, request.data):
        why = f"{request.model} was trained on images of {request.data}"
        if not request.split:
            split, why = "test", f"{why}: those that the training held out are judged"
    elif not request.split and is_plugin(request.model):
        why = 'if it was trained on data.load(..., split="train") of these, give --split test'
    images = load(split=split, limit=request.limit) if request.limit or split != "all" else whole
    return _noted(images, why) if why else images


def _noted(images: datasets.ImageSet, note: str) -> datasets.ImageSet:
    """With a line more in the summary."""
    return replace(images, summary=f"{images.summary}\nnote: {note}")


def _trained_on(images: datasets.ImageSet, card: dict[str, Any], source: str) -> bool:
    """By the sample of its training images that a model's card keeps; by the name of the data, if it is older."""
    if SAMPLE in card:
        return images.holds(card[SAMPLE]) > 0
    return str(card.get("Data")) == source


def in_its_order(classifier: Classifier, images: datasets.ImageSet, name: str) -> datasets.ImageSet:
    """The images with their classes numbered as the model numbers them.

    Raises:
        IDCError: if their classes are not the model's.
    """
    own, remedy = tuple(map(str, classifier.class_names)), "use data of those classes"
    if is_plugin(name):
        remedy += ", or correct the module"
    given, names = (", ".join(every[:4]) + ", ..." * (len(every) > 4) for every in (images.class_names, own))
    if own and sorted(own) != sorted(images.class_names):
        raise IDCError(f"data with the classes {given}", f"those of {name}: {names}", remedy)
    if classifier.num_classes != images.num_classes:
        raise IDCError(
            f"data of {images.num_classes} classes ({given})", f"the {classifier.num_classes} of {name}", remedy
        )
    return images.in_order(own) if own else images


def open_model_or_preset(
    name: str, *, num_classes: int | None = None, image_size: int | None = None, channels: int | None = None
) -> IDC:
    """A saved model; or a preset, or a network's YAML file, with fresh weights for data of the given shape.

    Raises:
        IDCError: for a name of none of them.
    """
    if name not in PRESETS and not name.endswith(YAML_SUFFIXES):
        meant = "/" not in name and get_close_matches(name, PRESETS, n=1, cutoff=0.8)
        if meant and not packaged(name) and not Path(name).exists():
            resolve_spec(name)  # misspelt: the error lists what there is
        return IDC.from_pretrained(name)
    return preset_model(name, num_classes=num_classes, image_size=image_size, channels=channels)


def preset_model(
    preset: str, *, num_classes: int | None = None, image_size: int | None = None, channels: int | None = None
) -> IDC:
    """A model of a preset, or of a YAML file of a network's fields, with fresh weights, for the data that the preset is
    made for, or the one that the file starts from, unless told otherwise.

    Raises:
        IDCError: for an unknown preset, a file that cannot be used, or data that the network cannot take.
    """
    given = network_fields(preset)
    spec, preset = resolve_spec(given), str(given.get("preset", ""))
    depth, size = (1, 32) if preset.startswith("digits") else (3, 64) if preset == "bbdm" else (3, 32)
    shape = (channels or depth, image_size or size, image_size or size)
    classes = num_classes or (100 if preset == "paper-cifar100" else 10)
    return IDC(IDCConfig(classes, shape, spec)).eval()
