"""A classifier whose networks are compiled: in float32 the same answers but for the last digits, in less time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit

from idc.compute.hardware import can_compile
from idc.errors import IDCError
from idc.types import Classifier

_VARIANTS = 64  # of a network's code: with and without gradient, one image or more, several models in a process


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where that cannot be done.

    Raises:
        IDCError: if there is no compiler.
    """
    if not can_compile(device):
        raise IDCError("to compile", "a C++ compiler (g++), or Triton for a GPU", "install it, or do not compile")


def check_networks(classifier: Classifier) -> tuple[nn.Module, ...]:
    """The networks that may be compiled.

    Raises:
        IDCError: if noise is drawn within one.
    """
    if classifier.stochastic and id(classifier) in map(id, classifier.networks):
        raise IDCError(
            "a model that draws noise",
            "one that names its networks, which draw none: (self.network,), in a property `networks`",
            "add it, or do not compile: compiled code draws noise of its own",
        )
    return classifier.networks


def compile_networks(classifier: Classifier, device: torch.device) -> None:
    """Compile the networks of a classifier in place, for batches of any size; the first calls take a minute or more.

    Hooks of a network, and what the classifier does around it, such as drawing noise, stay as they are: its ``forward``
    alone is replaced. A module around it would run its hooks as compiled code, and give its weights other names.

    Raises:
        IDCError: see ``check_compiler`` and ``check_networks``.
    """
    check_compiler(device)
    for network in check_networks(classifier):
        network.forward = _for_any_batch(torch.compile(network.forward))
    classifier.compiled = True


def _for_any_batch(compiled: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.ndim == 4 and len(value) > 1:
                torch._dynamo.maybe_mark_dynamic(value, 0)
        try:
            with torch._dynamo.config.patch(recompile_limit=_VARIANTS, fail_on_recompile_limit_hit=True):
                return compiled(*args, **kwargs)
        except FailOnRecompileLimitHit as error:
            raise IDCError(
                f"more than {_VARIANTS} compiled variants", "fewer models in a process", "start again: it goes on"
            ) from error

    return forward
