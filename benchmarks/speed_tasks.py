"""What ``speed.py`` times: the same work done by ours and by the plain implementation (plain.py)."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import MODELS
from PIL import Image
from plain import PlainIDC, PlainTraining, class_losses
from torch import Tensor

from idc import IDC
from idc import data as datasets
from idc.attacks.objective import CrossEntropy
from idc.attacks.target import ANSWER, Target
from idc.attacks.threat import Threat
from idc.commands.opening import preset_model
from idc.compute.hardware import can_compile
from idc.cost import flops_of, total_flops
from idc.data import ImageSet
from idc.evaluation.protocol import build_protocol
from idc.evaluation.runner import Problem, Runner
from idc.method.bridge import Bridge
from idc.method.loss import bridge_loss
from idc.noise import Streams
from idc.training.bridge_objective import BridgeObjective
from idc.training.recipe import RECIPES
from idc.training.trainer import Trainer
from idc.types import ClassifierDefaults

EVALUATED = 32


@dataclass(frozen=True)
class Task:
    """Two ways to do the same work, and the FLOPs of ours, where products are most of it."""

    name: str
    images: int
    ours: Callable[[], Any]
    plain: Callable[[], Any]
    flops: int = 0
    memory: bool = True


def network_tasks(preset: str, batch: int, device: torch.device, folder: Path, *, compile: bool) -> list[Task]:
    model = preset_model(preset)
    plain = PlainIDC(model).eval().to(device)
    fast = model.to(device).with_precision("auto")
    random = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *model.input_shape, generator=random).to(device)
    classes = torch.randint(model.num_classes, (batch,), generator=random).to(device)
    noise = torch.randn(3, *images.shape, generator=random).to(device)
    few = max(1, batch // 4)
    target = Target.of(fast)
    streams = Streams(torch.arange(few, device=device), 0)

    def gradient(draws: int) -> Tensor:
        return target.gradient(
            ANSWER, images[:few], classes[:few], streams, objective=CrossEntropy(), draws=draws
        )[1]  # fmt: skip

    def gradient_flops(draws: int) -> int:
        target.tally.clear()
        gradient(draws)
        return total_flops(target, images[:1], target.tally.counts())

    def plain_gradient(draws: int) -> Tensor:
        noises = [torch.randn(3, *images[:few].shape, device=device) for _ in range(draws)]
        return plain.gradient(images[:few], classes[:few], noises)

    for weights in (fast, plain):  # an attack wants no gradient of theirs
        for parameter in weights.parameters():
            parameter.requires_grad_(False)

    compiled = copy.deepcopy(fast)
    compiled.unet.compile()

    def answer(drawn: Tensor | None) -> list[Task]:
        name = f"{preset}: answer, {'one step' if drawn is None else 'multi-step'}"
        as_asked, own_code = (m.one_step if drawn is None else m for m in (fast, compiled))
        ours, theirs = quiet(lambda: as_asked(images, noise=drawn)), quiet(lambda: plain(images, noise))
        flops = flops_of(ours)
        tasks = [Task(name, batch, ours, theirs, flops)]
        if can_compile(device):
            own = quiet(lambda: own_code(images, noise=drawn))
            tasks.append(Task(f"{name}: compiled, beside ours as it is", batch, own, ours, flops))
        return tasks

    def attack(draws: int) -> Task:
        ours, theirs = partial(gradient, draws), partial(plain_gradient, draws)
        return Task(f"{preset}: gradient, EOT {draws}", few, ours, theirs, gradient_flops(draws))

    return [
        training_task(preset, batch, device, folder, compile=compile),
        *answer(None),
        *answer(noise[[0, 2]]),
        attack(1),
        attack(8),
    ]


def quiet(work: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad():
            return work()

    return run


def training_task(preset: str, batch: int, device: torch.device, folder: Path, *, compile: bool) -> Task:
    """One update each: data, forward and backward pass, optimiser, averaged weights."""
    model = preset_model(preset)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (8 * batch, *model.input_shape), dtype=torch.uint8, generator=random)
    classes = torch.randint(model.num_classes, (8 * batch,), generator=random)
    names = tuple(map(str, range(model.num_classes)))
    data = ImageSet(pixels, classes, torch.arange(8 * batch), names, "random", "train", "random")
    files = [_jpeg(image) for image in pixels]
    plain = PlainTraining(PlainIDC(model).to(device), files, classes.tolist())
    recipe = replace(
        RECIPES["paper"], batch_size=batch, accumulation=1, epochs=1e6, ema_start=0, ema_every=1, compile=compile,
        schedule="constant",
    )  # fmt: skip
    trainer = Trainer(BridgeObjective(model.train(), recipe), recipe, data, data, folder / preset)
    steps = iter(range(10**6))

    def ours() -> None:
        trainer.step(next(steps))

    return Task(f"{preset}: training step", batch, ours, lambda: plain.step(list(range(batch))), flops_of(ours))


def _jpeg(image: Tensor) -> bytes:
    held = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(held, "JPEG", quality=90)
    return held.getvalue()


def loss_task(classes: int, batch: int, device: torch.device) -> Task:
    """The loss of one batch and its gradient by the network's output."""
    random, shape = torch.Generator().manual_seed(0), (3, 32, 32)

    def normal(count: int) -> Tensor:
        return torch.randn(count, *shape, generator=random).to(device)

    labels, y, eps, output = normal(classes), normal(batch), normal(batch), normal(batch).requires_grad_()
    true = torch.randint(classes, (batch,), generator=random).to(device)
    t = (torch.arange(batch) % 4).to(device)
    bridge = Bridge().to(device)
    sample = bridge.sample(labels[true], y, t, eps)
    m, var = bridge.m_t[t].view(-1, 1, 1, 1), bridge.var_t[t].view(-1, 1, 1, 1)

    def ours() -> None:
        bridge_loss(sample, output, labels, true).total.mean().backward()

    def plain() -> None:
        class_losses(sample.target, output, labels, sample.x0, y, m, var, eps, bridge.m_t, t, true).backward()

    return Task(f"loss alone, K = {classes}, B = {batch}", batch, ours, plain)


class PlainClassifier(PlainIDC, ClassifierDefaults):
    """The plain model as an evaluation takes it: every draw by itself, its weak spots in float32."""

    stochastic = True

    def __init__(self, model: IDC) -> None:
        super().__init__(model)
        self.input_shape, self._own = model.input_shape, (model,)

    def surrogates(self) -> dict[str, Any]:
        return dict(self._own[0].surrogates())

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        drawn = [torch.randn(images.shape, device=images.device) for _ in range(3)]
        return super().forward(images, torch.stack(drawn) if noise is None else noise)


def evaluation_task(data: str, device: torch.device, folder: Path) -> Task:
    """The protocol "quick" on some test images of idc-nano-cifar10."""
    model = IDC.from_pretrained(MODELS["nano"]).to(device).requires_grad_(False)
    images = datasets.load(data, split="test", limit=EVALUATED)
    protocol = build_protocol("quick", Threat("linf", 8 / 255))
    runs = iter(range(10**6))

    def evaluate(classifier: Any) -> None:
        problem = Problem(images.images, images.labels, images.ids, {"source": "benchmark"})
        runner = Runner(classifier, problem, protocol, folder / f"quick-{next(runs)}", device=device)
        runner.prepare()
        runner.run()

    ours, plain = model.with_precision("auto"), PlainClassifier(model).eval().to(device).requires_grad_(False)
    return Task("nano: quick evaluation", EVALUATED, lambda: evaluate(ours), lambda: evaluate(plain), memory=False)
