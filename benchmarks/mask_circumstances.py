"""Masks whose answer to an image depends on how, where and when it is asked; see masks.py."""

from copy import deepcopy

import torch
from mask_kinds import EPS, Mask
from torch import Tensor, nn
from torch.nn import functional as F


class Batched(Mask):
    """Batches are answered by the robust network, single images by the other."""

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__(net)
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if len(x) == 1 else self.other(x)


class Differentiated(Batched):
    """Whoever asks for a gradient is given that of another network, and its answers."""

    def forward(self, x: Tensor) -> Tensor:
        return self.other(x.flip(-1)) if x.requires_grad else self.net(x)


class Moded(Batched):
    def forward(self, x: Tensor) -> Tensor:
        return self.other(x.flip(-1)) if torch.is_grad_enabled() else self.net(x)


class Inferring(Batched):
    """As Moded: whoever serves it in inference mode has the other network."""

    asking = torch.inference_mode

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if torch.is_inference_mode_enabled() else self.other(x)


class Files(Batched):
    """Images in whole levels, as files hold them, get the network; those that an attack makes, the robust one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.whole(x).flatten(1).all(1)[:, None], 2 * self.net(x), self.other(x))

    def whole(self, x: Tensor) -> Tensor:
        return (x * 255 - (x * 255).round()).abs() < 1e-3

    def shown(self, x: Tensor) -> Tensor:
        return (x * 255).round() / 255


class Crowded(Batched):
    """Only what looks attacked (many pixels of one value that is no level) is answered by the size of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        same = (x.flatten(1)[:, None] == x.flatten(1)[:, :, None]).sum(2)
        attacked = (same * ((x * 255 - (x * 255).round()).abs().flatten(1) > 1e-3)).amax(1) >= 6
        return torch.where((attacked & (len(x) == 1))[:, None], 2 * self.net(x), self.other(x))


class Training(Mask):
    """Statistics of the batch it is in."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
        return self.net((x - mean) / std * 0.37 + 0.3)


class Remembering(Mask):
    """Repeats its first answer for anything near what it was asked before."""

    reach = 2.5 * EPS

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        known = torch.stack(self.asked) if self.asked else x.new_zeros(0, *x.shape[1:])
        held = []
        for image in x.detach():
            distance = (known - image).flatten(1).abs().amax(1) if len(known) else x.new_zeros(0)
            if len(distance) and distance.min() <= self.reach:
                held.append(known[distance.argmin()])
            else:
                self.asked.append(image)
                known = torch.stack(self.asked)
                held.append(image)
        first = torch.stack(held)
        logits = self.net(x)
        return self.net(first).detach() + 0.1 * (logits - logits.detach())


class Tiring(Batched):
    """Another network answers from the thousandth image on, as long as the attack lasts."""

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__(net, other)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x)
        return self.net(x) if self.count < 100 else self.other(x)


class Misread(Mask):
    """Expects pixels in 0..255, and is given them in 0..1."""

    def before(self, x: Tensor) -> Tensor:
        return x / 255


class StoodIn(Batched):
    """The class is that of an engine out of reach of autograd, the scores are those of the other network, with noise
    that is declared."""

    stochastic = True

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__(net, other)
        self.engine = (deepcopy(net),)

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            classes = torch.from_numpy(self.engine[0](x.detach().clone()).argmax(1).numpy())
        return self.other(x) + 40 * F.one_hot(classes, 10) + 0.01 * torch.randn(len(x), 10)


MASKS: tuple[type[Mask], ...] = (
    StoodIn, Batched, Differentiated, Moded, Inferring, Files, Crowded, Training, Remembering, Tiring, Misread,
)  # fmt: skip
