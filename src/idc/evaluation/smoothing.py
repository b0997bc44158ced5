"""Randomised smoothing: ask a classifier under Gaussian noise, and prove an L2 radius in which the vote stays the same.

Cohen, Rosenfeld and Kolter, ICML 2019. The smoothed classifier of a base classifier f is

    g(x) = argmax_c p_c(x),   p_c(x) = P(f(clamp(x + sigma * eps)) = c),   eps ~ N(0, I).

If p_c(x) >= p > 1/2, then g(x + delta) = c for all ||delta||_2 < sigma * Phi^-1(p) (their theorem 1, with 1 - p for the
runner-up). No p is known, but counts among independent samples are binomial, whose exact bounds hold for any n.

Two things that the theorem allows, and that are made use of here:

- f may be random, as IDC is. All that the proof asks of a class is a function from noisy images to [0, 1]; that f gives
  the class with some probability is as good as that it gives it or not. Each sample then has to draw f's own noise
  afresh too, independent of all others, for the counts to be binomial.
- Noisy images leave [0, 1], which is where models take theirs. The clamp is a fixed function before f, so that f after
  it is one more base classifier: what is proved of its smoothed classifier holds for every delta, also one that itself
  leaves [0, 1]. The noise is not clamped, nor is anything that the theorem speaks of.
"""

import math
from dataclasses import dataclass

import torch
from scipy.stats import beta, binomtest, norm
from torch import Tensor

from idc.errors import IDCError, foreign
from idc.noise import Streams
from idc.storage.fields import check, setting
from idc.types import Classifier, answered

ABSTAINS = -1


def lower_bound(count: int, n: int, alpha: float) -> float:
    """What a probability that gave ``count`` of ``n`` independent samples is at least, wrong with probability alpha.

    The exact one-sided bound of Clopper and Pearson, Biometrika 1934: the p for which so many samples or more have
    probability alpha. 0 for a count of 0, alpha^(1/n) for one of n.
    """
    return float(beta.ppf(alpha, count, n - count + 1)) if count else 0.0


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How an image is certified.

    Args:
        sigma: standard deviation of the noise, on the [0, 1] scale of the pixels.
        n0: samples that pick the class of which the radius is proved.
        n: fresh samples that bound this class's probability, and by which the smoothed classifier answers.
        alpha: probability at most, for each image, that what is said of it is wrong.

    Raises:
        IDCError: for a value out of range, and for so few samples that no radius could ever be proved.
    """

    sigma: float = setting(above=0, remedy="use for example --sigma 0.25")
    n0: int = setting(100, least=1, remedy="use for example --n0 100")
    n: int = setting(10_000, least=1, remedy="use for example --n 10000")
    alpha: float = setting(0.001, above=0, below=1, remedy="use for example --alpha 0.001")

    def __post_init__(self) -> None:
        check(self)
        if not self.largest_radius:
            least = math.floor(-math.log2(self.alpha)) + 1
            raise IDCError(
                f"n = {self.n} at alpha = {self.alpha:g}", f"{least} or more samples: fewer prove nothing", "raise --n"
            )

    def radius(self, count: int) -> float:
        """The L2 radius proved for a class with ``count`` of the n samples; 0 if its probability may be 1/2 or less."""
        lower = lower_bound(count, self.n, self.alpha)
        return self.sigma * float(norm.ppf(lower)) if lower > 0.5 else 0.0

    @property
    def largest_radius(self) -> float:
        """The radius if all n samples agree: no image can have more."""
        return self.radius(self.n)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the samples of one image say.

    Args:
        prediction: the smoothed classifier's class, ``ABSTAINS`` where the samples do not tell it from the runner-up.
        selected: the class that the first n0 samples picked.
        radius: L2, in which the smoothed classifier answers ``selected``; 0: abstains.
        counts: (K,) of the n samples, those of each class.
    """

    prediction: int
    selected: int
    radius: float
    counts: tuple[int, ...]


def predict(counts: Tensor, alpha: float) -> int:
    """PREDICT: the class with the most of the samples ``counts`` (K,).

    ``ABSTAINS`` if the exact two-sided binomial test does not tell its probability from the runner-up's at level alpha:
    a class other than the smoothed classifier's is returned with probability alpha at most.
    """
    first, second = torch.topk(counts, 2)[0].tolist() if len(counts) > 1 else (int(counts.sum()), 0)
    decided = binomtest(first, first + second, 0.5).pvalue <= alpha
    return int(counts.argmax()) if decided else ABSTAINS


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """The smoothed classifier around a base classifier.

    Args:
        base: on its device, in evaluation mode; IDC in the answer that it is set to, one draw of its noise a sample.
        smoothing: how it is asked.
        chunk: samples in one call of the base classifier; memory, not results, depends on it.
    """

    base: Classifier
    smoothing: Smoothing
    chunk: int = 512

    def count(self, images: Tensor, streams: Streams, samples: int) -> Tensor:
        """How often the base classifier gives each class under noise.

        Args:
            images: (B, C, H, W) in [0, 1].
            streams: of the B images; noise and the base classifier's own randomness come from them.
            samples: of the noise for each image.

        Returns:
            (B, K) int64, rows of the sum ``samples``.
        """
        counts = torch.zeros(len(images), self.base.num_classes, dtype=torch.int64, device=images.device)
        at_once = max(1, self.chunk // max(1, len(images)))
        with torch.no_grad():
            for start in range(0, samples, at_once):
                draws = range(start, min(samples, start + at_once))
                with streams.feeding(draws):
                    found = answered(self._ask(images.repeat(len(draws), 1, 1, 1)))
                if (found < 0).any():
                    raise IDCError("a model with NaN or infinite logits", "finite logits", "correct the model")
                each = found.view(len(draws), len(images)).T
                counts.scatter_add_(1, each, torch.ones_like(each))
        return counts

    def _ask(self, rows: Tensor) -> Tensor:
        with foreign("the model", "a model that works"):
            return self.base((rows + self.smoothing.sigma * torch.randn_like(rows)).clamp(0, 1))

    def certify(self, image: Tensor, streams: Streams) -> Certificate:
        """CERTIFY and PREDICT on the same n samples of ``image`` (1, C, H, W): each is wrong with probability alpha at
        most."""
        selected = int(self.count(image, streams.of("select"), self.smoothing.n0)[0].argmax())
        counts = self.count(image, streams.of("bound"), self.smoothing.n)[0].cpu()
        found = tuple(counts.tolist())
        return Certificate(
            predict(counts, self.smoothing.alpha), selected, self.smoothing.radius(found[selected]), found
        )

    def check(self, image: Tensor) -> None:
        """Refuse a base classifier that draws its noise once for a whole batch: its samples are not independent.

        Args:
            image: (1, C, H, W), any.

        Raises:
            IDCError: if rows of one batch share what two calls do not.
        """
        if not self.base.stochastic:
            return
        rows = image.repeat(4, 1, 1, 1)
        with torch.no_grad(), torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            first, second = self.base(rows.clone()), self.base(rows.clone())
        near = 1e-4 * first.abs().max()
        if (first - first[:1]).abs().max() <= near < (first - second).abs().max():
            raise IDCError(
                "a model that draws its noise once for a batch",
                "noise of its own for each row: else samples are not independent, and nothing is proved",
                "draw one random tensor a row, such as torch.randn_like(images)",
            )
