"""Which model a result is of: by its weights, by what they do not show, and by its answers."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from idc.attacks.target import ANSWER, Target
from idc.noise import Streams, derive_seed
from idc.storage.fields import recorded
from idc.types import Classifier

PROBED = 4  # images, the first of an evaluation
_NUMBERS = 8  # that are kept of the logits of each
_NEAR = {"fp32": 1e-3, "bf16": 0.05}  # what devices, threads and compiled code may change, of the largest number


def model_fingerprint(classifier: Classifier) -> str:
    """A digest of a module's weights and buffers, so that no result is continued with another model."""
    state = hashlib.sha256(type(classifier).__qualname__.encode())
    if isinstance(classifier, nn.Module):
        for name, tensor in sorted(classifier.state_dict().items()):
            state.update(name.encode())
            state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
                         if tensor.ndim else repr(tensor.item()).encode())  # fmt: skip
    return state.hexdigest()


def describe_model(classifier: Classifier, name: str) -> dict[str, Any]:
    """What tells a classifier from others: its name, its weights, and the configuration that they do not show."""
    config = recorded(classifier.config)
    half: dict[str, Any] = {"precision": "bf16"} if classifier.bf16 else {}
    if classifier.bf16 and classifier.compiled:  # which rounds in fewer places
        half["compiled"] = True
    return half | {
        "name": name,
        "kind": type(classifier).__name__,
        "fingerprint": model_fingerprint(classifier),
        "stochastic": classifier.stochastic,
        "num_classes": classifier.num_classes,
        "config": config if isinstance(config, dict) else None,
    }


def probe(classifier: Classifier, images: Tensor, ids: Tensor, *, name: str = "") -> list[list[float | None]] | None:
    """The answers to a few images, as a record of how a model behaves: code may change where no weight does.

    Of the logits (K) of an image, 8 inner products with fixed Gaussian vectors are kept: they differ if any logit does,
    whatever K is. A model that draws noise is asked with noise of a fixed seed.

    Args:
        images: (B, C, H, W) in [0, 1], few; ids: (B,), their identities.
        name: of the model, for errors.

    Returns:
        B rows of numbers, None in place of what is not finite; None of a model whose noise cannot be repeated.
    """
    streams = Streams(ids, derive_seed("probe"))

    def ask() -> Tensor:
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            torch.manual_seed(0)
            return Target.of(classifier, name=name).logits(ANSWER, images, streams)[0].double().cpu()

    logits = ask()
    if classifier.stochastic and not torch.allclose(logits, ask(), rtol=_NEAR["fp32"], equal_nan=True):
        return None
    random = torch.Generator().manual_seed(0)
    found = logits @ torch.randn(logits.shape[1], _NUMBERS, generator=random, dtype=torch.float64)
    return [[float(f"{v:.7g}") if math.isfinite(v) else None for v in row] for row in found.tolist()]


def same_answers(held: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether the ``answers`` of two settings, of ``probe``, are the same but for rounding.

    Settings without any are taken as they are, by the weights: a result from before answers were kept has nothing else
    to be known by, and no noise of a model can be held to what cannot be repeated.
    """
    one, other = held.get("answers"), own.get("answers")
    if one is None or other is None:
        return True
    try:
        numbers = [abs(v) for row in one for v in row if v is not None]
        near = _NEAR[own["classifier"].get("precision", "fp32")] * max(numbers, default=0.0) + 1e-6
        pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
        return all(a is b if None in (a, b) else abs(a - b) <= near for a, b in pairs)
    except (TypeError, ValueError):  # no such rows
        return False
