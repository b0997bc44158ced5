"""Ways to hide from gradients that any attack misleads a network: steps, outputs and noise; see masks.py."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 0.15


class Mask(nn.Module):
    """A defence around a network; by default what it does to images before the network sees them."""

    stochastic = False
    num_classes, input_shape = 10, (1, 8, 8)

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.before(x))

    def before(self, x: Tensor) -> Tensor:
        return x

    def surrogates(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {}

    asking = torch.no_grad  # how those ask who use it

    def shown(self, x: Tensor) -> Tensor:
        """Adversarial images as those show them to it who use it."""
        return x


class Smoothed(Mask):
    """Declared noise on the input."""

    stochastic = True

    def before(self, x: Tensor) -> Tensor:
        return super().before(x + 0.05 * torch.randn_like(x))


# -- steps without a gradient ------------------------------------------------------------------------------------------


class Quantised(Mask):
    def before(self, x: Tensor) -> Tensor:
        return (x * 8).round() / 8


class QuantisedFinely(Mask):
    def before(self, x: Tensor) -> Tensor:
        return (x * 64).round() / 64


class Sawtooth(Mask):
    """Pixels in steep steps, and a small slope the other way between them."""

    def before(self, x: Tensor) -> Tensor:
        steps = (x * 10).round() / 10
        return steps - 0.1 * (x - steps)


class Thermometer(Mask):
    """Sixteen thresholds a pixel (Buckman et al., ICLR 2018), added up again."""

    def before(self, x: Tensor) -> Tensor:
        levels = torch.arange(16, device=x.device).view(16, 1, 1, 1, 1) / 16
        return (x[None] > levels).to(x.dtype).mean(0)


class Compressed(Mask):
    """As JPEG does: the cosine transform of 8x8 pixels, rounded."""

    def before(self, x: Tensor) -> Tensor:
        k = torch.arange(8, dtype=x.dtype)
        basis = torch.cos(torch.pi * (2 * k[None] + 1) * k[:, None] / 16) * (2 - (k == 0).to(x.dtype)[:, None]).sqrt()
        basis = basis / 8**0.5
        return basis.T @ ((basis @ x @ basis.T) * 6).round().div(6) @ basis


class Detached(Mask):
    def before(self, x: Tensor) -> Tensor:
        return x.detach()


class PartlyDetached(Mask):
    """A hundredth of the gradient is left, of a picture that is not the one asked about."""

    def before(self, x: Tensor) -> Tensor:
        return x.detach() + 0.01 * (x.flip(-1) - x.flip(-1).detach())


class Denoised(Mask):
    """Five steps towards the median, which is detached: what is left of the gradient points the other way."""

    def before(self, x: Tensor) -> Tensor:
        for _ in range(5):
            around = F.unfold(F.pad(x.detach(), (1,) * 4, mode="replicate"), 3)
            middle = around.view(len(x), 9, -1).median(1).values.view_as(x)
            x = middle + 0.3 * (middle - x).clamp(-0.2, 0.2)
        return x


class DenoisedNoise(Smoothed, Denoised):
    """The same of an image with declared noise."""


class Partial(Mask):
    """A picture much unlike the image goes on, and a gradient at a quarter of the pixels alone, as numpy leaves it."""

    def before(self, x: Tensor) -> Tensor:
        here = (torch.arange(64, device=x.device) * 37 % 64 < 16).view(1, 8, 8)
        lost = torch.from_numpy(x.detach().numpy().copy())
        return lost + 4 * here * (x - x.detach())


class PartialNoise(Smoothed, Partial):
    """The same of an image with declared noise."""


class Winners(Mask):
    """The largest of hidden units alone go on (Xiao et al., ICLR 2020), by a step."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.net[:-1](x)
        edge = hidden.topk(24, dim=1).values[:, -1:]
        return self.net[-1]((hidden >= edge) * (hidden * 4).round() / 4)


# -- outputs that say little -------------------------------------------------------------------------------------------


class Rounded(Mask):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).round(decimals=0)


class OneHot(Mask):
    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(self.net(x).argmax(1), 10).to(x.dtype)


