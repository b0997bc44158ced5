"""Of several points that attacks have found for an image, the one that the real model gets wrong most often."""

import torch
from torch import Tensor

from idc.attacks.target import Target
from idc.noise import Streams

CONFIRM = 64
COMPARED = 8  # times as many draws as usual, where two points are compared on the same ones


class Best:
    """For each image the found point that the real model, asked with fresh noise, gets wrong most often."""

    def __init__(self, target: Target, images: Tensor, classes: Tensor, streams: Streams, draws: int) -> None:
        self.target, self.classes, self.streams, self.draws = target, classes, streams, draws
        self.x = images.clone()
        self.score = torch.full((len(images),), float("inf"), device=images.device, dtype=torch.float64)
        self.done = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.unconfirmed = self.done.clone()  # found since the last confirmation
        self.rounds = torch.zeros(len(images), dtype=torch.int64, device=images.device)

    def remaining(self) -> Tensor:
        """Rows of the images that may still be improved: not those whose answer is wrong, if it is deterministic, or
        wrong in every one of CONFIRM more draws."""
        wrong = (self.score < 1) & self.unconfirmed & ~self.done
        self.unconfirmed &= ~wrong
        if not self.target.stochastic:
            self.done |= wrong
        else:
            # Each image counts its own confirmations: their noise must not depend on the rest of the batch.
            rounds = self.rounds.clone()
            for round_ in rounds[wrong].unique().tolist():
                rows = (wrong & (rounds == round_)).nonzero()[:, 0]
                streams = self.streams.of("confirm", round_).take(rows)
                right, _ = self.target.judge(self.x[rows], self.classes[rows], streams, draws=CONFIRM)
                self.done[rows] = ~right.any(0)
                self.rounds[rows] += 1
                self.score[rows] = torch.maximum(self.score[rows], right.double().sum(0) * self.draws / CONFIRM)
        return (~self.done).nonzero()[:, 0]

    def offer(self, x: Tensor, rows: Tensor, *keys: object) -> Tensor:
        """Judge ``x``, points for the images ``rows``, and keep the better ones; returns their scores."""
        score = self._judge(x, rows, keys, self.draws)
        self._keep(x, rows, score, score < self.score[rows])
        return score

    def compare(self, x: Tensor, rows: Tensor, *keys: object) -> None:
        """As ``offer``, but where answers have noise, ``x`` and what is kept are both judged, by the same draws and by
        COMPARED times as many: a score of before that owed much to its draws keeps nothing better away."""
        if not self.target.stochastic:
            self.offer(x, rows, *keys)
            return
        many = COMPARED * self.draws
        held, score = (self._judge(own, rows, keys, many) for own in (self.x[rows], x))
        # Kept in units of the usual number of draws; below 1 only where all are wrong.
        self.score[rows] = _of(held, self.draws / many)
        self._keep(x, rows, _of(score, self.draws / many), score < held)

    def _judge(self, x: Tensor, rows: Tensor, keys: tuple[object, ...], draws: int) -> Tensor:
        """How many draws are right, and between that and one more the margin, squeezed without saturating at large
        logits: wrong draws count first."""
        if not len(rows):
            return self.score[rows]
        streams = self.streams.of("judge", *keys).take(rows)
        right, margin = self.target.judge(x, self.classes[rows], streams, draws=draws)
        return right.sum(0).double() + 0.5 + 0.5 * margin.double() / (1 + margin.double().abs())

    def _keep(self, x: Tensor, rows: Tensor, score: Tensor, better: Tensor) -> None:
        self.x[rows[better]] = x[better]
        self.score[rows[better]] = score[better]
        self.unconfirmed[rows[better]] = True


def _of(score: Tensor, share: float) -> Tensor:
    """A score of many draws as one of a ``share`` of them."""
    return torch.where(score < 1, score, (score * share).clamp(min=1))
