"""A user's own module as a classifier; any classifier in half precision."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from idc.compute.precision import halve
from idc.errors import IDCError, foreign
from idc.storage.fields import Rule, short
from idc.types import Classifier, ClassifierDefaults, Logits, are_modules, completed, says_required


class Wrapped(nn.Module):
    """An ``nn.Module`` images -> logits with all that an evaluation asks for.

    What the module itself has (``num_classes``, ``input_shape``, ``stochastic``, ``surrogates()``, ...) is kept; the
    rest is filled in from one call on noise. One that does not say all of these may mean something else by ``card`` and
    ``config``.

    Args:
        module: takes (B, C, H, W) in [0, 1], returns (B, K) logits; put into evaluation mode.
        input_shape: (C, H, W), for a module that does not say.
        name: as the user knows it, for errors.
        bf16: the answer and every surrogate multiply in bf16, but for the layers at both ends (see
            ``idc.compute.precision.halve``); the module is changed for good.

    Raises:
        IDCError: if the module cannot be called so, or returns something else.
    """

    def __init__(
        self, module: nn.Module, *, input_shape: tuple[int, int, int], name: str = "the model", bf16: bool = False
    ) -> None:
        super().__init__()
        self.module = module.eval()
        self.input_shape: tuple[int, int, int] = declared_shape(module, name) or input_shape
        self.bf16 = self.compiled = False
        first, second = self._probe(name)
        self.num_classes = int(getattr(module, "num_classes", None) or first.shape[1])
        if bf16:
            self._halve(name)
        said = completed(module) if says_required(module) else ClassifierDefaults()
        self.card, self.config = dict(said.card), said.config  # a copy: a mapping that is none cannot be copied
        self.class_names = _declared_names(module, self.num_classes, name)
        self.shares_draws = getattr(module, "shares_draws", False) is True
        self.one_pass = False
        declared = getattr(module, "stochastic", None)
        self.eval()  # the wrapper itself too
        self.stochastic = (
            not torch.allclose(first, second, rtol=1e-4, atol=1e-6) if declared is None else bool(declared)
        )

    def _halve(self, name: str) -> None:
        """Half precision, and a look at both ends: an image between those that bf16 knows, and logits that it does not.

        Raises:
            IDCError: if small changes would be rounded away.
        """
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        random = torch.Generator().manual_seed(0)
        images = (128 + torch.randint(128, (2, *self.input_shape), generator=random)).to(device) / 256
        near = images + torch.rand(images.shape, generator=random).to(device) / 1024
        moves = bool((self._ask(images) != self._ask(near)).any())
        halve(self.module, image_shape=self.input_shape, num_classes=self.num_classes)
        self.bf16 = True
        logits, _ = self._probe(name)
        remedy = "leave --precision out: bf16 would hide small changes from an attack"
        if moves and torch.equal(self._ask(images), self._ask(near)):
            raise IDCError(name, "a module whose first layer takes the image: a convolution of its channels", remedy)
        if logits.any() and torch.equal(logits, logits.bfloat16().float()):
            raise IDCError(name, "a module whose logits come from a linear layer of K outputs, in float32", remedy)

    def _ask(self, images: Tensor) -> Tensor:
        """Logits, with the same noise each time."""
        with torch.no_grad(), torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            torch.manual_seed(0)
            return self._call(self.module, images.clone())

    def _probe(self, name: str) -> tuple[Tensor, Tensor]:
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        images = torch.rand(2, *self.input_shape, generator=torch.Generator().manual_seed(0)).to(device)
        expected = f"a module that takes images (B, {'x'.join(map(str, self.input_shape))}) in [0, 1]"
        remedy = "set input_shape = (C, H, W) on it, if it expects images of another size, or correct it"
        devices = [device] if device.type == "cuda" else []
        with foreign(name, expected, remedy), torch.no_grad(), torch.random.fork_rng(devices=devices):
            # Copies: it may write into what it is given.
            found = self._call(self.module, images.clone()), self._call(self.module, images.clone())
        if not isinstance(found[0], Tensor) or found[0].ndim != 2 or len(found[0]) != 2:
            raise IDCError(name, "a module that returns logits (B, K)", "return one row of logits an image")
        if not torch.isfinite(found[0]).all():
            raise IDCError(
                name,
                "a module that returns finite logits for noise in [0, 1]",
                "correct the module or its weights",
            )
        declared = getattr(self.module, "num_classes", None)
        if declared is not None and declared != found[0].shape[1]:
            raise IDCError(name, f"{declared} logits, as its num_classes says (not {found[0].shape[1]})", "correct it")
        return found

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Those that the module names, or all of it."""
        named: Any = getattr(self.module, "networks", None)
        networks = named if are_modules(named) else (self,)
        return tuple(self if network is self.module else network for network in networks)

    def surrogates(self) -> Mapping[str, Logits]:
        """The module's own, or none."""
        own = getattr(self.module, "surrogates", None)
        found = own() if callable(own) else {}
        return {name: partial(self._call, function) for name, function in found.items()} if self.bf16 else found

    def forward(self, images: Tensor, **draws: int) -> Tensor:
        return self._call(self.module, images, **draws)

    def _call(self, function: Callable[..., Tensor], images: Tensor, **draws: int) -> Tensor:
        if not self.bf16:
            return function(images, **draws)
        with torch.autocast(images.device.type, torch.bfloat16):
            return function(images, **draws).float()


def told_mode(module: nn.Module, name: str) -> str:
    """What to say of a module that comes in training mode; empty for one that does not. A frozen ScriptModule has no
    attribute that tells."""
    training = getattr(module, "training", False)
    return f"{name} came in training mode and is judged in evaluation mode" if training else ""


def declared_shape(module: nn.Module, name: str) -> tuple[int, int, int] | None:
    """The ``input_shape`` of a module, (C, H, W) of squares; None if it says none.

    Raises:
        IDCError: if it is something else.
    """
    rule = Rule(tuple[int, int, int] | None, least=1, expected="three whole numbers (C, H, W), H = W")
    given = getattr(module, "input_shape", None)
    shape: tuple[int, int, int] | None = rule.value(
        "input_shape", given, where=f" of {name}", remedy="set input_shape = (C, H, W)"
    )
    if shape and shape[1] != shape[2]:
        raise IDCError(f"input_shape = {shape} of {name}", rule.words, "scale squares inside the module")
    return shape


def _declared_names(module: nn.Module, count: int, name: str) -> tuple[str, ...]:
    given = getattr(module, "class_names", None)
    if given is None or (isinstance(given, list | tuple) and not given):
        return ()
    if not isinstance(given, list | tuple) or len(given) != count:
        raise IDCError(f"class_names = {short(given)} of {name}", f"a list of its {count} classes", "correct it")
    return tuple(map(str, given))


def as_classifier(
    model: object, *, input_shape: tuple[int, int, int], name: str = "the model", bf16: bool = False
) -> Classifier:
    """``model`` itself, completed, if it says what a classifier has to and is not to be in half precision; or wrapped.

    Raises:
        IDCError: if it is no module.
    """
    if not isinstance(model, nn.Module):
        raise IDCError(name, f"a torch.nn.Module (it is a {type(model).__name__})", "return the module itself")
    wrapped = Wrapped(model, input_shape=input_shape, name=name, bf16=bf16)  # in any case: mistakes are told clearly
    return cast(Classifier, model if says_required(model) and not bf16 else wrapped)
