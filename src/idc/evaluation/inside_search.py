"""The search for what a model computes on the way to its answer and answers as well, see ``inside``."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.errors import cut, lacks_memory
from idc.evaluation.inside import (
    WHOLE,
    Inner,
    NotDetachedError,
    centred,
    eager,
    pictured,
    submodules,
    watched,
)
from idc.noise import Streams, derive_seed
from idc.types import Classifier

LOOKED_AT = 16  # images by which they are found
_AGREE, _SAME, _LIKE = 0.9, 0.99, 0.9  # share of images; cosine of gradients; correlation of an input with the image
_BACK = 0.3  # cosine of gradients of noise: nearest or cubic for linear interpolation have more, chance has 0
_TRIED, _KEPT, _STEP = 8, 3, 2 / 255

Say = Callable[[str], object]


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
    detached, first of all where that leads nearer to another answer than its own gradient, and with its steps passed
    straight. Where all images get one class, others are asked about as well.

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
        whole, straight = self._try(WHOLE, say), Inner(straight=True)
        try:
            candidates = self._candidates()
        except Exception as error:  # a user's module may refuse hooks in any way
            if isinstance(error, MemoryError) or lacks_memory(error):
                raise
            say(f"it fails under hooks ({type(error).__name__}: {cut(str(error), 120)})")
            candidates = []
        if whole and self._leads(self.known[-1][1]) > self._leads(own[1]):
            kept, whole = whole, []
        for inner in [straight, *candidates[:_TRIED]] if not _useful(own[1]) else [*candidates[:_TRIED], straight]:
            if len(kept) < _KEPT:
                kept += self._try(inner, say)
        return [*kept, *whole][:_KEPT]

    def _leads(self, gradient: Tensor) -> float:
        """The share of images that a small step along a gradient brings nearer to another answer."""
        step = _STEP * gradient.sign().view_as(self.images)
        moved = self.target.logits(ANSWER, (self.images + step).clamp(0, 1), self.streams)[0]
        before, after = (Margin()(own, self.answer.argmax(1)) for own in (self.answer, moved))
        return (after > before).float().mean().item()

    def _try(self, inner: Inner, say: Say) -> list[Inner]:
        """It, or it with its steps passed straight, if it has a gradient that none before it has."""
        try:
            values, gradient = self._ask(inner)
        except Exception as error:  # of a user's module, of which this asks what it was not made for
            if isinstance(error, MemoryError) or lacks_memory(error):
                if not (inner.whole or inner.straight):
                    raise
                say(f"no memory for its gradient with {inner.name}; smaller batches need less")
            elif inner.whole and not isinstance(error.__cause__ or error, NotDetachedError):
                say(f"its gradient with {inner.name} fails ({cut(str(error.__cause__ or error), 120)})")
            return []
        if not _useful(gradient):
            return [] if inner.straight or inner.whole else self._try(replace(inner, straight=True), say)
        if self._agreement(values) < _AGREE or any(_same(values, gradient, *one) for one in self.known):
            return []
        self.known.append((values, gradient))
        return [inner]

    def _ask(self, inner: Inner) -> tuple[Tensor, Tensor]:
        """(B, K) values, and (B, N) the gradient of the margin of the answer's class."""
        target, name = replace(self.target, surrogates={"inner": partial(inner.strictly, self.classifier)}), "inner"
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
        paths = [path for path, _ in submodules(self.classifier)]
        with torch.enable_grad(), self.streams.take(rows).feeding(range(1)), eager():
            leaf = images.clone().requires_grad_(True)
            asked = leaf.clone()  # no leaf: the model may write into it
            with watched(self.classifier, paths, images) as calls:
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
                if one.given is not None and one.given is not asked and _hidden(one.given, leaf):
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


def _hidden(given: Tensor, images: Tensor) -> bool:
    """Whether it is a picture of the images, much like them but for size, brightness and contrast (so is a negative),
    of which the gradient may be lost. Another size hides nothing where torch leads back from it: many honest networks
    begin so."""
    with torch.no_grad():
        like = F.cosine_similarity(centred(given), centred(pictured(images, given))) >= _LIKE
    if like.float().mean().item() < _AGREE:
        return False
    return given.shape == images.shape or not _leads_back(given, images)


def _leads_back(given: Tensor, images: Tensor) -> bool:
    """Whether the gradient of a picture of another size points as that of the images at this size would."""
    random = torch.Generator().manual_seed(0)
    values = torch.randn(given.shape, generator=random).to(given)
    try:
        (own,) = torch.autograd.grad(given, images, values, retain_graph=True)
        (usual,) = torch.autograd.grad(pictured(images, given), images, values)
    except RuntimeError:  # it has none
        return False
    return F.cosine_similarity(own.flatten(1), usual.flatten(1)).median().item() > _BACK
