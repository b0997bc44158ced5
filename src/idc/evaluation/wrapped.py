"""A user's own module as a classifier; any classifier in half precision."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.errors import IDCError
from idc.types import Classifier, Logits

# What else an evaluation may ask of a module that has it.
_PASSED_ON = ("card", "class_names", "config", "networks")


class Wrapped(nn.Module):
    """An ``nn.Module`` images -> logits with all that an evaluation asks for.

    What the module itself has (``num_classes``, ``input_shape``, ``stochastic``, ``surrogates()``, ...) is kept; the
    rest is filled in from one call on noise.

    Args:
        module: takes (B, C, H, W) in [0, 1], returns (B, K) logits; put into evaluation mode.
        input_shape: (C, H, W), for a module that does not say.
        name: as the user knows it, for errors.
        bf16: matrix products and convolutions are computed in bf16, of the answer and of every surrogate; but a linear
            layer with as many outputs as there are classes stays float32, so that an attack sees logits change that
            8 bits of mantissa would hide.

    Raises:
        IDCError: if the module cannot be called so, or returns something else.
    """

    def __init__(
        self, module: nn.Module, *, input_shape: tuple[int, int, int], name: str = "the model", bf16: bool = False
    ) -> None:
        super().__init__()
        self.module, self.bf16 = module.eval(), bf16
        shape = getattr(module, "input_shape", None) or input_shape
        self.input_shape: tuple[int, int, int] = tuple(shape)
        first, second = self._probe(name)
        self.num_classes = int(getattr(module, "num_classes", None) or first.shape[1])
        if bf16:
            _halve(module, self.num_classes)
        declared = getattr(module, "stochastic", None)
        self.eval()  # the wrapper itself too
        self.stochastic = (
            not torch.allclose(first, second, rtol=1e-4, atol=1e-6) if declared is None else bool(declared)
        )

    def _probe(self, name: str) -> tuple[Tensor, Tensor]:
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        images = torch.rand(2, *self.input_shape, generator=torch.Generator().manual_seed(0)).to(device)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                found = self.module(images), self.module(images)
        except Exception as error:
            shape = "x".join(map(str, self.input_shape))
            raise IDCError(
                name,
                f"a module that takes images (B, {shape}) in [0, 1] ({error})",
                "check its input, or use other data",
            ) from error
        if not isinstance(found[0], Tensor) or found[0].ndim != 2 or len(found[0]) != 2:
            raise IDCError(name, "a module that returns logits (B, K)", "return one row of logits an image")
        if not torch.isfinite(found[0]).all():
            raise IDCError(name, "a module that returns finite logits", "mend it: they are NaN or infinite")
        declared = getattr(self.module, "num_classes", None)
        if declared is not None and declared != found[0].shape[1]:
            raise IDCError(name, f"{declared} logits, as its num_classes says (not {found[0].shape[1]})", "correct it")
        return found

    def __getattr__(self, name: str) -> Any:
        if name in _PASSED_ON:
            return getattr(super().__getattr__("module"), name)
        return super().__getattr__(name)

    def surrogates(self) -> Mapping[str, Logits]:
        """The module's own, or none."""
        own = getattr(self.module, "surrogates", None)
        found = own() if callable(own) else {}
        return {name: partial(self._call, function) for name, function in found.items()} if self.bf16 else found

    @property
    def shares_draws(self) -> bool:
        """As the module says."""
        return getattr(self.module, "shares_draws", False) is True

    def forward(self, images: Tensor, **draws: int) -> Tensor:
        return self._call(self.module, images, **draws)

    def _call(self, function: Callable[..., Tensor], images: Tensor, **draws: int) -> Tensor:
        if not self.bf16:
            return function(images, **draws)
        with torch.autocast(images.device.type, torch.bfloat16):
            return function(images, **draws).float()


_MULTIPLYING = (nn.Linear, nn.modules.conv._ConvNd)


def _halve(module: nn.Module, num_classes: int) -> None:
    """Round the weights of layers that multiply, once, where autocast would in every call; those that make logits
    compute in float32 whatever autocast says."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and layer.out_features == num_classes:
            layer.forward = partial(_linear_in_fp32, layer)  # type: ignore[method-assign]  # of this layer alone
        elif isinstance(layer, _MULTIPLYING):
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()


def _linear_in_fp32(layer: nn.Linear, features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return F.linear(features.to(layer.weight.dtype), layer.weight, layer.bias)


def as_classifier(
    model: object, *, input_shape: tuple[int, int, int], name: str = "the model", bf16: bool = False
) -> Classifier:
    """``model`` itself if it is a ``Classifier`` and not to be in half precision, else wrapped.

    Raises:
        IDCError: if it is no module.
    """
    if isinstance(model, Classifier) and isinstance(model, nn.Module) and not bf16:
        Wrapped(model, input_shape=input_shape, name=name)  # asked once, so that its mistakes are told clearly
        return cast(Classifier, model)
    if not isinstance(model, nn.Module):
        raise IDCError(name, f"a torch.nn.Module (it is a {type(model).__name__})", "return the module itself")
    return Wrapped(model, input_shape=input_shape, name=name, bf16=bf16)
