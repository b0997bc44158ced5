"""What a network is asked while it is trained."""

from torch import nn


def watched(network: nn.Module) -> list[bool]:
    """For each pass of a network: whether its weights took a gradient."""
    seen = []
    network.register_forward_pre_hook(lambda module, _: seen.append(any(p.requires_grad for p in module.parameters())))
    return seen
