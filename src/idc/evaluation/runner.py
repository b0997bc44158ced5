"""Runs a protocol over images: in blocks shared out over processes, a line an image, resumable after a kill.

An image's result follows from the seed, its id and, for third parties' attacks, the block that it is in. Blocks do not
depend on the number of processes nor on the batch size, so neither does the result; of a block that a kill interrupted,
the attack that was running is run again.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idc.attacks.target import Target
from idc.errors import IDCError
from idc.evaluation import BLOCK
from idc.evaluation.block import Block
from idc.evaluation.identity import PROBED, describe_model, probe, same_answers
from idc.evaluation.nested import Larger
from idc.evaluation.protocol import Protocol, published
from idc.evaluation.summary import COSTS, LINES
from idc.noise import Streams, derive_seed
from idc.storage import records
from idc.storage.files import make_folder, write_json
from idc.storage.tensor_file import load_tensors, save_tensors
from idc.text import eps_text
from idc.types import Classifier, Logits

PICTURES = 8  # images of the first block that are kept for the report
KEPT = "adversarial"
FIRST = "first.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """The images of an evaluation.

    Args:
        images: (N, C, H, W), uint8 or float in [0, 1].
        classes: (N,) int64, true.
        ids: (N,) int64, each its own.
        about: what they are, for the record.
    """

    images: Tensor
    classes: Tensor
    ids: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, part: slice, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Images as float in [0, 1], classes and ids of some of them."""
        images = self.images[part].to(device)
        images = images.to(torch.float32).div(255) if images.dtype == torch.uint8 else images.to(torch.float32)
        return images, self.classes[part].to(device), self.ids[part].to(device)

    def first(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The first images, and their ids."""
        images, _, ids = self.part(slice(count), device)
        return images, ids


_NAMES = {"classifier.fingerprint": "model", "classifier.name": "model", "data.fingerprint": "images",
          "data.source": "data", "protocol.name": "protocol",
          "classifier.config.unet.mirrored": "answer (--mirrored)"}  # fmt: skip


def _told(name: str, held: Any, own: Any) -> str:
    """A setting by its name for users, or the last part of its dotted one, with both values if they are short."""
    if name.startswith("protocol.attacks.") and None in (held, own):
        attack = name.removeprefix("protocol.attacks.")
        if isinstance(own if held is None else held, dict):
            return f"attacks ({attack} {'here' if held is None else 'there'} alone)"
        attack, _, setting = attack.rpartition(".")
        then, now = ("none" if v is None else v for v in (held, own))
        return f"{setting} of {attack} ({then} there, {now} here)"
    short = all(isinstance(v, bool | int | float | str | list) and len(str(v)) <= 24 for v in (held, own))
    last = name.rpartition(".")[2]
    held, own = (eps_text(v) if last == "eps" and isinstance(v, float) else v for v in (held, own))
    return _NAMES.get(name, last) + (f" ({held} there, {own} here)" if short else "")


def _differing(held: Any, own: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The settings in which two records differ: dotted name, and both values."""
    if isinstance(held, dict) and isinstance(own, dict):
        for key in [*own, *(k for k in held if k not in own)]:
            yield from _differing(held.get(key), own.get(key), f"{path}.{key}" if path else str(key))
    elif held != own:
        yield path, held, own


def hold_settings(out: Path, settings: dict[str, Any]) -> None:
    """Create the folder ``out`` and note the settings, or check them against those of the run that it holds.

    Raises:
        IDCError: if the folder holds a result of other settings, or of other answers, or cannot be written.
    """
    make_folder(out)
    file, own = out / "settings.json", json.loads(json.dumps(settings))
    if not file.exists():
        write_json(file, own)
        return
    held = records.read_json(file, "remove the folder or choose another --out")
    if differ := [one for one in _differing(held, own) if one[0].partition(".")[0] != "answers"]:
        expected = f"a result of the same {', '.join(dict.fromkeys(_told(*one) for one in differ[:3]))}"
        for name, was, now in differ:
            if name == "data.images":
                expected = f"a result of {was} images (now {now}: --limit or --split?)"
        raise IDCError(out, expected, "choose another --out, or remove this one")
    if not same_answers(held, own):
        expected = "a result of the same answers (the model has the weights of then, and other answers)"
        raise IDCError(out, expected, "choose another --out, or remove this one")


@dataclass(frozen=True, slots=True, eq=False)
class Runner:
    """One evaluation of one classifier.

    Args:
        classifier: in evaluation mode, on its device.
        problem: the images.
        protocol: what is done, which is then that for this classifier, see ``Protocol.for_target``.
        out: folder of the result.
        name: of the classifier, as the user knows it.
        seed: of all random numbers.
        chunk: images times draws in one call of the model; memory, not results, depends on it.
        block: images that are attacked together; a GPU is filled by more of them than a CPU.
        keep: keep every image's worst adversarial image in ``out/adversarial``.
        rank, world: this process and how many there are.
        larger: what an evaluation at a larger radius has shown, so that it need not be shown again.
        inside: by name, functions that were found in the model, besides those that it names, see ``look_inside``.
    """

    classifier: Classifier
    problem: Problem
    protocol: Protocol
    out: Path
    name: str = ""
    seed: int = 0
    chunk: int = 512
    block: int = BLOCK
    keep: bool = False
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    larger: Larger | None = None
    inside: Mapping[str, Logits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "protocol", self.protocol.for_target(Target.of(self.classifier, name=self.name)))

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, but for the model's code."""
        return {
            "protocol": self.protocol.to_dict(),
            "data": self.problem.about | {"images": len(self.problem)},
            "seed": self.seed,
            "block": self.block,
            "classifier": describe_model(self.classifier, self.name),
        }

    def answers(self) -> dict[str, Any]:
        """The model's answers to the first images, see ``probe``: what of it the settings do not show."""
        return {"answers": probe(self.classifier, *self.problem.first(PROBED, self.device), name=self.name)}

    def prepare(self) -> None:
        """Create the folder and note the settings, or check them against those of the run that it holds.

        Raises:
            IDCError: if the folder holds a result of other settings or cannot be written.
        """
        hold_settings(self.out, self.settings() | self.answers())

    def target(self) -> Target:
        """The classifier as the protocol's attacks see it."""
        target = Target.of(self.classifier, chunk=self.chunk, name=self.name)
        target = target.with_surrogates({**target.surrogates, **self.inside})
        return published(target) if self.protocol.needs_published else target

    @property
    def blocks(self) -> int:
        """How many blocks the images fill."""
        return (len(self.problem) + self.block - 1) // self.block

    def images(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images as float in [0, 1], classes and ids of block ``index``."""
        return self.problem.part(slice(index * self.block, (index + 1) * self.block), self.device)

    def run(
        self,
        advance: Callable[[int], object] = lambda images: None,
        describe: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Evaluate this process's share of what is not yet done.

        Args:
            advance: is told how many images have finished.
            describe: is told what is being done.
        """
        done, costs = records.finished(self.out, LINES), records.read_all(self.out, f"{COSTS}-*.jsonl", "block")
        ids = self.problem.ids.tolist()
        for index in range(self.blocks):
            own = ids[index * self.block : (index + 1) * self.block]
            lost = index not in costs or (self.keep and not self._kept(index).exists())
            missing = own if lost else [i for i in own if i not in done]
            if index % self.world == self.rank:
                if missing:
                    self._block(index, set(missing), describe)
                self._partial(index).unlink(missing_ok=True)
                advance(len(own))

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that has nothing left to do; ``prepare`` has seen that its settings are these."""
        kept = not self.keep or all(self._kept(index).exists() for index in range(self.blocks))
        file, ids = self.out / "summary.json", self.problem.ids.tolist()
        return records.read_whole(file, LINES, ids, records.SUMMARY) if kept else None

    def _block(self, index: int, missing: set[int], describe: Callable[[str], object]) -> None:
        images, classes, ids = self.images(index)
        target = self.target()
        block = Block(target, images, classes, Streams(ids, derive_seed(self.seed, "evaluation")), self.protocol,
                      self.classifier.num_classes, self.larger)  # fmt: skip
        self._resume(index, block)
        for name, attack in self.protocol.attacks:
            if name not in block.judged:
                describe(f"images ({name})")
                block.attack(name, attack)
                tensors, values = block.state()
                save_tensors(self._partial(index), tensors, {"values": json.dumps(values)})
        lines = [line for line in block.lines() if line["id"] in missing]
        if self.keep:
            make_folder(self.out / KEPT)
            save_tensors(self._kept(index), {"images": block.worst, "ids": ids})
        if index == 0:
            pictures = {"images": images[:PICTURES], "worst": block.worst[:PICTURES], "ids": ids[:PICTURES]}
            save_tensors(self.out / FIRST, pictures)
        cost = {
            "block": index,
            "images": int(block.attacked.sum()),
            "seconds": block.seconds,
            "flags": target.tally.flags,
        }
        cost |= target.tally.counts()
        records.append(self.out / f"{COSTS}-{self.rank}.jsonl", [cost])
        records.append(self.out / f"{LINES}-{self.rank}.jsonl", lines)

    def _resume(self, index: int, block: Block) -> None:
        """Take over the attacks that an interrupted run has finished on this block; a damaged file is left aside."""
        if not self._partial(index).exists():
            return
        try:
            tensors, about = load_tensors(self._partial(index))
            block.restore(tensors, json.loads(about["values"]))
        except (KeyError, ValueError, TypeError):
            self._partial(index).unlink(missing_ok=True)

    def pictures(self) -> dict[str, Tensor] | None:
        """The first ``images``, the ``worst`` adversarial ones of them and their ``ids``; None where they are lost."""
        try:
            held, _ = load_tensors(self.out / FIRST)
            return {name: held[name].to(self.device) for name in ("images", "worst", "ids")}
        except (OSError, KeyError, ValueError):
            return None

    def _partial(self, index: int) -> Path:
        return self.out / f"partial-{index:06d}.safetensors"

    def _kept(self, index: int) -> Path:
        return self.out / KEPT / f"block-{index:06d}.safetensors"


def kept_images(out: Path, most: int) -> tuple[Tensor, Tensor]:
    """Adversarial images that an evaluation kept in ``out``, and their ids: all blocks', or the first few; or none."""
    blocks = sorted((out / KEPT).glob("block-*.safetensors"))
    name, files = ("images", blocks) if blocks else ("worst", [out / FIRST])
    try:
        images: list[Tensor] = []
        ids: list[Tensor] = []
        for file in files:
            if sum(len(one) for one in ids) < most:
                held, _ = load_tensors(file)
                images.append(held[name])
                ids.append(held["ids"])
        return torch.cat(images)[:most], torch.cat(ids)[:most]
    except (OSError, KeyError, ValueError):
        return torch.empty(0), torch.empty(0, dtype=torch.int64)
