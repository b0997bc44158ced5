"""What a model computes on the way to its answer and answers as well: networks inside it, and steps passed straight.

An output may say less than the network behind it knows: one-hot vectors, rounded or saturated scores, the logits of a
decoy. What is found here is attacked like the surrogates that a model names; the answer alone judges.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.attacks.objective import Margin
from idc.attacks.straight import StraightThrough, Undetached
from idc.attacks.target import ANSWER, Target
from idc.errors import IDCError, cut, lacks_memory
from idc.noise import Streams, derive_seed
from idc.types import Classifier, Logits

LOOKED_AT = 16  # images by which they are found
_AGREE, _SAME, _LIKE = 0.9, 0.99, 0.9  # share of images; cosine of gradients; correlation of an input with the image
_TRIED, _KEPT = 8, 3

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Inner:
    """A function of a model that is not its answer.

    Args:
        path: of the submodule whose output it is; "" for the answer.
        call: which of its calls in a forward pass, of those that answer each image of the batch.
        given: the submodule is differentiated as if it had been given the image: whatever the model did to the picture
            before keeps its values and passes the gradient as it is.
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
                found, answer = self._found(classifier, images, **draws)
            except Exception as error:  # that of code of the user's: under hooks alone it is no mistake of the model
                if isinstance(error, MemoryError) or lacks_memory(error):
                    raise
                return classifier(images, **draws)
            return answer if found is None else found.to(answer.dtype).repeat(len(answer) // len(found), 1)

        return function

    def _found(self, classifier: Classifier, images: Tensor, **draws: int) -> tuple[Tensor | None, Tensor]:
        paths = [self.path] if self.path else []
        steps = StraightThrough() if self.straight else Undetached() if self.whole else nullcontext()
        with _eager(), _watched(classifier, paths, images, given=self.given) as calls, steps:
            answer = classifier(images.clone(), **draws)
        outputs = [one.output for one in calls if one.answers(images, answer)]
        return outputs[self.call] if self.call < len(outputs) else None, answer


WHOLE = Inner(whole=True)


def _eager() -> AbstractContextManager[object]:
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
def _watched(
    classifier: Classifier, paths: Iterable[str], images: Tensor, *, given: bool = False
) -> Iterator[list[_Call]]:
    """The calls of the submodules of these paths, in the order in which they end; with ``given``, what they are given
    has the gradient of ``images``."""
    calls: list[_Call] = []
    modules = dict(_submodules(classifier))

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not _picture(args, images):
            return None
        with torch._C.DisableTorchFunction():
            return (images + (args[0] - images).detach(), *args[1:])

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


def _submodules(classifier: Classifier) -> Iterator[tuple[str, nn.Module]]:
    for path, module in classifier.named_modules() if isinstance(classifier, nn.Module) else ():
        if path and not isinstance(module, torch.jit.ScriptModule):
            yield path, module


def _picture(args: tuple[Any, ...], images: Tensor) -> bool:
    return bool(args) and isinstance(args[0], Tensor) and args[0].shape == images.shape and args[0].is_floating_point()


def look_inside(
    classifier: Classifier,
    images: Tensor,
    ids: Tensor,
    *,
    chunk: int = 512,
    name: str = "",
    say: Say = lambda why: None,
) -> list[Inner]:
    """Functions of a model that answer as it does and whose values or gradient are not the answer's: at most three.

    A submodule's output (B, K) counts if its largest is the answer's for 90% of the images and not always the same; one
    whose gradient vanishes on most is taken with its steps passed straight. The answer itself counts with nothing
    detached, first of all, and with its steps passed straight, where these are other gradients. Where all images get
    one class, others are asked about as well.

    Args:
        classifier: the model; of one of ours that names surrogates nothing is looked for.
        images: (B, C, H, W) in [0, 1], few; ids: (B,).
        chunk: images in one call at most.
        name: of the model, for errors.
        say: is told why something could not be looked for.
    """
    ours = type(getattr(classifier, "module", classifier)).__module__.partition(".")[0] == "idc"
    if not isinstance(classifier, nn.Module) or (ours and classifier.surrogates()):
        return []
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(0)
        target = Target.of(classifier, chunk=chunk, name=name)
        search = _Search(classifier, target, images, Streams(ids, derive_seed("inside")))
        if search.one_class:
            images = _varied(images)
            ids = torch.arange(len(images), device=images.device)
            search = _Search(classifier, target, images, Streams(ids, derive_seed("inside")))
        return search.found(say)


def _varied(images: Tensor) -> Tensor:
    """(4 B, C, H, W): images, their negatives, plain colours and noise."""
    random = torch.Generator().manual_seed(0)
    colours = torch.rand(*images.shape[:2], 1, 1, generator=random).to(images).expand_as(images)
    return torch.cat([images, 1 - images, colours, torch.rand(images.shape, generator=random).to(images)])


class _Search:
    def __init__(self, classifier: Classifier, target: Target, images: Tensor, streams: Streams) -> None:
        self.classifier, self.target, self.images, self.streams = classifier, target, images, streams
        self.answer = target.logits(ANSWER, images, streams)[0]
        self.known: list[tuple[Tensor, Tensor]] = []

    @property
    def one_class(self) -> bool:
        return len(self.answer.argmax(1).unique()) < 2

    def found(self, say: Say) -> list[Inner]:
        finite = bool(torch.isfinite(self.answer).all())
        if not finite or self.one_class:
            say(f"its answers to {len(self.images)} images are {'all of one class' if finite else 'not all finite'}")
            return []
        if any(isinstance(module, torch.jit.ScriptModule) for module in cast(nn.Module, self.classifier).modules()):
            say("parts of it are TorchScript, which hooks do not reach")
        kept: list[Inner] = []
        own = self._ask(Inner())
        self.known.append(own)
        first, last = [WHOLE], [Inner(straight=True)]
        if not _useful(own[1]):
            first, last = first + last, []
        try:
            candidates = self._candidates()
        except Exception as error:  # a user's module may refuse hooks in any way
            if isinstance(error, MemoryError) or lacks_memory(error):
                raise
            say(f"it fails under hooks ({type(error).__name__}: {cut(str(error), 120)})")
            candidates = []
        for inner in [*first, *candidates[:_TRIED], *last]:
            if len(kept) < _KEPT:
                kept += self._try(inner)
        return kept

    def _try(self, inner: Inner) -> list[Inner]:
        """It, or it with its steps passed straight, if it has a gradient that none before it has."""
        try:
            values, gradient = self._ask(inner)
        except (RuntimeError, IDCError) as error:  # of its gradient alone
            if lacks_memory(error):
                raise
            return []
        if not _useful(gradient):
            return [] if inner.straight or inner.whole else self._try(replace(inner, straight=True))
        if self._agreement(values) < _AGREE or any(_same(values, gradient, *one) for one in self.known):
            return []
        self.known.append((values, gradient))
        return [inner]

    def _ask(self, inner: Inner) -> tuple[Tensor, Tensor]:
        """(B, K) values, and (B, N) the gradient of the margin of the answer's class."""
        target, name = replace(self.target, surrogates={"inner": inner.of(self.classifier)}), "inner"
        classes = self.answer.argmax(1)
        _, gradient, values = target.gradient(
            name if inner.name else ANSWER, self.images, classes, self.streams, objective=Margin()
        )
        return values, gradient.flatten(1)

    def _agreement(self, values: Tensor) -> float:
        """The share of images for which the class of the largest is the answer's; 0 if it is always the same one."""
        classes = values.argmax(1)
        return (classes == self.answer.argmax(1)).float().mean().item() if len(classes.unique()) > 1 else 0.0

    def _candidates(self) -> list[Inner]:
        """Of a forward pass: those that agree most, and of these the last, first. Of modules that return one and the
        same tensor, and wrote nothing into it, the outermost."""
        images = self.images[: self.target.chunk]
        rows = torch.arange(len(images), device=images.device)
        paths = [path for path, _ in _submodules(self.classifier)]
        with torch.enable_grad(), self.streams.take(rows).feeding(range(1)), _eager():
            asked = images.clone().requires_grad_(True).clone()  # no leaf: the model may write into it
            with _watched(self.classifier, paths, images) as calls:
                answer = self.classifier(asked)
        found: dict[tuple[Any, ...], tuple[float, int, Inner]] = {}
        counts = Counter[str]()
        for place, one in enumerate(call for call in calls if call.answers(images, answer)):
            inner = Inner(one.path, counts[one.path])
            counts[one.path] += 1
            agree = (one.output.argmax(1) == self.answer[rows].argmax(1)).float().mean().item()
            if agree >= _AGREE:
                same = id(one.returned), *one.output.flatten().tolist()
                if one.returned is not answer or not torch.equal(one.output, answer):
                    found[False, *same] = agree, place, inner
                if one.given is not None and one.given is not asked and _alike(one.given, images):
                    found[True, *same] = agree, place, replace(inner, given=True)
        return [inner for _, _, inner in sorted(found.values(), key=lambda row: row[:2], reverse=True)]


def _useful(gradient: Tensor) -> bool:
    """Whether it is finite and not 0 for most images."""
    return bool((torch.isfinite(gradient).all(1) & (gradient != 0).any(1)).float().mean() > 0.5)


def _same(values: Tensor, gradient: Tensor, others: Tensor, other: Tensor) -> bool:
    """Whether values are the others but for a shift of each row and a scale, and the gradients point alike."""
    one, two = ((v - v.mean(1, keepdim=True)).double().flatten() for v in (values, others))
    alike = F.cosine_similarity(gradient.double(), other.double()) >= _SAME
    return bool(F.cosine_similarity(one, two, dim=0) > 1 - 1e-4) and alike.float().mean().item() >= _AGREE


def _alike(given: Tensor, images: Tensor) -> bool:
    """Whether it is a picture of the images: brightness and contrast aside, much like them."""
    with torch.no_grad():
        one, two = ((v - v.flatten(1).mean(1).view(-1, 1, 1, 1)).flatten(1) for v in (given, images))
        like = F.cosine_similarity(one, two) >= _LIKE
    return like.float().mean().item() >= _AGREE
