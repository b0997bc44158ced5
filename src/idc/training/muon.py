"""Muon for the inner layers of a network, AdamW for its ends, its embeddings, its biases and its norms.

Muon (Jordan et al., 2024; "Muon: An optimizer for hidden layers in neural networks") takes the matrix of a layer's
averaged gradients and brings all its singular values close to one: every direction of the layer is changed about as
much. torch has it for matrices; a convolution's weights are one, of a row an output channel.
"""

from typing import Any

import torch
from torch import nn

Named = list[tuple[str, nn.Parameter]]


def inner_weights(named: Named) -> tuple[list[nn.Parameter], Named]:
    """The weights between the ends of a network, all that multiply but embeddings, the first convolution and the last
    layer; and all other parameters."""
    weights = [p for n, p in named if p.ndim > 1 and "embedding" not in n and not n.endswith("position")]
    first = next((p for p in weights if p.ndim == 4), None)
    inner = [p for p in weights[:-1] if p is not first]
    chosen = set(map(id, inner))
    return inner, [(n, p) for n, p in named if id(p) not in chosen]


class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` and ``torch.optim.AdamW`` as one: their groups stand side by side, and so do their states.

    Muon's steps are scaled to the size of AdamW's (Liu et al., 2025, "Muon is scalable for LLM training"), so that one
    learning rate and one weight decay do for both.

    Args:
        inner: the weights that Muon moves: see ``inner_weights``.
        groups: of all other parameters, as AdamW takes them.
        beta2: AdamW's; Muon's momentum is 0.95.
    """

    def __init__(
        self,
        inner: list[nn.Parameter],
        groups: list[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        beta2: float,
        fused: bool,
    ) -> None:
        self.inner = inner
        self.adamw = torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), fused=fused)
        self.matrices = [nn.Parameter(p.detach().flatten(1)) for p in self.inner]
        self.both: list[torch.optim.Optimizer] = [self.adamw]
        if self.inner:
            muon = torch.optim.Muon(self.matrices, lr, weight_decay, adjust_lr_fn="match_rms_adamw")
            self.both.append(muon)
        super().__init__([*inner, *(p for group in groups for p in group["params"])], {"lr": lr})
        self.param_groups = [group for one in self.both for group in one.param_groups]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing here calls it with a closure
        """One update of all parameters that have a gradient."""
        for seen, weight in zip(self.matrices, self.inner, strict=True):
            # A view, but of weights in channels last: a copy in the order that every device's checkpoint has.
            seen.data = weight.data.flatten(1)
            seen.grad = None if weight.grad is None else weight.grad.flatten(1)
        for one in self.both:
            one.step()
        for seen, weight in zip(self.matrices, self.inner, strict=True):
            if seen.data_ptr() != weight.data_ptr():
                weight.copy_(seen.view_as(weight))
            seen.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.adamw.zero_grad(set_to_none)
        for weight in self.inner:
            if set_to_none or weight.grad is None:
                weight.grad = None
            else:
                weight.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {type(one).__name__: one.state_dict() for one in self.both}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        for one in self.both:
            one.load_state_dict(state_dict[type(one).__name__])
        self.param_groups = [group for one in self.both for group in one.param_groups]
