"""Model selection: which weights of a run are the best on its validation images, and what they are worth there."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from idc.compute.modes import evaluation_mode
from idc.data import ImageSet
from idc.errors import IDCError
from idc.training.checkpoint import RunState
from idc.training.monitor import Monitor
from idc.training.objective import TrainingObjective, Validation

_TIMED = 64  # images


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Validates a run's weights in short, keeps the best, and measures those at the end.

    Args:
        accelerator: of the run; each process validates a share of the images.
        objective: validates, and reads kept weights.
        few: the images of every validation in short.
        final: those of the last one.
        learned: training images, on which the best weights are judged too.
        bf16: whether the network runs in bf16.
        state: of the run, in which the validations are noted.
        folder: of the best weights.
        keep: writes the weights of a step into that folder.
    """

    accelerator: Accelerator
    objective: TrainingObjective
    few: ImageSet
    final: ImageSet
    learned: ImageSet
    bf16: bool
    state: RunState
    folder: Path
    keep: Callable[[int], None]

    def validate(self, network: nn.Module, monitor: Monitor, step: int, *, epoch: float) -> None:
        """Validate ``network`` in short, and keep it if it is the best so far."""
        found = self._measured(network, self.few, final=False)
        before, values = self.state.accuracy, dict(found.to_dict())
        self.state.accuracy = values
        if before and before.get("attacked_by") != values.get("attacked_by"):
            self.state.best = None  # of an older version's attack: nothing to compare with
        monitor.validation(step, found, epoch=epoch, seconds=self.state.seconds)
        if self.accelerator.is_main_process:
            with evaluation_mode(network):
                picture = self.objective.pictures(network, self.few)
            if picture:
                monitor.picture(step, *picture)
        if self.state.best is None or found.score >= self.state.best:
            self.state.best, self.state.best_step = found.score, step
            if self.accelerator.is_main_process:
                self.keep(step)

    def on(self, many: int) -> "Selection":
        """The same, which judges the best weights on so many images, and on as many training images."""
        learned = self.learned.take(torch.arange(min(many, len(self.learned))))
        return replace(self, final=self.final.take(many), learned=learned)

    def seconds_an_image(self, network: nn.Module) -> float:
        """What an image of the last validation takes, measured on a few; the slowest process's."""
        few = self.few.take(min(_TIMED, len(self.few)))
        seconds = 0.0
        for _ in range(2):  # the first call may compile
            began = time.monotonic()
            self._measured(network, few, final=True)
            seconds = time.monotonic() - began
        found = torch.tensor(seconds / len(few), device=self.accelerator.device)
        return float(self.accelerator.gather(found).max())

    def judge_best(self, network: nn.Module, monitor: Monitor, step: int) -> Validation:
        """Measure the weights that are kept as the best, which need not be the last, on all images or a part, and on
        training images.

        Args:
            network: with the last weights, those of ``step``; it has them again afterwards.
            monitor: is told if the last ones take the place of best ones that cannot be read.
            step: the last.
        """
        own = {k: v.clone() for k, v in network.state_dict().items()}
        if self.accelerator.is_main_process and self.state.best_step != step:
            try:
                self.objective.load(network, self.folder)
            except IDCError as error:
                monitor.say(f"{error}; here the last weights take its place")
                self.state.best_step = step
                self.keep(step)
        if self.accelerator.num_processes > 1:  # one process reads and writes the folder
            for tensor in network.state_dict().values():
                plain = tensor.contiguous()
                torch.distributed.broadcast(plain, 0)
                tensor.copy_(plain)
        self.state.fit = dict(self._measured(network, self.learned, final=True).to_dict())
        found = self._measured(network, self.final, final=True)
        network.load_state_dict(own)
        self.state.whole, self.state.facts = dict(found.to_dict()), self.objective.facts()
        return found

    def _measured(self, network: nn.Module, data: ImageSet, *, final: bool) -> Validation:
        shard = (self.accelerator.process_index, self.accelerator.num_processes)
        with evaluation_mode(network):
            counts = self.objective.validate(network, data, final=final, bf16=self.bf16, shard=shard)
        return self.objective.judged(self.accelerator.reduce(counts, reduction="sum"), final=final)
