"""What ``idc train`` does: data, network and recipe, each by its name, put together to a run."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from idc import data as datasets
from idc.commands import defaults
from idc.commands.plugins import guarded, plugin
from idc.commands.training_plan import Asked, about_run, fit_plan, read_plan
from idc.compute.hardware import accelerator
from idc.errors import IDCError
from idc.method.bridge import BridgeSpec
from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.labels import orthogonal_labels
from idc.method.transfer import begin_with
from idc.method.unet import UNetSpec, init_normal_
from idc.noise import derive_seed
from idc.storage.files import alone_in
from idc.storage.kinds import TRAINING
from idc.text import NORMS, counted, epoch_text, eps_text
from idc.training.bridge_objective import BridgeObjective
from idc.training.class_objective import ClassObjective
from idc.training.objective import TrainingObjective
from idc.training.recipe import Recipe
from idc.training.result import TrainResult
from idc.training.run_folder import FOLDERS
from idc.training.settings import Settings
from idc.training.trainer import Trainer

FEW = 300  # updates, which hardly train a network


@contextmanager
def fresh_weights(recipe: Settings) -> Iterator[None]:
    """Inside, weights follow from the recipe's seed alone; the global generator is left as found."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed, "weights"))
        yield


def build_model(
    spec: UNetSpec,
    data: datasets.ImageSet,
    recipe: Recipe,
    bridge: BridgeSpec | None = None,
    *,
    labels: str = "qr",
    cell: int = 1,
    visits: Sequence[int] = (),
) -> IDC:
    """A fresh classifier for ``data``; its weights follow from the recipe's seed alone."""
    if recipe.dropout is not None:
        spec = replace(spec, dropout=recipe.dropout)
    config = IDCConfig(
        data.num_classes, data.shape, spec, bridge=bridge or BridgeSpec(), class_names=data.class_names,
        label_kind=labels, label_cell=cell, visits=tuple(visits),
    )  # fmt: skip
    own = None
    if config.own_labels:
        make = partial(orthogonal_labels, data.num_classes, data.shape, seed=config.label_seed, cell=cell)
        expected = "a function (num_classes, shape, seed) -> labels"
        own = plugin(labels, torch.Tensor, lambda function: make(kind=function), expected)
    last = config.bridge.timesteps - 1
    if spec.one_step and (not any(recipe.t_weights) or any(recipe.t_weights[:last])):
        given = ",".join(f"{w:g}" for w in recipe.t_weights) or "none"
        raise IDCError(
            f"t_weights = {given} for a network of one step (mirrored, or not told the timestep)",
            f"timestep {last} alone, at which it answers",
            f"give --t-weights {'0,' * last}1",
        )
    with fresh_weights(recipe):
        model = IDC(config, own)
        if recipe.init == "normal":
            init_normal_(model.unet)
    return model


class Loading(TypedDict, total=False):
    """How both splits are loaded: the flags that every training has; ``limit``: so many images of the first."""

    limit: int | None
    image_size: int | None
    channels: int | None
    skip_bad: bool


def load_splits(
    source: str, *, say: Callable[[str], object], **loading: Unpack[Loading]
) -> tuple[datasets.ImageSet, datasets.ImageSet]:
    """The training split (``limit`` images of it) and the validation split of ``source``."""
    train = datasets.load(source, split="train", **loading)
    validation = datasets.load(source, split="validation", **loading | {"limit": None})
    if skipped := [*train.skipped, *validation.skipped]:
        more = ", ..." if len(skipped) > 5 else ""
        files = "file" if len(skipped) == 1 else "files"
        say(f"left out {len(skipped)} unreadable {files}: {', '.join(skipped[:5])}{more}")
    return train, validation


def run_training(
    objective: TrainingObjective,
    recipe: Settings,
    train: datasets.ImageSet,
    validation: datasets.ImageSet,
    out: Path,
    *,
    resume: bool,
    about: dict[str, Any],
    changes: dict[str, Any] | None,
    began: float | None,
    say: Callable[[str], object],
    chosen: str = "",
) -> TrainResult:
    """Say what the data hold, of a run that begins what was ``chosen`` for it, and if they make a run too short to be
    of use unless ``changes`` to its recipe set its length, and train."""
    about = about | {"image_size": train.shape[1], "channels": train.shape[0]}
    teachers = objective.teachers if isinstance(objective, ClassObjective) else None
    about |= {"teachers_sha256": teachers.weights} if teachers else {}
    with alone_in(out, *FOLDERS, kind=TRAINING) if accelerator().is_main_process else nullcontext():
        trainer = Trainer(objective, recipe, train, validation, out, resume=resume, about=about, began=began)
        for line in filter(None, (train.summary, "" if trainer.start else chosen)):
            say(line)
        updates = math.ceil(trainer.steps / recipe.accumulation)
        weights = sum(p.numel() for p in objective.network.parameters())
        length = (
            f"for {recipe.minutes:g} minute{'s' * (recipe.minutes != 1)} by batches"
            if recipe.minutes
            else counted(f"{updates:,}", "update")
        )
        taught = f", towards the answers of {' and '.join(teachers.names)}" if teachers else ""
        say(
            f"trains {weights:,} parameters on {trainer.device}, {'bf16' if trainer.bf16 else 'fp32'}, {length} of "
            f"{trainer.batch * recipe.accumulation} images with {recipe.optimizer}"
            f"{_against(objective)}{taught}"
        )
        if updates < FEW and "epochs" not in (changes or {}) and not recipe.minutes:
            say(
                f"{len(train):,} images make only {counted(str(updates), 'update')} in "
                f"{counted(epoch_text(recipe.epochs), 'epoch')}: raise --epochs"
            )
        return trainer.run()


