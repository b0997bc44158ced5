"""What a user asks to be evaluated, and how its model and data are opened."""

import importlib
import re
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from idc import data as datasets
from idc import saved
from idc.classifier import IDC
from idc.errors import IDCError
from idc.evaluation.compiled import compile_networks
from idc.evaluation.runner import BLOCK
from idc.evaluation.wrapped import as_classifier
from idc.fraction import fraction
from idc.hardware import uses_bf16
from idc.peers.cnn import CNN
from idc.peers.named import is_named, open_peer
from idc.types import Classifier


def parse_eps(text: str | float) -> float:
    """A radius as people write it: 0.1, or 8/255.

    Raises:
        IDCError: for anything else.
    """
    try:
        if re.fullmatch(r"[\s0-9.eE+/-]+", str(text)):  # no "nan" or "inf"
            return fraction(str(text))
    except (ValueError, ZeroDivisionError):
        pass
    raise IDCError(f"eps {text!r}", "a number such as 0.1 or 8/255", "correct --eps")


def default_eps(norm: str, size: int, channels: int) -> float:
    """8/255 (L-inf) or 0.5 (L2) for colour images; 0.1 or 1.0 for grey ones, whose strokes are coarse."""
    if norm == "linf":
        return 8 / 255 if channels > 1 else 0.1
    return 0.5 if channels > 1 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asks to be evaluated; the fields are the flags of ``idc evaluate``.

    Args:
        model: see ``open_model``.
        data: see ``idc.data.load``.
        protocol: a name in ``idc.evaluation.protocol.PROTOCOLS``.
        eps: radius; None stands for ``default_eps``.
        precision: of the networks, see ``idc.hardware.uses_bf16``.
        compile: see ``idc.evaluation.compiled``.
        chunk, block: see ``Runner``.
        knobs: see ``build_protocol``.
    """

    model: str
    data: str
    protocol: str = "clean"
    split: str = "test"
    norm: str = "linf"
    eps: float | None = None
    limit: int | None = None
    draws: int | None = None
    seed: int = 0
    one_step: bool = False
    visits: tuple[int, ...] | None = None
    eta: float | None = None
    precision: str = "fp32"
    compile: bool = False
    checkpointing: bool = False
    chunk: int = 512
    block: int = BLOCK
    keep: bool = False
    skip_bad: bool = False
    data_name: str | None = None
    knobs: tuple[tuple[str, Any], ...] = ()


def open_factory(name: str) -> nn.Module:
    """Import ``package.module:factory`` (from the working folder too) and call the factory.

    Raises:
        IDCError: if there is no such module or factory, or it fails.
    """
    module, _, factory = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise IDCError(name, f"package.module:factory that can be imported ({error})", "correct the name") from error
    except Exception as error:
        raise IDCError(name, f"a factory that works ({type(error).__name__}: {error})", "mend the factory") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not isinstance(made, nn.Module):
        raise IDCError(name, f"a factory that returns an nn.Module (not {type(made).__name__})", "mend the factory")
    return made.eval()


def _is_factory(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None


def open_model(name: str) -> nn.Module:
    """A saved IDC or CNN (a folder, a run, a hub id), a peer by name, or a user's own module by its factory.

    Raises:
        IDCError: if there is no such model.
    """
    if is_named(name):
        return open_peer(name)
    if _is_factory(name):
        return open_factory(name)
    if re.fullmatch(r"\w+:\w+=.*", name):
        raise IDCError(name, "a peer: diffpure:..., zdc:... or rdc:...", "correct its name")
    folder = saved.locate(name)  # once: for a hub id it asks the network
    return CNN.from_pretrained(folder) if saved.holds(folder, "cnn") else IDC.from_pretrained(folder)


def open_both(request: Request, device: torch.device) -> tuple[Classifier, datasets.ImageSet]:
    """The model on ``device``, and its data in the shape that it takes.

    Raises:
        IDCError: if they do not fit.
    """
    if request.split not in ("train", "validation", "test"):
        raise IDCError(f"split {request.split!r}", "train, validation or test", "correct --split")
    own = open_model(request.model)
    if _is_factory(request.model) and (request.compile or request.precision != "fp32"):
        own = _copy(own, request.model)  # it is changed below, and the factory may hand it out again
    shape = getattr(own, "input_shape", None)
    images = datasets.load(
        request.data, split=cast(datasets.Split, request.split), limit=request.limit, skip_bad=request.skip_bad,
        image_size=shape[1] if shape else None, channels=shape[0] if shape else None,
    )  # fmt: skip
    if isinstance(own, IDC):
        own = _as_asked(own, request, device)
    elif request.one_step or request.visits or request.eta is not None:
        raise IDCError(request.model, "an IDC for --one-step, --visits or --eta", "leave the flag out")
    bf16 = uses_bf16(request.precision, device) and not isinstance(own, IDC)  # which has a boundary of its own
    own = own.to(device)
    for parameter in own.parameters():  # a ScriptModule has no requires_grad_
        parameter.requires_grad_(False)
    classifier = as_classifier(own, input_shape=images.shape, name=request.model, bf16=bf16)
    _check_classes(classifier, images, request.model)
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
    if visits is not None or request.eta is not None:
        model = model.with_answer(visits=visits, eta=request.eta)
    model = model.to(device).with_precision(request.precision)
    model.checkpointing = request.checkpointing
    return model


def _check_classes(classifier: Classifier, images: datasets.ImageSet, name: str) -> None:
    own, remedy = getattr(classifier, "class_names", None), "use data of those classes"
    if own is not None and tuple(own) != images.class_names:
        given, names = ", ".join(images.class_names[:4]), ", ".join(own[:4])
        raise IDCError(f"data with the classes {given}, ...", f"those of {name}: {names}, ...", remedy)
    if classifier.num_classes != images.num_classes:
        raise IDCError(f"data of {images.num_classes} classes", f"the {classifier.num_classes} of {name}", remedy)
