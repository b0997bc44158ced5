"""The training loop over ``accelerate``: one CPU process, one GPU or many, without a code change.

Every random number of a step follows from (seed, step, process), so that a run that was killed and resumed ends, on the
CPU, with bitwise the weights of one that was not. The data set lies on the device as one uint8 tensor.
"""

import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from idc import saved
from idc.data import ImageSet
from idc.errors import IDCError
from idc.files import whole_folder, write_json
from idc.modes import evaluation_mode
from idc.noise import derive_seed
from idc.training import checkpoint as checkpoints
from idc.training.monitor import Monitor
from idc.training.objective import Objective, Validation
from idc.training.optim import Schedule, build_average, build_optimizer, compiles, resolve_precision
from idc.training.run_folder import claim
from idc.training.settings import Settings
from idc.training.signals import Signals

_LOG_EVERY = 20
_NONE_YET: dict[str, Any] = {"best": None, "best_step": None, "accuracy": None, "whole": None}  # of validations


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
        objective: Objective,
        recipe: Settings,
        train: ImageSet,
        validation: ImageSet,
        out: Path,
        *,
        resume: bool = False,
        about: dict[str, Any] | None = None,
    ) -> None:
        # Without a GPU, accelerate takes several processes for one each unless it is told that they share the CPU.
        shared = "LOCAL_RANK" in os.environ and not torch.cuda.is_available()
        self.accelerator = Accelerator(cpu=True) if shared else Accelerator()
        self.recipe, self.out, self.about = recipe, out, about or {}
        self.device = self.accelerator.device
        self.bf16 = resolve_precision(recipe, self.device)
        objective.check(train)
        if self.accelerator.is_main_process:
            claim(out, recipe, self.about, resume=resume)
        self.accelerator.wait_for_everyone()
        self.train, self.validation = train.to(self.device), validation.to(self.device)
        world = self.accelerator.num_processes
        self.local_batch = max(1, min(recipe.batch_size, len(train)) // world)
        self.steps_per_epoch = len(train) // (self.local_batch * world)
        self.steps = max(1, round(recipe.epochs * self.steps_per_epoch))
        objective.to(self.device, bf16=self.bf16)
        self.objective, self.raw = objective, objective.network
        self.average = build_average(self.raw, recipe)
        if compiles(recipe, self.device, self.steps):
            # In place: an objective that attacks calls it beside the distributed wrapper.
            _compile(self.raw, replayed=world == 1 and recipe.accumulation == objective.replays == 1)
        optimizer = build_optimizer(self.raw, recipe, self.device)
        self.schedule = Schedule(optimizer, recipe, math.ceil(self.steps / recipe.accumulation))
        self.network, self.optimizer = self.accelerator.prepare(self.raw, optimizer)
        self.random = torch.Generator(self.device)
        self.images = {images.split: [len(images), images.fingerprint] for images in (train, validation)}
        self.progress: dict[str, Any] = {"seconds": 0.0, "seconds_on": {}, "images": self.images} | _NONE_YET
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.resumes, self.start = resume, self._restore() if resume else 0

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {
            "network": self.raw.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average else {},
        }
        checkpoints.save(self.out / "checkpoints", checkpoints.Checkpoint(step, tensors, self.progress))
        self._save_model("last", step)

    def _save_model(self, name: str, step: int) -> None:
        card: dict[str, Any] = {"Data": self.about.get("data", "?"), "recipe": asdict(self.recipe)}
        card |= {"Training": self._effort(), "Weights": f"of epoch {self._epoch(step)} of {self._epoch(self.steps)}"}
        card |= self._figures(self.progress["accuracy"])
        with whole_folder(self.out / name) as part:
            self.objective.save(self.averaged(), part, card)

    @staticmethod
    def _figures(accuracy: dict[str, float] | None) -> dict[str, Any]:
        """The card's entry of a validation."""
        return {"figures": {f"validation {k}": v for k, v in accuracy.items()}} if accuracy else {}

    def _machine(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"{self.accelerator.num_processes} x {name}"

    def _effort(self) -> str:
        """Seconds by machine: a run may go on with more processes, or elsewhere."""
        return ", ".join(f"{seconds:,.0f} s on {name}" for name, seconds in self.progress["seconds_on"].items())

    def _restore(self) -> int:
        found = checkpoints.load_latest(self.out / "checkpoints")
        if found is None:
            return 0
        if "network" not in found.tensors:
            raise IDCError(
                self.out / "checkpoints", "checkpoints of this version of idc", "train again into a new --out"
            )
        self.raw.load_state_dict(found.tensors["network"])
        self.optimizer.load_state_dict(found.tensors["optimizer"])
        self.schedule.load_state_dict(found.tensors["schedule"])
        if self.average:
            self.average.load_state_dict(found.tensors["average"])
        # A checkpoint from before the machines were told apart is taken for one of this machine, with these images.
        older = {"seconds_on": {self._machine(): found.progress["seconds"]}, "images": self.images}
        self.progress = _NONE_YET | older | found.progress
        for split, (count, fingerprint) in self.progress["images"].items():
            if self.images.get(split) != [count, fingerprint]:
                now = self.images[split][0] if split in self.images else 0
                raise IDCError(
                    f"{self.out}: {now} {split} images" + (", others than before" if now == count else ""),
                    f"the {count} that the run began with",
                    "give the same --data, --limit and --image-size, or another --out",
                )
        if found.step < self.steps:  # ended once, among other processes, whose batches make an epoch of fewer steps
            self.progress["whole"] = None
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
        before = self.progress["seconds_on"].get(machine, 0.0)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), Signals() as signals, self._monitor() as monitor:
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
                monitor.advance(self.local_batch * self.accelerator.num_processes)
                self.progress["seconds_on"][machine] = before + time.monotonic() - began
                self.progress["seconds"] = sum(self.progress["seconds_on"].values())
                if validate:
                    self._validate(monitor, step)
                if checkpoint:
                    self._save(step)
                    owed = False
            if step > self.start:
                self._save(step)
            if step == self.steps and not self.progress["whole"]:
                self._judge_best(monitor, step)
                self._save(step)
        found = self.progress["whole"] or self.progress["accuracy"]
        accuracy = self.objective.restored(found) if found else None
        result = TrainResult(step, self.steps, self.progress["seconds"], accuracy, self.out / "best", signals.received)
        if step == self.steps and self.accelerator.is_main_process:
            self._summarise(result)
            # Its weights may be older than the end of the training that found them.
            saved.change_card(result.best, {"Training": self._effort()} | self._figures(found))
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

    @contextmanager
    def _monitor(self) -> Iterator[Monitor]:
        images = self.local_batch * self.accelerator.num_processes
        main = self.accelerator.is_main_process
        with Monitor(
            self.out if main else None, total=self.steps * images, done=self.start * images, step=self.start
        ) as monitor:
            yield monitor

    def _log(self, monitor: Monitor, step: int, loss: dict[str, Tensor]) -> None:
        means = self.accelerator.reduce(torch.stack(list(loss.values())), reduction="mean")
        values = dict(zip(loss, means.tolist(), strict=True))
        if not math.isfinite(values["total"]):
            raise IDCError(
                f"loss {values['total']} at step {step}",
                "a finite number",
                "lower --lr, or resume from the last checkpoint",
            )
        lr = self.optimizer.param_groups[0]["lr"]
        monitor.scalars(step, {f"loss/{k}": v for k, v in values.items()} | {"lr": lr})

    def _epoch(self, step: int) -> str:
        return f"{step / self.steps_per_epoch:.4g}"

    def _validate(self, monitor: Monitor, step: int) -> None:
        """Validate the weights in short, always on the same images, and keep them if they are the best so far."""
        self._align()
        data, network = self.validation.take(self.recipe.validation_limit), self.averaged()
        found = self._measured(network, data, final=False)
        self.progress["accuracy"] = found.to_dict()
        monitor.validation(step, found, epoch=step / self.steps_per_epoch, seconds=self.progress["seconds"])
        if self.accelerator.is_main_process:
            with evaluation_mode(network):
                picture = self.objective.pictures(network, data)
            if picture:
                monitor.picture(step, *picture)
        if self.progress["best"] is None or found.score >= self.progress["best"]:
            self.progress |= {"best": found.score, "best_step": step}
            if self.accelerator.is_main_process:
                self._save_model("best", step)

    def _measured(self, network: nn.Module, data: ImageSet, *, final: bool) -> Validation:
        shard = (self.accelerator.process_index, self.accelerator.num_processes)
        with evaluation_mode(network):
            counts = self.objective.validate(network, data, final=final, bf16=self.bf16, shard=shard)
        return self.objective.judged(self.accelerator.reduce(counts, reduction="sum"), final=final)

    def _judge_best(self, monitor: Monitor, step: int) -> None:
        """Measure the weights that are kept as the best, which need not be the last, on all images or a part."""
        network = self.averaged()
        own = {k: v.clone() for k, v in network.state_dict().items()}
        if self.accelerator.is_main_process and self.progress["best_step"] != step:
            try:
                self.objective.load(network, self.out / "best")
            except IDCError as error:
                monitor.say(f"{error}; here the last weights take its place")
                self.progress["best_step"] = step
                self._save_model("best", step)
        if self.accelerator.num_processes > 1:  # one process reads and writes best/
            for tensor in network.state_dict().values():
                plain = tensor.contiguous()
                torch.distributed.broadcast(plain, 0)
                tensor.copy_(plain)
        limit = self.recipe.final_limit
        found = self._measured(network, self.validation.take(limit) if limit else self.validation, final=True)
        network.load_state_dict(own)
        self.progress["whole"] = found.to_dict()
        monitor.best(step, found, epoch=self._epoch(best) if (best := self.progress["best_step"]) else "?")

    def _summarise(self, result: TrainResult) -> None:
        seen = self.steps * self.local_batch * self.accelerator.num_processes
        write_json(
            self.out / "summary.json",
            {
                "steps": self.steps,
                "images_seen": seen,
                "seconds": round(result.seconds, 1),
                "images_per_second": round(seen / max(result.seconds, 1e-9), 1),
                "seconds_on": {name: round(seconds, 1) for name, seconds in self.progress["seconds_on"].items()},
                "processes": self.accelerator.num_processes,
                "device": str(self.device),
                "bf16": self.bf16,
                "torch": torch.__version__,
                "best_step": self.progress["best_step"],
                "validation": self.progress["whole"],
                "about": self.about,
                "recipe": asdict(self.recipe),
            },
        )


def _compile(network: torch.nn.Module, *, replayed: bool) -> None:
    """Compile the network in place.

    Args:
        replayed: on a GPU, record the kernels of a call as a CUDA graph and replay it: starting them one by one takes
            the CPU longer than they take the GPU. Gradients lie in the graph's memory until the next call.
    """
    # diffusers calls a cached version check inside its blocks, of which dynamo warns at length and to no effect.
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`", category=UserWarning)
    if network._compiled_call_impl is None:  # else as another training of this network left it
        network.compile(mode="reduce-overhead" if replayed else None)
