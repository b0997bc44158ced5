"""A classifier whose networks are compiled: the same answers but for rounding, in less time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idc.errors import IDCError
from idc.evaluation.cost import networks_of
from idc.hardware import can_compile
from idc.types import Classifier


def compile_networks(classifier: Classifier, device: torch.device) -> None:
    """Compile the networks of a classifier in place, for batches of any size; the first calls take a minute or more.

    Hooks of a network, and what the classifier does around it, stay as they are.

    Raises:
        IDCError: if it is no module, or there is no compiler.
    """
    if not can_compile(device):
        raise IDCError("--compile", "a C++ compiler (g++), or Triton for a GPU", "install it, or leave the flag out")
    for network in networks_of(classifier):
        network.forward = _for_any_batch(torch.compile(network.forward))


def _for_any_batch(compiled: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.ndim == 4 and len(value) > 1:
                torch._dynamo.maybe_mark_dynamic(value, 0)
        return compiled(*args, **kwargs)

    return forward