def _against(objective: TrainingObjective) -> str:
    """What attacks the images of a training, in words; of an objective that is not ours nothing is known."""
    if not isinstance(objective, ClassObjective) or not objective.recipe.adversarial:
        return ""
    recipe = objective.recipe
    threat = f"{NORMS[recipe.norm]} attacks of {eps_text(recipe.eps)}"
    if isinstance(recipe, Recipe) and recipe.replays > 1:
        return f", against free {threat} over {recipe.replays} replays"
    return f", against {threat} in {recipe.attack_steps} step{'s' * (recipe.attack_steps > 1)}"


def start_training(
    data: str | None,
    out: Path,
    *,
    start: str | None = None,
    preset: str = "auto",
    labels: str | None = None,
    label_cell: int | None = None,
    visits: Sequence[int] | None = None,
    recipe: str = "auto",
    objective: str | None = None,
    resume: bool = False,
    image_size: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    limit: int | None = None,
    changes: dict[str, Any] | None = None,
    began: float | None = None,
    say: Callable[[str], object] = print,
) -> TrainResult:
    """Train a classifier: what ``idc train`` does.

    Args:
        data: see ``idc.data.load``.
        out: the run's folder.
        start: a saved IDC (a folder, a run, a name of ``idc models``, or a hub id) whose weights the training begins
            with: fine-tuning, or a training whose optimiser state is gone. Network, bridge, answer, kind of labels,
            image size and channels are then by default that model's; classes and labels are those of ``data``.
        preset: a preset's name, "auto", or a YAML file of a network's fields.
        labels, label_cell: kind and cell of the image labels, see ``orthogonal_labels``; by default "qr" and 1, or as
            ``idc.commands.defaults`` has them. Or ``package.module:function``, which makes labels of one's own.
        visits: timesteps of the model's answer; (T-1,) is the one-step answer.
        recipe: a recipe's name or YAML file, or "auto": "digits" for digits; "fast" where a chain, a network for one
            or ``start`` is asked for; else what is not asked for of network, labels and schedule is that of
            ``idc.commands.defaults``. ``changes`` override its fields.
        objective: ``package.module:object`` that gives an ``idc.training.objective.TrainingObjective`` for
            (model, recipe); by default ``BridgeObjective``.
        resume: go on from the newest checkpoint.
        limit: train on so many images only.
        began: ``time.monotonic`` from which a recipe's ``minutes`` count; by default this call's.
        say: takes a line for the user.

    Raises:
        IDCError: for any input that cannot be used.
    """
    began = time.monotonic() if began is None else began
    changes = changes or {}
    asked = Asked(
        start, preset, labels, label_cell, None if visits is None else tuple(visits), recipe, objective, resume, changes
    )
    plan = read_plan(data, asked)
    size = (
        image_size
        or plan.extra.get("image_size")
        or (defaults.usual_size(plan.source, plan.spec) if plan.by_data else None)
    )
    channels = channels or plan.extra.get("channels")
    train, validation = load_splits(
        plan.source, limit=limit, say=say, image_size=size, channels=channels, skip_bad=skip_bad
    )
    plan = fit_plan(plan, asked, train)
    model = build_model(
        plan.spec, train, plan.recipe, plan.bridge, labels=plan.labels, cell=plan.cell, visits=plan.visits
    )
    own_photos = recipe == "auto" and plan.source != "digits"
    told = defaults.in_words(model.config, plan.preset, plan.recipe) if own_photos else ""
    if plan.begun:
        told = _begin(model, plan.begun, plan.start, train.num_classes)  # resumed: until the checkpoint replaces them
    weights = dict(enumerate(plan.recipe.t_weights))
    if untrained := [t for t in model.config.visits if weights.get(t, 1.0) == 0]:
        say(
            f"timesteps {', '.join(map(str, untrained))} of the answer are not trained (--t-weights): give "
            f"--visits {plan.bridge.timesteps - 1} for an answer in one step, or weights for them"
        )
    return run_training(
        _objective(plan.objective, model, plan.recipe), plan.recipe, train, validation, out, resume=resume,
        about=about_run(plan, model), changes=changes, began=began, say=say, chosen=told,
    )  # fmt: skip


def _begin(model: IDC, begun: IDC, name: str, num_classes: int) -> str:
    """Give ``model`` the weights of ``begun`` that fit it, and say which."""
    taken = begin_with(model.unet, begun.unet, name=name)
    same = begun.labels.shape == model.labels.shape and torch.equal(begun.labels, model.labels)
    return (
        f"begins with the weights of {name}: {taken}; image labels of the {num_classes} classes: "
        f"{'the same as its own' if same else 'new'}"
        f"{'; it takes grey images' if model.input_shape[0] == 1 else ''}"
    )


def _objective(name: str | None, model: IDC, recipe: Recipe) -> TrainingObjective:
    """IDC's own, or the user's of that name."""
    if name is None:
        return BridgeObjective(model, recipe)
    expected = "a class or function of (model, recipe) that gives what idc.training.objective.TrainingObjective lists"
    made: TrainingObjective = plugin(name, TrainingObjective, lambda make: make(model, recipe), expected)
    return guarded(made, name)
