"""The model under attack, as an attack sees it: functions images in [0, 1] -> logits, every call of them counted."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from idc.attacks.objective import Margin, Objective
from idc.errors import IDCError, foreign
from idc.noise import Streams
from idc.types import Classifier, Logits, answered

ANSWER = "answer"
FIRST = ""  # in place of a name: the first of a model's surrogates or else its answer, see ``Protocol.for_target``
COUNTED = ("forward", "backward", "spared", "spared_backward")


@dataclass(slots=True)
class Tally:
    """Images (times draws) that went forward and backward, by function; what third parties' flags said.

    ``spared`` and ``spared_backward`` are those among them whose part that needs no noise another draw had done.
    """

    forward: dict[str, int] = field(default_factory=dict)
    backward: dict[str, int] = field(default_factory=dict)
    spared: dict[str, int] = field(default_factory=dict)
    spared_backward: dict[str, int] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    def add(self, name: str, images: int, *, spared: int = 0, backward: bool = False) -> None:
        """Count one evaluation of the function ``name``; its own forward pass is not counted again if ``backward``."""
        rows, done = (self.backward, self.spared_backward) if backward else (self.forward, self.spared)
        rows[name] = rows.get(name, 0) + images
        if spared:
            done[name] = done.get(name, 0) + spared

    def clear(self) -> None:
        """Forget what was counted."""
        for kind in COUNTED:
            getattr(self, kind).clear()

    def counts(self) -> dict[str, dict[str, int]]:
        """What was counted, by kind and function."""
        return {kind: getattr(self, kind) for kind in COUNTED}


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The functions of one model that an attack may differentiate or query.

    Args:
        answer: the real classifier, images -> logits.
        surrogates: by name, functions that are easier to differentiate.
        stochastic: whether two calls of ``answer`` may differ.
        chunk: images times draws in one call at most.
        shares_draws: whether the functions take ``draws``, see ``Classifier``.
        name: of a model whose code is not ours, for its errors; "" for one of ours.
        one_pass: whether the functions are read off the same pass of a network as the answer, see ``Classifier``; only
            a model of ours is believed.
    """

    answer: Logits
    surrogates: Mapping[str, Logits] = field(default_factory=dict)
    stochastic: bool = False
    chunk: int = 512
    tally: Tally = field(default_factory=Tally)
    shares_draws: bool = False
    name: str = ""
    one_pass: bool = False
    _noisy: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, classifier: Classifier, *, chunk: int = 512, name: str = "") -> "Target":
        """All that ``classifier`` offers."""
        kind = type(getattr(classifier, "module", classifier))
        name = "" if kind.__module__.partition(".")[0] == "idc" else name or "the model"
        with foreign(name, "surrogates() that works") if name else nullcontext():
            surrogates = classifier.surrogates()
        if not isinstance(surrogates, Mapping):
            given = f"surrogates() of {name} that gives a {type(surrogates).__name__}"
            raise IDCError(given, "a dict of names to functions images -> logits", "return {} for none")
        shares = classifier.shares_draws
        return cls(
            classifier, surrogates, classifier.stochastic, chunk, shares_draws=shares, name=name,
            one_pass=classifier.one_pass and not name,  # code that is not ours may say anything
        )  # fmt: skip

    def with_surrogates(self, surrogates: Mapping[str, Logits]) -> "Target":
        """The same answer with other functions to differentiate; which of them draw noise is asked anew."""
        return replace(self, surrogates=surrogates, _noisy={})

    @property
    def first(self) -> str:
        """What ``FIRST`` stands for."""
        return next(iter(self.surrogates), ANSWER)

    @property
    def trials_mislead(self) -> bool:
        """Whether short trials of its functions may say little of what long runs find: the answer has noise, or goes
        another way than they do, as a chain does."""
        return self.stochastic or (bool(self.surrogates) and not self.one_pass)

    def function(self, name: str) -> Logits:
        """The function of that name.

        Raises:
            IDCError: if there is none.
        """
        if name == ANSWER:
            return self.answer
        if name not in self.surrogates:
            known = ", ".join([ANSWER, *self.surrogates])
            raise IDCError(f"surrogate {name!r}", f"one of {known}", "correct the attack's settings")
        return self.surrogates[name]

    def noisy(self, name: str, x: Tensor) -> bool:
        """Whether the function draws noise: asked twice, once, on the first image of ``x``. One that does not needs no
        more than one draw."""
        if name not in self._noisy:
            if name == ANSWER:
                self._noisy[name] = self.stochastic
            else:
                anyone = Streams(torch.zeros(1, dtype=torch.int64, device=x.device), 0)
                first, second = self.logits(name, x[:1], anyone, draws=2)
                self._noisy[name] = bool((first - second).abs().max() > 1e-4 * first.abs().max())
        return self._noisy[name]

    def logits(self, name: str, x: Tensor, streams: Streams, *, draws: int = 1) -> Tensor:
        """(draws, B, K) logits, without gradient; each image's noise from its own streams."""
        blocks = []
        with torch.no_grad():
            for part, each in self._parts(x, draws):
                own = streams.take(part)
                found = [self._call(name, x[part], own, many).unflatten(0, (len(many), len(part))) for many in each]
                blocks.append(torch.cat(found))
        return torch.cat(blocks, dim=1)

    def _parts(self, x: Tensor, draws: int) -> Iterator[tuple[Tensor, list[range]]]:
        """Rows of ``x`` and, for each, ranges of draws, so that rows times draws stay within ``chunk``."""
        for part in torch.arange(len(x), device=x.device).split(self.chunk):
            at_once = max(1, self.chunk // max(1, len(part)))
            yield part, [range(i, min(draws, i + at_once)) for i in range(0, draws, at_once)]

    def _call(self, name: str, x: Tensor, streams: Streams, draws: range) -> Tensor:
        """(len(draws) * B, K): ``x`` (B, ...) once for each draw."""
        with streams.feeding(draws):
            return self.ask(name, x, len(draws))

    def ask(self, name: str, x: Tensor, draws: int = 1) -> Tensor:
        """(draws * B, K), draw by draw, with whatever noise the function draws; counted. The function is given a copy
        of ``x``, into which it may write: a module that normalises its input in place harms no image."""
        self.count(name, len(x), draws)
        function = self.function(name)
        with self._guarded("a model that works"):
            if self.shares_draws and draws > 1:
                return function(x.clone(), draws=draws)  # type: ignore[call-arg]  # the model says that it takes them
            return function(x.repeat(draws, *[1] * (x.ndim - 1)))

    def count(self, name: str, images: int, draws: int, *, backward: bool = False) -> None:
        """Count a pass of so many images, each for so many draws."""
        spared = (draws - 1) * images if self.shares_draws else 0
        self.tally.add(name, draws * images, spared=spared, backward=backward)

    def gradient(
        self,
        name: str,
        x: Tensor,
        classes: Tensor,
        streams: Streams,
        *,
        objective: Objective,
        targets: Tensor | None = None,
        draws: int = 1,
        mean_of: str = "loss",
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The objective's mean over draws of the noise, and its gradient: expectation over transformations.

        Athalye et al., ICML 2018. Draws are batched up to ``chunk`` and summed beyond it; a function
        that draws no noise is asked once.

        Args:
            x: (B, C, H, W) in [0, 1].
            classes, targets: (B,).
            streams: of the noise; the same streams give the same noise.
            mean_of: "loss", the objective of each draw is averaged; "outputs", the objective of the mean output.

        Returns:
            Objective (B,), gradient (B, C, H, W), mean logits (B, K). A function without a gradient has gradient 0.
        """
        draws = draws if draws == 1 or self.noisy(name, x) else 1
        if mean_of == "outputs" and draws > 1:
            return self._gradient_of_mean(name, x, classes, streams, objective, targets, draws)
        losses: list[Tensor] = []
        gradients: list[Tensor] = []
        means: list[Tensor] = []
        for part, each_range in self._parts(x, draws):
            wanted = None if targets is None else targets[part]
            loss = gradient = mean = torch.zeros((), device=x.device)
            for many in each_range:
                piece = x[part].detach().requires_grad_(True)
                with torch.enable_grad():
                    logits = self._call(name, piece, streams.take(part), many)
                    n = len(many)
                    each = objective(logits, classes[part].repeat(n), None if wanted is None else wanted.repeat(n))
                self.count(name, len(part), n, backward=True)
                gradient = gradient + self._input_gradient(each.sum(), piece)
                loss = loss + each.detach().view(n, len(part)).sum(0)
                mean = mean + logits.detach().unflatten(0, (n, len(part))).sum(0)
            losses.append(loss / draws)
            gradients.append(gradient / draws)
            means.append(mean / draws)
        return torch.cat(losses), torch.cat(gradients), torch.cat(means)

    def _gradient_of_mean(
        self, name: str, x: Tensor, classes: Tensor, streams: Streams, objective: Objective, targets: Tensor | None,
        draws: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """``gradient`` of the objective of the mean output: all draws of an image have to be in one graph."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for part in torch.arange(len(x), device=x.device).split(max(1, self.chunk // draws)):
            piece = x[part].detach().requires_grad_(True)
            with torch.enable_grad():
                each = self._call(name, piece, streams.take(part), range(draws)).view(draws, len(part), -1)
                mean = each.mean(0)
                loss = objective(mean, classes[part], None if targets is None else targets[part])
            self.count(name, len(part), draws, backward=True)
            parts.append((loss.detach(), self._input_gradient(loss.sum(), piece), mean.detach()))
        losses, gradients, means = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(gradients), torch.cat(means)

    def judge(self, x: Tensor, classes: Tensor, streams: Streams, *, draws: int) -> tuple[Tensor, Tensor]:
        """The real classifier's verdict with the noise of ``streams``; a deterministic one is asked once.

        Returns:
            (draws or 1, B) bool, right or not; (B,) mean margin of the true class's logit, below 0 if wrong.
        """
        logits = self.logits(ANSWER, x, streams, draws=draws if self.stochastic else 1)
        margin = -Margin()(logits.flatten(0, 1), classes.repeat(len(logits))).view(len(logits), -1)
        right = answered(logits) == classes
        return right, torch.nan_to_num(margin, nan=0.0).mean(0)

    def _guarded(self, expected: str) -> AbstractContextManager[None]:
        return foreign(self.name, expected) if self.name else nullcontext()

    def _input_gradient(self, value: Tensor, x: Tensor) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(x)
        with self._guarded("a model with a gradient that works"):
            (found,) = torch.autograd.grad(value, x, allow_unused=True)
        return torch.zeros_like(x) if found is None else found
