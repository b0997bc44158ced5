"""The training loop over ``accelerate``: one CPU process, one GPU or many, without a code change.

Every random number of a step follows from (seed, step, process), so that a run that was killed and resumed ends, on the
CPU, with bitwise the weights of one that was not. The data set lies on the device as one uint8 tensor.
"""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idc.compute.hardware import accelerator
from idc.data import ImageSet
from idc.errors import IDCError
from idc.noise import derive_seed
from idc.storage.fields import recorded
from idc.storage.files import whole_folder
from idc.storage.model_folder import SAMPLE, change_card
from idc.training import checkpoint as checkpoints
from idc.training import optim
from idc.training.checkpoint import RunState
from idc.training.monitor import Monitor
from idc.training.objective import TrainingObjective, Validation
from idc.training.run_folder import claim, write_summary
from idc.training.selection import Selection
from idc.training.settings import Settings
from idc.training.signals import Signals

_LOG_EVERY = 20


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended. ``stopped`` is the signal's number if it was interrupted, else 0."""

    step: int
    steps: int
    seconds: float
    accuracy: Validation | None
    best: Path
    stopped: int = 0


class Trainer:
    """Trains the network of an objective in place.

    Args:
        objective: the network, its loss, validation and file.
        recipe: all settings.
        train, validation: of the same classes and shape.
        out: the run's folder: recipe.yaml, metrics.jsonl, tensorboard/, checkpoints/, best/, last/, summary.json.
        resume: go on from the newest checkpoint in ``out``; without one, start.
        about: what the model card and recipe.yaml say of the data and network.

    Raises:
        IDCError: if ``out`` holds another run, cannot be written, or data and model do not fit.
    """

    def __init__(
        self,
        objective: TrainingObjective,
        recipe: Settings,
        train: ImageSet,
        validation: ImageSet,
        out: Path,
        *,
        resume: bool = False,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.accelerator = accelerator()
        self.recipe, self.out, self.about = recipe, out, about or {}
        self.device = self.accelerator.device
        self.bf16 = optim.resolve_precision(recipe, self.device)
        objective.check(train)
        if self.accelerator.is_main_process:
            claim(out, recipe, self.about, resume=resume)
        self.accelerator.wait_for_everyone()
        self.train, self.validation = train.to(self.device), validation.to(self.device)
        world = self.accelerator.num_processes
        self.local_batch = max(1, min(recipe.batch_size, len(train)) // world)
        self.batch = self.local_batch * world  # images of a step, of all processes
        self.steps_per_epoch = len(train) // self.batch
        self.steps = max(1, round(recipe.epochs * self.steps_per_epoch))
        objective.to(self.device, bf16=self.bf16)
        self.objective, self.raw = objective, objective.network
        self.average = optim.build_average(self.raw, recipe)
        if optim.compiles(recipe, self.device, self.steps):
            # In place: an objective that attacks calls it beside the distributed wrapper.
            optim.compile_in_place(self.raw, replayed=world == 1 and recipe.accumulation == objective.replays == 1)
        optimizer = optim.build_optimizer(self.raw, recipe, self.device)
        self.schedule = optim.LearningRate(optimizer, recipe, math.ceil(self.steps / recipe.accumulation))
        self.network, self.optimizer = self.accelerator.prepare(self.raw, optimizer)
        self.random = torch.Generator(self.device)
        self.state = RunState({images.split: [len(images), images.fingerprint] for images in (train, validation)})
        final = self.validation.take(recipe.final_limit) if recipe.final_limit else self.validation
        few, keep = self.validation.take(recipe.validation_limit), partial(self._save_model, "best")
        self.selection = Selection(self.accelerator, objective, few, final, self.bf16, self.state, out / "best", keep)
        self.sample = train.sample()
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.resumes, self.start = resume, self._restore() if resume else 0

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        """What a checkpoint keeps the state of."""
        average = {"average": self.average} if self.average else {}
        return {"network": self.raw, "optimizer": self.optimizer, "schedule": self.schedule} | average

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {name: part.state_dict() for name, part in self._parts().items()}
        checkpoints.save(self.out / "checkpoints", checkpoints.Checkpoint(step, tensors, self.state.to_dict()))
        self._save_model("last", step)

    def _save_model(self, name: str, step: int) -> None:
        card = {"Data": self.about.get("data", "?"), "recipe": recorded(self.recipe)}
        card |= {"Begun with": self.about["from"]} if "from" in self.about else {}
        card |= self.state.card(self.state.accuracy)
        card |= {SAMPLE: self.sample, "Weights": f"of epoch {self._epoch(step)} of {self._epoch(self.steps)}"}
        with whole_folder(self.out / name) as part:
            self.objective.save(self.averaged(), part, card)

    def _machine(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{self.accelerator.num_processes} x {name}"

    def _restore(self) -> int:
        found = checkpoints.load_latest(self.out / "checkpoints")
        if found is None:
            return 0
        for name, part in self._parts().items():
            part.load_state_dict(found.tensors[name])
        self.state.take_over(found.progress, self.out, self._machine())
        if found.step < self.steps:  # ended once, among other processes, whose batches make an epoch of fewer steps
            self.state.whole = None
        return found.step

    def averaged(self) -> nn.Module:
        """The network with the averaged weights (the plain ones before the first averaging)."""
        if self.average is None or self.average.n_averaged.item() == 0:
            return self.raw
        return self.average.module

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Train to the end or to a signal; checkpoints are on disk when it returns."""
        began, machine = time.monotonic(), self._machine()
        before = self.state.seconds_on.get(machine, 0.0)
        with (
            torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []),
            Signals() as signals,
            self._monitor() as monitor,
        ):
            if self.resumes:
                monitor.say(
                    f"going on from step {self.start} of {self.steps}"
                    if self.start
                    else f"{self.out} holds no checkpoint: the training begins"
                )
            step, owed = self.start, False
            while step < self.steps and not (self._whole(step) and self._stopped(signals, step)):
                loss = self.step(step)
                step += 1
                validate = self._due(step, self.recipe.validate_every) or step == self.steps
                owed = owed or self._due(step, self.recipe.checkpoint_every)
                checkpoint = owed and self._whole(step) and step < self.steps
                if step % _LOG_EVERY == 0 or validate or checkpoint:
                    self._log(monitor, step, loss)  # stops a run that diverged before it is kept
                monitor.advance(self.batch)
                self.state.seconds_on[machine] = before + time.monotonic() - began
                if validate:
                    self._align()
                    self.selection.validate(self.averaged(), monitor, step, epoch=step / self.steps_per_epoch)
                if checkpoint:
                    self._save(step)
                    owed = False
            if step > self.start:
                self._save(step)
            if step == self.steps and not self.state.whole:
                best = self.selection.judge_best(self.averaged(), monitor, step)
                monitor.best(step, best, epoch=self._epoch(self.state.best_step) if self.state.best_step else "?")
                self._save(step)
        found = self.state.whole or self.state.accuracy
        accuracy = self.objective.restored(found) if found else None
        result = TrainResult(step, self.steps, self.state.seconds, accuracy, self.out / "best", signals.received)
        if step == self.steps and self.accelerator.is_main_process:
            write_summary(
                self.out, self.state, self.recipe, self.about, steps=step, images=step * self.batch, bf16=self.bf16,
                processes=self.accelerator.num_processes, device=str(self.device),
            )  # fmt: skip
            checkpoints.prune(self.out / "checkpoints")
            # Its weights may be older than the end of the training that found them.
            change_card(result.best, self.state.card(found))
        self.accelerator.wait_for_everyone()
        return result

    def _whole(self, step: int) -> bool:
        """Whether no gradient waits for others to be summed with, and no batch for its replays: a save says all."""
        return step % math.lcm(self.recipe.accumulation, self.objective.replays) == 0

    def _due(self, step: int, epochs: float) -> bool:
        every = max(1, round(epochs * self.steps_per_epoch))
        return step % every == 0

    def _stopped(self, signals: Signals, step: int) -> bool:
        if self.accelerator.num_processes == 1:
            return bool(signals.received)
        if step % 10:  # processes must stop at the same step, and asking costs a synchronisation
            return False
        flag = torch.tensor(signals.received, device=self.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())

    def _batch(self, step: int) -> Tensor:
        epoch, index = divmod(step // self.objective.replays, self.steps_per_epoch)
        if self.order[0] != epoch:
            random = torch.Generator().manual_seed(derive_seed(self.recipe.seed, "order", epoch))
            self.order = epoch, torch.randperm(len(self.train), generator=random).to(self.device)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        first = (index * world + rank) * self.local_batch
        return self.order[1][first : first + self.local_batch]

    def step(self, step: int) -> dict[str, Tensor]:
        """One batch, forward and backward, and an update when enough are summed. Returns the loss and its parts."""
        replay = step % self.objective.replays
        chosen = self._batch(step)
        classes = self.train.labels[chosen]
        images = self.recipe.augmentation(self.train.images[chosen], self._seeded(step - replay))
        if replay:
            self._seeded(step)  # the same images, but noise of its own for each time
        last = (step + 1) % self.recipe.accumulation == 0 or step + 1 == self.steps
        self.network.train()
        self._align()
        with nullcontext() if last else self.accelerator.no_sync(self.network):
            self.objective.begin(step / self.steps, replay=replay)
            terms = self.objective.loss(self._call, images, classes, self.random)
            self.accelerator.backward(terms["total"] / self.recipe.accumulation)
            self.objective.end()
        if last:
            self._update(terms["total"], step)
        return {name: value.detach() for name, value in terms.items()}

    def _seeded(self, step: int) -> torch.Generator:
        """The generator of a step, at its beginning; dropout draws from the global one, which run() forked."""
        seed = derive_seed(self.recipe.seed, "step", step, self.accelerator.process_index)
        torch.manual_seed(seed + 1)
        return self.random.manual_seed(seed)

    def _align(self) -> None:
        """Give every process the first one's running statistics, of which each has its own after a step: what a step
        and the average do must not depend on who does it, nor on where a run was resumed."""
        if self.accelerator.num_processes > 1:
            for buffer in self.raw.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(*args, **kwargs)

    def _update(self, loss: Tensor, step: int) -> None:
        if self.recipe.clip_norm > 0:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # Only "plateau" looks at the loss, averaged over processes so that all take the same decision.
        plateau = self.schedule.plateau
        self.schedule.step(float(self.accelerator.reduce(loss.detach(), reduction="mean")) if plateau else 0.0)
        update = (step + 1) // self.recipe.accumulation
        past = update - self.recipe.ema_start
        if self.average is not None and past >= 0 and past % self.recipe.ema_every == 0:
            self._align()
            self.average.update_parameters(self.raw)

    # -- watching ------------------------------------------------------------------------------------------------------

    def _monitor(self) -> Monitor:
        out = self.out if self.accelerator.is_main_process else None
        done, judged = self.start * self.batch, self.state.whole is not None
        return Monitor(out, total=self.steps * self.batch, done=done, step=self.start, judged=judged)

    def _log(self, monitor: Monitor, step: int, loss: dict[str, Tensor]) -> None:
        means = self.accelerator.reduce(torch.stack(list(loss.values())), reduction="mean")
        values = dict(zip(loss, means.tolist(), strict=True))
        if not math.isfinite(values["total"]):
            remedy = "lower --lr, or resume from the last checkpoint"
            raise IDCError(f"loss {values['total']} at step {step}", "a finite number", remedy)
        lr = self.optimizer.param_groups[0]["lr"]
        monitor.scalars(step, {f"loss/{k}": v for k, v in values.items()} | {"lr": lr})

    def _epoch(self, step: int) -> str:
        return f"{step / self.steps_per_epoch:.4g}"
