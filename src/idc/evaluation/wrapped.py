"""A user's own module as a classifier."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from idc.errors import IDCError
from idc.types import Classifier, Logits


class Wrapped(nn.Module):
    """An ``nn.Module`` images -> logits with all that an evaluation asks for.

    What the module itself has (``num_classes``, ``input_shape``, ``stochastic``, ``surrogates()``) is kept; the rest is
    filled in from one call on noise.

    Args:
        module: takes (B, C, H, W) in [0, 1], returns (B, K) logits; put into evaluation mode.
        input_shape: (C, H, W), for a module that does not say.
        name: as the user knows it, for errors.

    Raises:
        IDCError: if the module cannot be called so, or returns something else.
    """

    def __init__(self, module: nn.Module, *, input_shape: tuple[int, int, int], name: str = "the model") -> None:
        super().__init__()
        self.module = module.eval()
        shape = getattr(module, "input_shape", None) or input_shape
        self.input_shape: tuple[int, int, int] = tuple(shape)
        first, second = self._probe(name)
        self.num_classes = int(getattr(module, "num_classes", None) or first.shape[1])
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

    def surrogates(self) -> Mapping[str, Logits]:
        """The module's own, or none."""
        own = getattr(self.module, "surrogates", None)
        return own() if callable(own) else {}

    @property
    def shares_draws(self) -> bool:
        """As the module says."""
        return getattr(self.module, "shares_draws", False) is True

    def forward(self, images: Tensor, **draws: int) -> Tensor:
        return self.module(images, **draws)


def as_classifier(model: object, *, input_shape: tuple[int, int, int], name: str = "the model") -> Classifier:
    """``model`` itself if it is a ``Classifier``, else wrapped.

    Raises:
        IDCError: if it is no module.
    """
    if isinstance(model, Classifier) and isinstance(model, nn.Module):
        Wrapped(model, input_shape=input_shape, name=name)  # asked once, so that its mistakes are told clearly
        return cast(Classifier, model)
    if not isinstance(model, nn.Module):
        raise IDCError(name, f"a torch.nn.Module (it is a {type(model).__name__})", "return the module itself")
    return Wrapped(model, input_shape=input_shape, name=name)