class OneHotAndLittle(Mask):
    """The answer alone, and beside it a gradient that leads nowhere."""

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(self.net(x).argmax(1), 10) + 1e-2 * self.net(x.flip(-1).flip(-2))


class Probabilities(Mask):
    def forward(self, x: Tensor) -> Tensor:
        return (30 * self.net(x)).softmax(1)


class LogProbabilities(Mask):
    """Of so low a temperature that all but one are equal, and cut off."""

    def forward(self, x: Tensor) -> Tensor:
        return (1000 * self.net(x)).log_softmax(1).clamp(min=-30)


class Saturated(Mask):
    """Logits through a sigmoid that has no slope left in float32."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.sigmoid(200 * (logits - logits.detach().topk(2).values.mean(1, keepdim=True)))


class Scaled(Mask):
    """Logits so large that cross-entropy is exactly 0."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e6 * self.net(x)


class Clamped(Mask):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).clamp(-0.1, 0.1) + 1e-6 * self.net(x).detach()


class NoNumber(Mask):
    """The right answer, and a gradient that is not a number."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + 0 * (x.flatten(1).sum(1, keepdim=True) * 0).sqrt()


class Decoy(Mask):
    """The answer of one network, the logits of another: the order is kept, the gradient is not."""

    def forward(self, x: Tensor) -> Tensor:
        true = self.net(x).argmax(1)
        decoy = torch.tanh(self.net(x.flip(-1)) / 10)
        return decoy + 3 * F.one_hot(true, 10)


class DecoyOutOfSight(Mask):
    """The same, and no module is called that hooks would see."""

    def forward(self, x: Tensor) -> Tensor:
        true = seen = x
        for layer in cast(nn.Sequential, self.net):
            true, seen = layer.forward(true), layer.forward(seen.flip(-1) if seen.ndim == 4 else seen)
        return torch.tanh(seen / 10) + 3 * F.one_hot(true.argmax(1), 10)


class Buried(Mask):
    """Exact values; the gradient is buried in noise, by an autograd function that no mode looks into."""

    def before(self, x: Tensor) -> Tensor:
        found: Tensor = _Burying.apply(x)
        return found


class _Burying(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return gradient[0] * torch.randint(-1, 2, gradient[0].shape)


class Corner(Mask):
    """A score that rises towards a bright image, small noise that is declared, and the answer on top."""

    stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        lure = x.flatten(1).mean(1, keepdim=True) * torch.linspace(0, 1, 10)
        return lure + 2 * F.one_hot(self.net(x).argmax(1), 10) + 1e-3 * torch.randn(len(x), 10)


# -- noise that is not what it is said to be ---------------------------------------------------------------------------


def resized(x: Tensor, size: Tensor) -> Tensor:
    """Each image shrunk to so many pixels a side, and enlarged again."""
    small = [
        F.interpolate(F.interpolate(i[None], size=(int(s), int(s))), size=(8, 8)) for i, s in zip(x, size, strict=True)
    ]
    return torch.cat(small)


class Resized(Mask):
    """Random sizes (Xie et al., ICLR 2018), undeclared."""

    def before(self, x: Tensor) -> Tensor:
        return resized(x, 7 + (torch.rand(len(x)) < 0.5).long())


class Seeded(Mask):
    """Declared noise, the same in every call: the generator is seeded inside."""

    stochastic = True

    def before(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return x + 0.1 * torch.randn_like(x)


class Placed(Mask):
    """Noise of a generator of its own, tied to the place in the batch."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.15 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


class Unsaid(Mask):
    def before(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


MASKS: tuple[type[Mask], ...] = (
    Quantised, QuantisedFinely, Sawtooth, Thermometer, Compressed, Detached, PartlyDetached, Denoised, DenoisedNoise,
    Partial, PartialNoise, Winners, Rounded, OneHot, OneHotAndLittle, Probabilities, LogProbabilities, Saturated,
    Scaled, Clamped, NoNumber, Decoy, DecoyOutOfSight, Buried, Corner, Resized, Seeded, Placed, Unsaid,
)  # fmt: skip
