"""Attacks of a maintained library behind our interface: AutoAttack, and Square in L2, of pyautoattack.

They draw from the global generator and seed it; all of that stays inside a fork of it, seeded from the batch's streams.
Their own random numbers belong to a place in the batch, not to an image.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from idc.attacks.best import Best
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.errors import IDCError
from idc.noise import Streams, derive_seed
from idc.types import Logits, answered

_VARIES = 16  # draws after which a model that never changed its answer is taken to keep to it


class _ToImages(torch.autograd.Function):
    """A function of images whose backward pass ends at the images: no library's ``backward()`` reaches the weights."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, function: Logits) -> Tensor:
        with torch.enable_grad():
            ctx.images = images.detach().requires_grad_(True)
            ctx.logits = function(ctx.images)
        return ctx.logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.logits.requires_grad:
            return torch.zeros_like(ctx.images), None
        (found,) = torch.autograd.grad(ctx.logits, ctx.images, gradients[0])
        return found, None


class _Module(nn.Module):
    """A function of the target as a module: the mean logits over ``draws`` of its noise.

    ``reseed`` repeats the same noise in every call, as the paper's code does.
    """

    def __init__(self, target: Target, name: str, *, draws: int = 1, reseed: bool = False) -> None:
        super().__init__()
        self.target, self.name, self.draws, self.reseed = target, name, draws, reseed
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        pieces = [self._piece(part) for part in images.split(max(1, self.target.chunk // self.draws))]
        return torch.cat(pieces).clone()  # Square writes into what it is given

    def _piece(self, images: Tensor) -> Tensor:
        if self.reseed:
            with torch.random.fork_rng(devices=_devices(images)):
                torch.manual_seed(0)
                logits = self._ask(images)
        else:
            logits = self._ask(images)
        return logits.view(self.draws, len(images), -1).mean(0)

    def _ask(self, images: Tensor) -> Tensor:
        def function(x: Tensor) -> Tensor:
            return self.target.ask(self.name, x, self.draws)

        if torch.is_grad_enabled() and images.requires_grad:
            self.target.count(self.name, len(images), self.draws, backward=True)
            return _ToImages.apply(images, function)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return function(images)


def _devices(images: Tensor) -> list[torch.device]:
    return [images.device] if images.is_cuda else []


def _varies(target: Target, images: Tensor, streams: Streams) -> bool:
    if not target.stochastic:
        return False
    answers = answered(target.logits(ANSWER, images, streams.of("varies"), draws=_VARIES))
    return bool((answers != answers[0]).any())


def _seed(streams: Streams) -> int:
    return derive_seed(streams.seed, *streams.ids[:1].tolist()) % 2**31


@contextmanager
def _contained(images: Tensor, seed: int) -> Iterator[list[str]]:
    """A fork of the global generator, tracing left as it was, AutoAttack's warnings collected instead of printed.

    The library counts calls of gradients inside a forward pass for the whole process, so that one dynamic defense would
    flag every model after it: the counts start anew.
    """
    from pyautoattack import checks

    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    flags: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            flags.append(record.getMessage())

    logger, handler, trace = logging.getLogger("auto-attack"), Collect(logging.WARNING), sys.gettrace()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with torch.random.fork_rng(devices=_devices(images)):
            torch.manual_seed(seed)
            yield flags
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        sys.settrace(trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoAttack:
    """AutoAttack (Croce and Hein, ICML 2020) as pyautoattack runs it.

    Its flags (randomised, dynamic, probabilities, zero gradients) go to the target's tally. The standard version
    decides on one pass which images it returns changed; the rand version attacks every image. Judge them again.

    Args:
        threat: norm and radius; pixels in [0, 1].
        version: "standard" for deterministic models; "rand" (EOT 20) for stochastic ones; "auto" asks the target: of a
            model whose answers to the images never vary, for all its noise, it is "standard".
        surrogate: the function under attack.
        steps: of APGD and FAB; 100 is AutoAttack, fewer is not.
        queries: of Square.
        reseed: the noise repeats in every call (a flaw, kept for comparison).
    """

    threat: Threat
    version: Literal["standard", "rand", "auto"] = "auto"
    surrogate: str = ANSWER
    steps: int = 100
    queries: int = 5000
    reseed: bool = False

    def __post_init__(self) -> None:
        self.threat.refuse_l1("AutoAttack")
        if self.threat.bounds.lower != 0 or self.threat.bounds.upper != 1:
            raise IDCError(f"bounds {self.threat.bounds}", "[0, 1]", "AutoAttack knows no others")

    def __call__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        if not len(images) or self.threat.eps == 0:
            return images.clone()
        version = (
            ("rand" if _varies(target, images, streams) else "standard") if self.version == "auto" else self.version
        )
        model, seed = _Module(target, self.surrogate, reseed=self.reseed), _seed(streams)
        with _contained(images, seed) as flags:
            adversary = self._adversary(model, images, seed, version, target)
            if version == "rand":
                found = self._rand(adversary, target, images, classes, streams)
            else:
                found, _ = adversary.run_standard_evaluation(images, classes, batch_size=len(images))
        target.tally.flags += [flag for flag in dict.fromkeys(flags) if flag not in target.tally.flags]
        return self.threat.project(found.detach(), images)

    def _rand(self, adversary: Any, target: Target, images: Tensor, classes: Tensor, streams: Streams) -> Tensor:
        """Both attacks of the rand version on every image, the better point kept by many draws.

        The library's own loop drops an image as misclassified when one noisy draw is wrong, even of the clean image,
        and a point that one more draw gets right.
        """
        best = Best(target, images, classes, streams.of("rand"), draws=16)
        for name in adversary.attacks_to_run:
            adversary.apgd.loss = name.removeprefix("apgd-")
            adversary.apgd.seed = adversary.get_seed()
            found = adversary.apgd.perturb(images, classes, best_loss=True)
            best.offer(found.detach(), torch.arange(len(images), device=images.device), name)
        return best.x

    def _adversary(self, model: _Module, images: Tensor, seed: int, version: str, target: Target) -> Any:
        from pyautoattack import AutoAttack as Library

        with torch.no_grad():
            classes = model(images[:1]).shape[1]
        norm = {"linf": "Linf", "l2": "L2"}[self.threat.norm]
        found = Library(model, norm=norm, eps=self.threat.eps, seed=seed, version=version, device=images.device)
        found.verbose = False
        wanted = min(9, classes - 1)
        found.apgd_targeted.n_target_classes = found.fab.n_target_classes = wanted
        found.fab.n_iter = self.steps
        for part in (found.apgd, found.apgd_targeted):  # what its constructor derives from the number of steps
            part.n_iter, part.n_iter_2 = self.steps, max(int(0.22 * self.steps), 1)
            part.n_iter_min, part.size_decr = max(int(0.06 * self.steps), 1), max(int(0.03 * self.steps), 1)
        found.square.n_queries = self.queries
        # DLR needs three logits, its targeted form four; the L2 Square needs five pixels a side.
        short = {"apgd-dlr": 3, "apgd-t": 4}
        found.attacks_to_run = [a for a in found.attacks_to_run if classes >= short.get(a, 2)]
        if self.threat.norm == "l2" and min(images.shape[-2:]) < 5 and "square" in found.attacks_to_run:
            found.attacks_to_run.remove("square")
            target.tally.flags.append("Square left out: its L2 form needs images of 5 pixels a side or more")
        return found


def square_l2(
    threat: Threat, queries: int, draws: int, target: Target, images: Tensor, classes: Tensor, streams: Streams
) -> Tensor:
    """The L2 form of Square on the mean of ``draws``, see ``idc.attacks.square``.

    Raises:
        IDCError: for images of less than five pixels a side, which it cannot handle.
    """
    from pyautoattack.square import SquareAttack

    if min(images.shape[-2:]) < 5:
        raise IDCError(
            f"images of {images.shape[-2]}x{images.shape[-1]}", "5 pixels a side or more for Square in L2", "use linf"
        )
    model, seed = _Module(target, ANSWER, draws=draws), _seed(streams)
    with _contained(images, seed):
        attack = SquareAttack(
            model, norm="L2", n_queries=queries, eps=threat.eps, seed=seed, device=images.device, resc_schedule=False
        )
        found = attack.perturb(images, classes)
    return threat.project(found.detach(), images)
