"""A block of images on its way through a protocol: judged clean, under noise and after every attack."""

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from idc.attacks.gradient import Attack
from idc.attacks.target import ANSWER, Target
from idc.errors import IDCError, foreign
from idc.evaluation.nested import Larger
from idc.evaluation.protocol import Protocol
from idc.evaluation.verdict import Judged, judge
from idc.noise import Streams
from idc.types import answered

GATING_DRAWS = 10


class Block:
    """Images, their verdicts, and for each the worst adversarial example found so far.

    Args:
        target: the model.
        images: (B, C, H, W) in [0, 1]; classes: (B,), true.
        streams: of the images' random numbers.
        protocol: what is done.
        num_classes: K.
        larger: which of them are not attacked, if any, and by which attacks none is.
    """

    def __init__(
        self,
        target: Target,
        images: Tensor,
        classes: Tensor,
        streams: Streams,
        protocol: Protocol,
        num_classes: int,
        larger: Larger | None = None,
    ) -> None:
        self.larger = larger or Larger(protocol.threat.eps)
        spared = [image in self.larger.spared for image in streams.ids.tolist()]
        self.attacked = ~torch.tensor(spared, device=images.device)
        self.target, self.images, self.classes, self.streams = target, images, classes, streams
        self.protocol, self.num_classes = protocol, num_classes
        self.seconds: dict[str, float] = {}
        began = time.perf_counter()
        self.clean = self._judge(images, streams.of("clean"))
        # Where nothing attacks, there is one judgement: that of the images as they are.
        compared = protocol.attacks and not protocol.within
        noise = protocol.threat.random(images, streams.of("random noise")) if compared else None
        self.noise = self.clean if noise is None else self._judge(noise, streams.of("noise"))
        self.seconds["judge"] = time.perf_counter() - began
        self.worst, self.right = images.clone(), self._right(self.clean, classes)
        self.names = [""] * len(images)
        self.judged: dict[str, list[Judged | None]] = {}
        self.distances: dict[str, list[float | None]] = {}

    @property
    def gates(self) -> bool:
        """Whether images without a right draw are done: not where so few draws may all be wrong by luck."""
        enough = not self.target.stochastic or self.protocol.draws >= GATING_DRAWS
        return self.protocol.gate and enough

    def attack(self, name: str, attack: Attack) -> None:
        """Run ``attack``, judge what it returns, keep the worse points.

        One without a threat of its own looks for the smallest change of any size: it is judged, but is no part of the
        worst within the ball. Of one that says ``nearest`` the distances are kept, and those within the ball count.
        """
        if name in self.larger.same:
            known = self.larger.same[name]
            self.judged[name] = [Judged(*known[image]) for image in self.streams.ids.tolist()]
            return
        began = time.perf_counter()
        nearest = getattr(attack, "nearest", False)
        open_to_it = self.attacked & (self.right > 0) if self.gates and not nearest else self.attacked
        rows = open_to_it.nonzero()[:, 0]
        self.judged[name] = [None] * len(self.images)
        if nearest:
            self.distances[name] = [None] * len(self.images)
        if len(rows):
            images, classes = self.images[rows], self.classes[rows]
            with foreign(f"attack {name}", "an attack that works"):
                found = attack(self.target, images.clone(), classes.clone(), self.streams.of("attack", name).take(rows))
            found, finite = _points(name, found, images)
            if nearest:
                found = self._measure(name, rows, found, images)
            judged = self._judge(found, self.streams.of("judge", name).take(rows))
            each = judge(judged, classes, self.num_classes)
            for row, one, own in zip(rows.tolist(), each, finite.tolist(), strict=True):
                self.judged[name][row] = replace(one, finite=own)
            if getattr(attack, "threat", None) is not None:
                self._inside(name, found, images)
                self._keep(name, rows, found, self._right(judged, classes))
        self.seconds[name] = time.perf_counter() - began

    def _measure(self, name: str, rows: Tensor, found: Tensor, images: Tensor) -> Tensor:
        """Note how far the adversarial examples among ``found`` are; return those within the ball, else the images."""
        judged = self._judge(found, self.streams.of("distance", name).take(rows))
        sizes = self.protocol.threat.size(found, images)
        votes = [one.vote for one in judge(judged, self.classes[rows], self.num_classes)]
        wrong = torch.tensor(votes, device=rows.device) != self.classes[rows]
        for row, size, fooled in zip(rows.tolist(), sizes.tolist(), wrong.tolist(), strict=True):
            self.distances[name][row] = round(size, 7) if fooled else None
        inside = (sizes <= self.protocol.threat.eps).view(-1, 1, 1, 1)
        return torch.where(inside, found, images)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the attacks so far have found: tensors, and JSON-ready values."""
        tally = self.target.tally
        return {"worst": self.worst, "right": self.right}, {
            "names": self.names,
            "judged": {name: [_pair(j) for j in judged] for name, judged in self.judged.items()},
            "distances": self.distances,
            "seconds": self.seconds,
            "tally": tally.counts() | {"flags": tally.flags},
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from ``state``: attacks that it has in ``judged`` are done."""
        self.worst, self.right = (tensors[name].to(self.images.device) for name in ("worst", "right"))
        self.names, self.seconds = values["names"], values["seconds"]
        self.distances = values.get("distances", {})
        self.judged = {n: [None if j is None else Judged(*j) for j in judged] for n, judged in values["judged"].items()}
        for name, value in values["tally"].items():
            setattr(self.target.tally, name, value)

    def _keep(self, name: str, rows: Tensor, found: Tensor, right: Tensor) -> None:
        # Of equal points the attacked one is kept, so that what survives is judged where it was attacked.
        untouched = torch.tensor([not self.names[row] for row in rows.tolist()], device=rows.device)
        moved = (found != self.images[rows]).flatten(1).any(1)
        better = moved & ((right < self.right[rows]) | ((right == self.right[rows]) & untouched))
        self.worst[rows[better]], self.right[rows[better]] = found[better], right[better]
        for row in rows[better].tolist():
            self.names[row] = name

    def _inside(self, name: str, found: Tensor, images: Tensor) -> None:
        threat = self.protocol.threat
        size = threat.size(found, images).max().item()
        if not size <= threat.eps * (1 + 1e-5) + 1e-6 or found.min() < 0 or found.max() > 1:
            expected = f"points in [0, 1], not further than {threat.eps:g} from their images (one is {size:g} away)"
            raise IDCError(f"attack {name}", expected, "let it end with Threat.project, which gives such points")

    def lines(self) -> list[dict[str, Any]]:
        """One JSON-ready record an image: right draws and majority vote, clean, under noise, after each attack and on
        the worst adversarial example.

        That one was picked by its count of right draws, which flatters the attack; so every image is judged once
        more, afresh, also where no attack lowered it: keeping only its lucky draws would be as unfair.
        """
        began = time.perf_counter()
        final = self._judge(self.worst, self.streams.of("final")) if self.protocol.attacks else self.clean
        self.seconds["judge"] += time.perf_counter() - began
        clean, noise, robust = (judge(a, self.classes, self.num_classes) for a in (self.clean, self.noise, final))
        sizes = self.protocol.threat.size(self.worst, self.images).tolist()
        found = []
        for row, (image, true) in enumerate(zip(self.streams.ids.tolist(), self.classes.tolist(), strict=True)):
            found.append({
                "id": image,
                "class": true,
                "draws": len(self.clean),
                "clean": _pair(clean[row]),
                "noise": _pair(noise[row]),
                "attacks": {name: _pair(judged[row]) for name, judged in self.judged.items()},
                "robust": _pair(robust[row]),
                "worst": self.names[row],
                "size": round(sizes[row], 7),
                # As the paper counts: one draw, right both clean and attacked.
                "single": bool(self.clean[0, row] == true and final[0, row] == true),
            } | self.larger.remark(image) | self._nearest(row))  # fmt: skip
        return found

    def _nearest(self, row: int) -> dict[str, Any]:
        far = {name: found[row] for name, found in self.distances.items()}
        return {"distances": far} if far else {}

    def _judge(self, images: Tensor, streams: Streams) -> Tensor:
        """(n, B) answers of the real classifier with the noise of ``streams``; n = 1 if it draws none."""
        draws = self.protocol.draws if self.target.stochastic else 1
        return answered(self.target.logits(ANSWER, images, streams, draws=draws))

    @staticmethod
    def _right(judged: Tensor, classes: Tensor) -> Tensor:
        return (judged == classes).sum(0)


def _points(name: str, found: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the attack ``name`` returned, as points like ``images`` (B, C, H, W), and whether each is finite (B,); in
    place of one that is not stands its image.

    Raises:
        IDCError: if it is no such tensor.
    """
    if not isinstance(found, Tensor) or found.shape != images.shape or not found.is_floating_point():
        tensor = isinstance(found, Tensor)
        given = f"{found.dtype} of shape {tuple(found.shape)}" if tensor else f"a {type(found).__name__}"
        expected = f"floating-point images of shape {tuple(images.shape)} (it returned {given})"
        raise IDCError(f"attack {name}", expected, "return one adversarial image for each image given")
    found = found.detach().to(images)
    finite = torch.isfinite(found).flatten(1).all(1)
    return torch.where(finite.view(-1, 1, 1, 1), found, images), finite


def _pair(judged: Judged | None) -> list[int] | None:
    if judged is None:
        return None
    return [judged.right, judged.vote] if judged.finite else [judged.right, judged.vote, False]
