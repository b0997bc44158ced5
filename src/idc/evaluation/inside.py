"""What a model computes on the way to its answer and answers as well: networks inside it, and steps passed straight.

An output may say less than the network behind it knows: one-hot vectors, rounded or saturated scores, the logits of a
decoy. Such a function is attacked like the surrogates that a model names; the answer alone judges. ``inside_search``
finds out which of them a model has.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from idc.attacks.straight import StraightThrough, Undetached, let_go
from idc.errors import lacks_memory
from idc.types import Classifier, Logits

_PLAIN = 1e-6  # mean square of pixels about their mean, at or below which an image shows nothing


class NotDetachedError(Exception):
    """A model that detaches nothing is its own answer with nothing detached."""


@dataclass(frozen=True, slots=True)
class Inner:
    """A function of a model that is not its answer.

    Args:
        path: of the submodule whose output it is; "" for the answer.
        call: which of its calls in a forward pass, of those that answer each image of the batch.
        given: the submodule is differentiated as if it had been given the image, at its size and contrast: whatever the
            model did to the picture before keeps its values and passes the gradient as it is.
        straight: steps pass the gradient as well, see ``StraightThrough``.
        whole: what the model detaches passes the gradient, see ``Undetached``; of ``straight`` that holds as well.
    """

    path: str = ""
    call: int = 0
    given: bool = False
    straight: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        place = f"inside {self.path.removeprefix('module.')}" if self.path else ""
        parts = (place, f"call {self.call + 1}" if self.call else "", "given the image" if self.given else "",
                 "straight-through" if self.straight else "nothing detached" if self.whole else "")  # fmt: skip
        return ", ".join(part for part in parts if part)

    def of(self, classifier: Classifier) -> Logits:
        """It, images (B, C, H, W) -> (B, K); where the model does not compute it, the answer."""

        def function(images: Tensor, **draws: int) -> Tensor:
            try:
                return self.strictly(classifier, images, **draws)
            except Exception as error:  # that of code of the user's: under hooks alone it is no mistake of the model
                if isinstance(error, MemoryError) or lacks_memory(error):
                    raise
                return classifier(images, **draws)

        return function

    def strictly(self, classifier: Classifier, images: Tensor, **draws: int) -> Tensor:
        """The same; raises what the model does where it is asked so, and ``NotDetachedError``."""
        paths = [self.path] if self.path else []
        steps = StraightThrough() if self.straight else Undetached() if self.whole else None
        try:
            with eager(), watched(classifier, paths, images, given=self.given) as calls, ExitStack() as stack:
                if steps:  # work in place that nobody meant to differentiate writes over what the gradient needs
                    stack.enter_context(saved_tensors_hooks(lambda x: x if x.is_leaf else x.clone(), lambda x: x))
                    stack.enter_context(steps)
                answer = classifier(images.clone(), **draws)
        finally:
            if steps and isinstance(classifier, nn.Module):
                let_go(classifier)
        if self.whole and steps and not steps.undone:
            raise NotDetachedError
        outputs = [one.output for one in calls if one.answers(images, answer)]
        if self.call >= len(outputs):
            return answer
        found = outputs[self.call]
        return found.to(answer.dtype).repeat(len(answer) // len(found), 1)


WHOLE = Inner(whole=True)


def eager() -> AbstractContextManager[object]:
    """No compiled code, ours or the model's own, which hooks do not reach; without dynamo there is none."""
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    return cast(AbstractContextManager[object], stance)


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """Of a submodule: the values that it returned, in which tensor, and the picture that it was given, if any."""

    path: str
    output: Tensor
    returned: Tensor  # the model may write into it
    given: Tensor | None

    def answers(self, images: Tensor, answer: Tensor) -> bool:
        """Whether it has one row of K for each image (and draw)."""
        return self.output.shape[1] == answer.shape[1] and len(self.output) in (len(images), len(answer))


@contextmanager
def watched(
    classifier: Classifier, paths: Iterable[str], images: Tensor, *, given: bool = False
) -> Iterator[list[_Call]]:
    """The calls of the submodules of these paths, in the order in which they end; with ``given``, what they are given
    has the gradient of ``images`` at its size and contrast."""
    calls: list[_Call] = []
    modules = dict(submodules(classifier))

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not _picture(args, images):
            return None
        with torch._C.DisableTorchFunction():
            passed = pictured(images, args[0])
            return (passed + (args[0] - passed).detach(), *args[1:])

    def watch(path: str) -> Callable[..., None]:
        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point():
                calls.append(_Call(path, output.clone(), output, args[0] if _picture(args, images) else None))

        return after

    with ExitStack() as stack:
        for path in paths:
            if given:
                stack.callback(modules[path].register_forward_pre_hook(before).remove)
            stack.callback(modules[path].register_forward_hook(watch(path)).remove)
        yield calls


def submodules(classifier: Classifier) -> Iterator[tuple[str, nn.Module]]:
    for path, module in classifier.named_modules() if isinstance(classifier, nn.Module) else ():
        if path and not isinstance(module, torch.jit.ScriptModule):
            yield path, module


def pictured(images: Tensor, given: Tensor) -> Tensor:
    """The images (B, C, H, W) about their means, at the size (B, C, h, w) and the contrast of what a submodule was
    given instead: times the slope by which that depends on them, negative for a negative; 1 where it hardly does."""
    if images.shape != given.shape:
        images = F.interpolate(images, given.shape[2:], mode="bilinear", antialias=True)
    with torch.no_grad():
        one, two = centred(given), centred(images)
        seen = (F.cosine_similarity(one, two).abs() > 0.5) & (two.square().mean(1) > _PLAIN)
        slope = torch.where(seen, (one * two).sum(1) / two.square().sum(1), 1.0).view(-1, 1, 1, 1)
        means = images.mean((1, 2, 3), keepdim=True)
    return slope * (images - means)


def centred(images: Tensor) -> Tensor:
    """(B, C H W) pixels about the mean of each image."""
    pixels = images.flatten(1)
    return pixels - pixels.mean(1, keepdim=True)


def _picture(args: tuple[Any, ...], images: Tensor) -> bool:
    if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return False
    return args[0].ndim == images.ndim and args[0].shape[:2] == images.shape[:2]
