"""The training loop over ``accelerate``: one CPU process, one GPU or many, without a code change.

Every random number of a step follows from (seed, step, process), so that a run that was killed and resumed ends, on the
CPU, with bitwise the weights of one that was not. The data set lies on the device as one uint8 tensor.
"""

import math
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idc.compute.hardware import accelerator
from idc.data import ImageSet
from idc.errors import IDCError
from idc.storage.fields import recorded
from idc.storage.files import whole_folder
from idc.storage.model_folder import SAMPLE, change_card
from idc.text import epoch_text
from idc.training import checkpoint as checkpoints
from idc.training import optim
from idc.training.batches import Batches
from idc.training.checkpoint import RunState
from idc.training.monitor import Monitor
from idc.training.objective import TrainingObjective, Validation, minimisable
from idc.training.pace import build_pace
from idc.training.result import TrainResult, remarks
from idc.training.run_folder import claim, write_summary
from idc.training.selection import Selection
from idc.training.settings import Settings
from idc.training.signals import Signals

_LOG_EVERY = 20
_REVISITED = 1_000  # training images on which the best weights are judged too, at most


class Trainer:
    """Trains the network of an objective in place.

    Args:
        objective: the network, its loss, validation and file.
        recipe: all settings.
        train, validation: of the same classes and shape.
        out: the run's folder: recipe.yaml, metrics.jsonl, tensorboard/, checkpoints/, best/, last/, summary.json.
        resume: go on from the newest checkpoint in ``out``; without one, start.
        about: what the model card and recipe.yaml say of the data and network.
        began: ``time.monotonic`` from which the recipe's ``minutes`` count; by default now.

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
        began: float | None = None,
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
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.batches = Batches(self.train, recipe, replays=objective.replays, rank=rank, world=world)
        self.batch = self.batches.size * world  # images of a step, of all processes
        self.steps = max(1, round(recipe.epochs * self.batches.per_epoch))  # of the schedule
        objective.to(self.device, bf16=self.bf16)
        self.objective, self.raw = objective, objective.network
        objective.follow(self.averaged)
        self.average = optim.build_average(self.raw, recipe)
        self.pace = build_pace(recipe, self.steps, self.accelerator, began=began)
        if optim.compiles(recipe, self.device, self.steps):
            # In place: an objective that attacks calls it beside the distributed wrapper.
            optim.compile_in_place(self.raw, replayed=world == 1 and recipe.accumulation == objective.replays == 1)
        optimizer = optim.build_optimizer(self.raw, recipe, self.device)
        updates = math.ceil(self.steps / recipe.accumulation)
        share = (lambda: self.pace.share) if recipe.minutes else None
        self.schedule = optim.LearningRate(optimizer, recipe, updates, share=share)
        self.network, self.optimizer = self.accelerator.prepare(self.raw, optimizer)
        self.state = RunState({images.split: [len(images), images.fingerprint] for images in (train, validation)})
        final = self.validation.take(recipe.final_limit) if recipe.final_limit else self.validation
        few, keep = self.validation.take(recipe.validation_limit), partial(self._save_model, "best")
        some = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(recipe.seed))
        sets = (few, final, self.train.take(some[: min(len(final), _REVISITED)]))
        self.selection = Selection(self.accelerator, objective, *sets, self.bf16, self.state, out / "best", keep)
        self.sample = train.sample()
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
        self.state.clock = self.pace.clock
        checkpoints.save(self.out / "checkpoints", checkpoints.Checkpoint(step, tensors, self.state.to_dict()))
        self._save_model("last", step)

    def _save_model(self, name: str, step: int) -> None:
        card = {"Data": self.about.get("data", "?"), "recipe": recorded(self.recipe)}
        card |= {"Begun with": self.about["from"]} if "from" in self.about else {}
        card |= self.state.card(self.state.accuracy)
        whole = self._epoch(self.pace.expected(step))
        card |= {SAMPLE: self.sample, "Weights": f"of epoch {self._epoch(step)} of {whole}"}
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
        self.pace.go_on(found.step, self.state.clock, finished=self.state.whole is not None)
        if not self.pace.ended:  # ended once, among other processes, whose batches make an epoch of fewer steps
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
                spent = "its minutes are spent, at" if self.recipe.minutes and self.pace.ended else "going on from"
                told = "nothing to train: the run was finished at" if self.state.whole else spent
                told = f"{told} step {self.start} of {self.pace.expected(self.start)}"
                monitor.say(told if self.start else f"{self.out} holds no checkpoint: the training begins")
            step, owed = self.start, False
            while not (self._ended(step) or (self._whole(step) and self._stopped(signals, step))):
                loss = self.step(step)
                step += 1
                self.pace.reach(step)
                ended = self._ended(step)
                plan = self.pace.wants_figures and self._whole(step)
                validate = self._due("validation", self.recipe.validate_every) or ended or plan
                owed = owed or self._due("files", self.recipe.checkpoint_every) or plan
                checkpoint = owed and self._whole(step) and not ended
                if step % _LOG_EVERY == 0 or validate or checkpoint:
                    self._log(monitor, step, loss)  # stops a run that diverged before it is kept
                monitor.advance(self.batch, total=self.pace.expected(step) * self.batch)
                self.state.seconds_on[machine] = before + time.monotonic() - began
                if validate:
                    self._align()
                    with self.pace.pause("validation"):
                        self.selection.validate(self.averaged(), monitor, step, epoch=step / self.batches.per_epoch)
                if checkpoint:
                    with self.pace.pause("files"):
                        self._save(step)
                    owed = False
                if plan:
                    self._plan_end()
            if step > self.start:
                self._save(step)
            ended = self._ended(step) and self.pace.last in (None, step)
            if ended and not self.state.whole:
                best = self.selection.judge_best(self.averaged(), monitor, step)
                monitor.best(step, best, epoch=self._epoch(self.state.best_step) if self.state.best_step else "?")
                self._save(step)
        found = self.state.whole or self.state.accuracy
        accuracy = self.objective.restored(found) if found else None
        steps = step if ended else self.pace.expected(step)
        if ended and self.accelerator.is_main_process:
            write_summary(
                self.out, self.state, self.recipe, self.about, steps=step, images=step * self.batch, bf16=self.bf16,
                processes=self.accelerator.num_processes, device=str(self.device),
            )  # fmt: skip
            checkpoints.prune(self.out / "checkpoints")
            # Its weights may be older than the end of the training that found them.
            change_card(self.out / "best", self.state.card(found) | self.state.facts)
        self.accelerator.wait_for_everyone()
        notes = self._remarks(accuracy, step) if self.accelerator.is_main_process else ()
        return TrainResult(step, steps, self.state.seconds, accuracy, self.out / "best", signals.received, notes)

    def _remarks(self, found: Validation | None, step: int) -> tuple[str, ...]:
        if found is None:
            return ()
        fit = self.objective.restored(self.state.fit) if self.state.fit else None
        sets, updates = (self.train, self.validation), step // self.recipe.accumulation
        return tuple(remarks(found, fit, *sets, self.recipe, updates=updates))

    def _whole(self, step: int) -> bool:
        """Whether no gradient waits for others to be summed with, and no batch for its replays: a save says all."""
        return step % math.lcm(self.recipe.accumulation, self.objective.replays) == 0

    def _ended(self, step: int) -> bool:
        return self.pace.ended and (self.pace.last is not None or self._whole(step))

    def _due(self, kind: str, epochs: float) -> bool:
        return self.pace.due(kind, max(1, round(epochs * self.batches.per_epoch)))

    def _plan_end(self) -> None:
        """By the clock: the best weights are judged on no more images than a twentieth of the time lets them."""
        one = self.selection.seconds_an_image(self.averaged())
        many = self.pace.plan_end(one, len(self.selection.final))
        self.selection = self.selection.on(many)

    def _stopped(self, signals: Signals, step: int) -> bool:
        if self.accelerator.num_processes == 1:
            return bool(signals.received)
        if step % 10:  # processes must stop at the same step, and asking costs a synchronisation
            return False
        flag = torch.tensor(signals.received, device=self.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())

    def step(self, step: int) -> dict[str, Tensor]:
        """One batch, forward and backward, and an update when enough are summed. Returns the loss and its parts."""
        images, classes = self.batches.take(step)
        last = (step + 1) % self.recipe.accumulation == 0 or step + 1 == self.pace.last
        self.network.train()
        self._align()
        with nullcontext() if last else self.accelerator.no_sync(self.network):
            self.objective.begin(self.pace.share_at(step), replay=step % self.objective.replays)
            terms = minimisable(self.objective.loss(self._call, images, classes, self.batches.random))
            self.accelerator.backward(terms["total"] / self.recipe.accumulation)
            self.objective.end()
        if last:
            self._update(terms["total"], step)
        return {name: value.detach() for name, value in terms.items()}

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
        update, start = (step + 1) // self.recipe.accumulation, self.recipe.ema_start
        begun = self.pace.updates(update, self.recipe.accumulation) >= start
        if self.average is not None and begun and (update - start) % self.recipe.ema_every == 0:
            self._align()
            self.average.update_parameters(self.raw)

    # -- watching ------------------------------------------------------------------------------------------------------

    def _monitor(self) -> Monitor:
        out = self.out if self.accelerator.is_main_process else None
        total, done = (self.batch * steps for steps in (self.pace.expected(self.start), self.start))
        return Monitor(out, total=total, done=done, step=self.start, judged=self.state.whole is not None)

    def _log(self, monitor: Monitor, step: int, loss: dict[str, Tensor]) -> None:
        means = self.accelerator.reduce(torch.stack(list(loss.values())), reduction="mean")
        values = dict(zip(loss, means.tolist(), strict=True))
        if not math.isfinite(values["total"]):
            remedy = "lower --lr, or resume from the last checkpoint"
            raise IDCError(f"loss {values['total']} at step {step}", "a finite number", remedy)
        lr = self.optimizer.param_groups[0]["lr"]
        monitor.scalars(step, {f"loss/{k}": v for k, v in values.items()} | {"lr": lr})

    def _epoch(self, step: int) -> str:
        return epoch_text(step / self.batches.per_epoch)
