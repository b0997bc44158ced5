"""The training loop over ``accelerate``: one CPU process, one GPU or many, without a code change.

Every random number of a step follows from (seed, step, process), so that a run that was killed and resumed ends, on the
CPU, with bitwise the weights of one that was not. The data set lies on the device as one uint8 tensor.
"""

import json
import math
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import Tensor

from idc.classifier import IDC
from idc.data import ImageSet
from idc.errors import IDCError
from idc.files import make_folder, whole_folder, write_json, write_text
from idc.loss import bridge_loss, label_cross_entropy
from idc.noise import derive_seed
from idc.training import checkpoint as checkpoints
from idc.training.monitor import Monitor
from idc.training.optim import Schedule, build_average, build_optimizer, resolve_precision
from idc.training.recipe import Recipe
from idc.training.validation import CleanAccuracy, clean_accuracy, from_counts

_LOG_EVERY = 20


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended. ``stopped`` is the signal's number if it was interrupted, else 0."""

    step: int
    steps: int
    seconds: float
    accuracy: CleanAccuracy | None
    best: Path
    stopped: int = 0


class _Signals:
    """Notes the first Ctrl-C or SIGTERM so that the loop can save; a second one ends the program at once."""

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> Self:
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: its owner handles signals
                break
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Trainer:
    """Trains ``model`` in place.

    Args:
        model: a fresh classifier.
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
        model: IDC,
        recipe: Recipe,
        train: ImageSet,
        validation: ImageSet,
        out: Path,
        *,
        resume: bool = False,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.accelerator = Accelerator()
        self.recipe, self.out, self.about = recipe, out, about or {}
        self.device = self.accelerator.device
        self.bf16 = resolve_precision(recipe, self.device) == "bf16"
        self._check(model, train)
        self._claim_folder(resume)
        self.train, self.validation = train.to(self.device), validation.to(self.device)
        world = self.accelerator.num_processes
        self.local_batch = max(1, min(recipe.batch_size, len(train)) // world)
        self.steps_per_epoch = len(train) // (self.local_batch * world)
        self.steps = max(1, round(recipe.epochs * self.steps_per_epoch))
        self.model = model.to(self.device)
        self.model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.average = build_average(self.model.unet, recipe)
        optimizer = build_optimizer(self.model.unet, recipe, self.device)
        self.schedule = Schedule(optimizer, recipe, math.ceil(self.steps / recipe.accumulation))
        self.network, self.optimizer = self.accelerator.prepare(self.model.unet, optimizer)
        self.compiled = _compile(self.network) if recipe.compile else self.network
        self.labels = 2 * self.model.labels - 1
        weights = recipe.t_weights or (1.0,) * self.model.config.bridge.timesteps
        self.t_weights = torch.tensor(weights, device=self.device)
        self.random = torch.Generator(self.device)
        self.progress: dict[str, Any] = {"seconds": 0.0, "best": -1.0, "accuracy": None}
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.start = self._restore() if resume else 0

    def _check(self, model: IDC, train: ImageSet) -> None:
        if train.shape != model.input_shape or train.num_classes != model.num_classes:
            found = f"{train.num_classes} classes of shape {train.shape}"
            wanted = f"{model.num_classes} of {model.input_shape}, as the model"
            raise IDCError(found, wanted, "train a fresh model on this data, or give it the data it was made for")
        timesteps = model.config.bridge.timesteps
        if self.recipe.t_weights and len(self.recipe.t_weights) != timesteps:
            given = ",".join(map(str, self.recipe.t_weights))
            raise IDCError(f"t_weights = {given}", f"{timesteps} numbers, one a timestep", "or give none: uniform")

    def _claim_folder(self, resume: bool) -> None:
        text = self._recipe_text()
        if self.accelerator.is_main_process:
            make_folder(self.out)
            file = self.out / "recipe.yaml"
            if file.exists() and not resume:
                raise IDCError(
                    self.out, "a new or empty folder", "it holds a run: give --resume to go on, or another --out"
                )
            if file.exists() and file.read_text(encoding="utf-8") != text:
                raise IDCError(
                    file, "the settings of the run that it holds", "resume with the same settings, or use another --out"
                )
            write_text(file, text)
        self.accelerator.wait_for_everyone()

    def _recipe_text(self) -> str:
        import yaml

        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.recipe).items()}
        return yaml.safe_dump(self.about | values, sort_keys=False, allow_unicode=True)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {
            "unet": self.model.unet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average else {},
        }
        checkpoints.save(self.out / "checkpoints", checkpoints.Checkpoint(step, tensors, self.progress))
        self._save_model("last")

    def _save_model(self, name: str) -> None:
        model = self.averaged()
        model.card = {"Data": self.about.get("data", "?")} | {"recipe": asdict(self.recipe)}
        if self.progress["accuracy"]:
            model.card["figures"] = {f"validation {k}": v for k, v in self.progress["accuracy"].items()}
        with whole_folder(self.out / name) as part:
            model.save_pretrained(part)

    def _restore(self) -> int:
        found = checkpoints.load_latest(self.out / "checkpoints")
        if found is None:
            return 0
        self.model.unet.load_state_dict(found.tensors["unet"])
        self.optimizer.load_state_dict(found.tensors["optimizer"])
        self.schedule.load_state_dict(found.tensors["schedule"])
        if self.average:
            self.average.load_state_dict(found.tensors["average"])
        self.progress = found.progress
        return found.step

    def averaged(self) -> IDC:
        """The model with the averaged weights (the plain ones before the first averaging); weights are shared."""
        if self.average is None or self.average.n_averaged.item() == 0:
            return self.model.with_network(self.model.unet)
        return self.model.with_network(self.average.module)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Train to the end or to a signal; checkpoints are on disk when it returns."""
        began, before = time.monotonic(), self.progress["seconds"]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), _Signals() as signals, self._monitor() as monitor:
            step = self.start
            while step < self.steps and not self._stopped(signals, step):
                loss = self._step(step)
                step += 1
                validate = self._due(step, self.recipe.validate_every) or step == self.steps
                checkpoint = self._due(step, self.recipe.checkpoint_every) and step < self.steps
                if step % _LOG_EVERY == 0 or validate or checkpoint:
                    self._log(monitor, step, loss)  # stops a run that diverged before it is kept
                monitor.advance(self.local_batch * self.accelerator.num_processes)
                self.progress["seconds"] = before + time.monotonic() - began
                if validate:
                    self._validate(monitor, step)
                if checkpoint:
                    self._save(step)
            if step > self.start:
                self._save(step)
        accuracy = CleanAccuracy(**self.progress["accuracy"]) if self.progress["accuracy"] else None
        result = TrainResult(step, self.steps, self.progress["seconds"], accuracy, self.out / "best", signals.received)
        if step == self.steps and self.accelerator.is_main_process:
            self._summarise(result)
        self.accelerator.wait_for_everyone()
        return result

    def _due(self, step: int, epochs: float) -> bool:
        every = max(1, round(epochs * self.steps_per_epoch))
        return step % every == 0

    def _stopped(self, signals: _Signals, step: int) -> bool:
        if self.accelerator.num_processes == 1:
            return bool(signals.received)
        if step % 10:  # processes must stop at the same step, and asking costs a synchronisation
            return False
        flag = torch.tensor(signals.received, device=self.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())

    def _batch(self, step: int) -> Tensor:
        epoch, index = divmod(step, self.steps_per_epoch)
        if self.order[0] != epoch:
            random = torch.Generator().manual_seed(derive_seed(self.recipe.seed, "order", epoch))
            self.order = epoch, torch.randperm(len(self.train), generator=random).to(self.device)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        first = (index * world + rank) * self.local_batch
        return self.order[1][first : first + self.local_batch]

    def _step(self, step: int) -> Tensor:
        """One batch, forward and backward, and an update when enough are summed. Returns (loss, intra, inter) means."""
        seed = derive_seed(self.recipe.seed, "step", step, self.accelerator.process_index)
        self.random.manual_seed(seed)
        torch.manual_seed(seed + 1)  # dropout draws from the global generator, forked in run()
        chosen = self._batch(step)
        classes = self.train.labels[chosen]
        images = self.recipe.augmentation(self.train.images[chosen], self.random)
        y = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        t = torch.multinomial(self.t_weights, len(chosen), replacement=True, generator=self.random)
        eps = torch.randn(y.shape, generator=self.random, device=self.device)
        sample = self.model.bridge.sample(self.labels[classes], y, t, eps)
        last = (step + 1) % self.recipe.accumulation == 0 or step + 1 == self.steps
        self.network.train()
        with nullcontext() if last else self.accelerator.no_sync(self.network):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                output = self.compiled(sample.x_t, t, y)
            terms = bridge_loss(sample, output, self.labels, classes, inter_weight=self.recipe.inter_weight)
            loss = terms.total.mean()
            if self.recipe.ce_weight > 0:
                heat = self.recipe.ce_temperature
                entropy = label_cross_entropy(sample, output, self.labels, classes, temperature=heat)
                loss = loss + self.recipe.ce_weight * entropy.mean()
            self.accelerator.backward(loss / self.recipe.accumulation)
        if last:
            self._update(loss, step)
        return torch.stack([loss.detach(), terms.intra.detach().mean(), terms.inter.detach().mean()])

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
            self.average.update_parameters(self.model.unet)

    # -- watching ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _monitor(self) -> Iterator[Monitor]:
        images = self.local_batch * self.accelerator.num_processes
        main = self.accelerator.is_main_process
        with Monitor(
            self.out if main else None, total=self.steps * images, done=self.start * images, step=self.start
        ) as monitor:
            yield monitor

    def _log(self, monitor: Monitor, step: int, loss: Tensor) -> None:
        total, intra, inter = self.accelerator.reduce(loss, reduction="mean").tolist()
        if not math.isfinite(total):
            raise IDCError(
                f"loss {total} at step {step}", "a finite number", "lower --lr, or resume from the last checkpoint"
            )
        lr = self.optimizer.param_groups[0]["lr"]
        monitor.scalars(step, {"loss/total": total, "loss/intra": intra, "loss/inter": inter, "lr": lr})

    def _validate(self, monitor: Monitor, step: int) -> None:
        final = step == self.steps
        data = self.validation if final else self.validation.take(self.recipe.validation_limit)
        shard = (self.accelerator.process_index, self.accelerator.num_processes)
        model, draws = self.averaged(), 10 if final else 1
        _, counts = clean_accuracy(model, data, draws=draws, bf16=self.bf16, shard=shard)
        accuracy = from_counts(self.accelerator.reduce(counts, reduction="sum"), draws)
        self.progress["accuracy"] = accuracy.to_dict()
        monitor.accuracy(step, accuracy, epoch=step / self.steps_per_epoch, seconds=self.progress["seconds"])
        if not self.accelerator.is_main_process:
            return
        monitor.translations(step, model, data)
        score = (accuracy.one_step + accuracy.multi_step) / 2
        if score >= self.progress["best"]:
            self.progress["best"] = score
            self._save_model("best")

    def _summarise(self, result: TrainResult) -> None:
        seen = self.steps * self.local_batch * self.accelerator.num_processes
        write_json(
            self.out / "summary.json",
            {
                "steps": self.steps,
                "images_seen": seen,
                "seconds": round(result.seconds, 1),
                "images_per_second": round(seen / max(result.seconds, 1e-9), 1),
                "processes": self.accelerator.num_processes,
                "device": str(self.device),
                "bf16": self.bf16,
                "torch": torch.__version__,
                "validation": self.progress["accuracy"],
                "about": self.about,
                "recipe": asdict(self.recipe),
            },
        )


def _compile(network: torch.nn.Module) -> Any:
    # diffusers calls a cached version check inside its blocks, of which dynamo warns at length and to no effect.
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`", category=UserWarning)
    return torch.compile(network)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
