"""Optimiser, learning-rate schedule, averaged weights, precision and compilation of a recipe."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from idc.compute.hardware import can_compile, uses_bf16
from idc.errors import IDCError
from idc.training.muon import Muon, Named, inner_weights
from idc.training.settings import LONG, WORTH_COMPILING, Settings


def decay_groups(named: Named, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of these parameters: those that are decayed, and biases, norms and position maps, which are not."""
    decayed = [p for n, p in named if p.ndim > 1 and not n.endswith("position")]
    free = [p for n, p in named if p.ndim <= 1 or n.endswith("position")]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, recipe: Settings, device: torch.device) -> torch.optim.Optimizer:
    """Adam, AdamW, SGD or Muon; but for Adam, biases, norms and position maps are not decayed."""
    optimizer = _optimizer(model, recipe, fused=device.type in ("cpu", "cuda"))
    for one in optimizer.both if isinstance(optimizer, Muon) else [optimizer]:
        one.register_load_state_dict_post_hook(_lay_as_weights)
    return optimizer


def _optimizer(model: nn.Module, recipe: Settings, *, fused: bool) -> torch.optim.Optimizer:
    betas = (0.9, recipe.beta2)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=betas, fused=fused)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if recipe.optimizer == "muon":
        inner, rest = inner_weights(named)
        groups, decay = decay_groups(rest, recipe.weight_decay), recipe.weight_decay
        return Muon(inner, groups, lr=recipe.lr, weight_decay=decay, beta2=recipe.beta2, fused=fused)
    groups = decay_groups(named, recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, fused=fused)


def _lay_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Lay what was loaded out in memory as the weights are: torch's fused steps walk both side by side as they lie,
    and a checkpoint may be of a machine where weights lay otherwise."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.ndim and value.shape == weight.shape:
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


class LearningRate:
    """The learning rate after each update, by share of all updates or, for "plateau", by the loss.

    Args:
        share: of the run that lies behind, where updates do not say it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        recipe: Settings,
        updates: int,
        *,
        share: Callable[[], float] | None = None,
    ) -> None:
        self.plateau = recipe.schedule == "plateau"
        self.inner: LambdaLR | ReduceLROnPlateau
        if self.plateau:
            self.inner = ReduceLROnPlateau(
                optimizer,
                factor=0.5,
                patience=recipe.plateau_patience,
                cooldown=recipe.plateau_patience,
                threshold=1e-4,
                min_lr=recipe.plateau_floor,
            )
        else:
            self.inner = LambdaLR(optimizer, lambda n: rate(recipe, share() if share else n / max(1, updates)))

    def step(self, loss: float) -> None:
        if isinstance(self.inner, ReduceLROnPlateau):
            self.inner.step(loss)
        else:
            self.inner.step()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.inner.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


def rate(recipe: Settings, done: float) -> float:
    """Learning rate as a share of its peak, after the share ``done`` in [0, 1] of all updates."""
    if done < recipe.warmup:
        return max(done, 1e-3) / recipe.warmup
    left = (1 - done) / (1 - recipe.warmup)
    if recipe.schedule == "linear":
        return max(left, 0.0)
    if recipe.schedule == "cosine":
        return 0.5 - 0.5 * torch.cos(torch.tensor(torch.pi * max(left, 0.0))).item()
    if recipe.schedule == "piecewise":
        return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    return 1.0


def build_average(model: nn.Module, recipe: Settings) -> "Average | None":
    """The exponential moving average of the weights, or None.

    An average that begins with the training itself begins short, decay (1 + n) / (10 + n) until that exceeds the
    recipe's: a run of few updates would otherwise answer with its first, untrained weights.
    """
    if recipe.ema_decay == 0:
        return None
    return Average(model, recipe.ema_decay, from_start=recipe.ema_start == 0)


class Average(AveragedModel):
    """torch's own, whose count stays on the CPU: torch sends it to the weights' device in every update, and a GPU would
    wait there for all that is under way."""

    def __init__(self, model: nn.Module, decay: float, *, from_start: bool) -> None:
        super().__init__(model, use_buffers=True)
        self.decay, self.from_start = decay, from_start

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        n = int(self.n_averaged)
        current = [v.detach() for v in (*model.parameters(), *model.buffers())]
        averaged = [v.detach() for v in (*self.module.parameters(), *self.module.buffers())]
        decay = min(self.decay, (1 + n) / (10 + n)) if self.from_start else self.decay
        update = get_ema_multi_avg_fn(decay)
        for dtype in {v.dtype for v in averaged}:  # BatchNorm counts in whole numbers
            chosen = [i for i, v in enumerate(averaged) if v.dtype == dtype]
            mine, its = [averaged[i] for i in chosen], [current[i] for i in chosen]
            if n:
                update(mine, its, n)
            else:
                torch._foreach_copy_(mine, its)
        self.n_averaged += 1


def resolve_precision(recipe: Settings, device: torch.device) -> bool:
    """Whether the network runs in bf16.

    Raises:
        IDCError: for bf16 on a device that has none.
    """
    if recipe.precision == "bf16" and device.type not in ("cpu", "cuda"):
        raise IDCError("precision = 'bf16'", f"fp32 on {device.type}", "use --precision fp32")
    return uses_bf16(recipe.precision, device)


def compiles(recipe: Settings, device: torch.device, steps: int) -> bool:
    """Whether a run of so many steps compiles its network: as the recipe says, else where it pays and can be done."""
    if recipe.compile is not None:
        return recipe.compile
    if recipe.minutes:
        steps = LONG if recipe.minutes >= WORTH_COMPILING else 0
    return device.type == "cuda" and steps >= LONG and can_compile(device)


def compile_in_place(network: nn.Module, *, replayed: bool) -> None:
    """Run ``network`` as compiled code from here on; names of parameters stay.

    Args:
        replayed: on a GPU, record the kernels of a call as a CUDA graph and replay it: starting them one by one takes
            the CPU longer than they take the GPU. Gradients lie in the graph's memory until the next call.
    """
    # diffusers calls a cached version check inside its blocks, of which dynamo warns at length and to no effect.
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`", category=UserWarning)
    if network._compiled_call_impl is None:  # else as another training of this network left it
        network.compile(mode="reduce-overhead" if replayed else None)
