"""Defences that hide their weakness, and honest models, under ``adaptive``: is one believed that should not be?

    python benchmarks/masks.py [NAME ...]

Around one small network for 8x8 digits that falls to any attack (and an adversarially trained one), each mask hides
that in its own way. Its true accuracy is what is left when the network inside is attacked and the whole is judged, a
new copy each time. It passes, which is bad, if the evaluation reports more than five points above that and every check
passes. Figures go to benchmarks/results/masks.json.
"""

import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from common import RESULTS, read, write
from torch import Tensor, nn
from torch.nn import functional as F

from idc.attacks.gradient import apgd
from idc.attacks.objective import CrossEntropy, Margin
from idc.attacks.target import Target
from idc.attacks.threat import Threat
from idc.commands import evaluate as command
from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.data import load
from idc.data.image_set import interleaved
from idc.evaluation.protocol import PROTOCOLS, Protocol
from idc.evaluation.sanity.library import autoattack_finds_no_more
from idc.noise import Streams

EPS, IMAGES, POINTS = 0.15, 32, 0.05
DRAWS, STEPS, QUERIES = 10, 20, 1000
FEW, FEW_EPS = 16, 0.1  # images of models that answer slowly


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


# -- answers that belong to more than the image ------------------------------------------------------------------------


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


# -- honest models -----------------------------------------------------------------------------------------------------


class Smoothed(Mask):
    """Declared noise on the input."""

    stochastic = True

    def before(self, x: Tensor) -> Tensor:
        return x + 0.05 * torch.randn_like(x)


class Attention(nn.Module):
    """A small vision transformer on 2x2 patches."""

    num_classes, input_shape, stochastic = 10, (1, 8, 8), False

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, activation="gelu")
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.patches(x).flatten(2).mT + self.places).mean(1))

    def surrogates(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {}


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 10))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


@cache
def trained(
    make: Callable[[], nn.Module], steps: int = 300, *, eps: float = 0.0, trades: float = 0.0, seed: int = 0
) -> nn.Module:
    """On the training digits; with ``eps`` adversarially (Madry et al., ICLR 2018), with ``trades`` by the divergence
    of adversarial from clean answers (Zhang et al., ICML 2019)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images, classes = pixels("train", None)
        net = make()
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(steps):
            rows = torch.randint(len(images), (128,))
            x, y = images[rows], classes[rows]
            near = _near(net, x, y, eps, trades) if eps else x
            loss = F.cross_entropy(net(x if trades else near), y)
            if trades:
                loss = loss + trades * _divergence(net(near), net(x))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.requires_grad_(False).eval()


def _divergence(near: Tensor, clean: Tensor) -> Tensor:
    return F.kl_div(near.log_softmax(1), clean.softmax(1), reduction="batchmean")


def _near(net: nn.Module, x: Tensor, y: Tensor, eps: float, trades: float) -> Tensor:
    found = x + torch.empty_like(x).uniform_(-eps, eps)
    for _ in range(5):
        found.requires_grad_(True)
        logits = net(found)
        loss = _divergence(logits, net(x).detach()) if trades else F.cross_entropy(logits, y)
        (gradient,) = torch.autograd.grad(loss, found)
        found = x + (found.detach() + eps / 3 * gradient.sign() - x).clamp(-eps, eps)
        found = found.clamp(0, 1)
    return found.detach()


def pixels(split: str, limit: int | None) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in [0, 1] and classes of a split of the digits."""
    digits = load("digits", split=split, image_size=8, limit=limit)
    return digits.images.float() / 255, digits.labels


MASKS: tuple[type[Mask], ...] = (
    Quantised, QuantisedFinely, Sawtooth, Thermometer, Compressed, Detached, PartlyDetached, Winners, Rounded, OneHot,
    OneHotAndLittle, Probabilities, LogProbabilities, Saturated, Scaled, Clamped, NoNumber, Decoy, DecoyOutOfSight,
    Buried, Corner, Resized, Seeded, Placed, Unsaid, Batched, Differentiated, Moded, Inferring, Files, Crowded,
    Training, Remembering, Tiring, Misread,
)  # fmt: skip
HONEST: dict[str, Callable[[], nn.Module]] = {
    "Standard": lambda: Mask(trained(perceptron)),
    "Adversarial": lambda: Mask(trained(convolutions, eps=EPS)),
    "Trades": lambda: Mask(trained(convolutions, eps=EPS, trades=4.0)),
    "Transformer": lambda: trained(Attention, 500),
    "Smoothed": lambda: Smoothed(trained(perceptron)),
}
PACKAGED = {"idc-digits-robust, one step": True, "idc-digits-robust, chain": False}


def mask(kind: type[Mask]) -> Mask:
    """Around the networks that all share."""
    return around(kind, trained(perceptron), trained(convolutions, eps=EPS))


def around(kind: type[Mask], net: nn.Module, other: nn.Module) -> Mask:
    """A mask around ``net``; of those that have two networks, the other is ``other``."""
    return (kind(net, other) if issubclass(kind, Batched) else kind(net)).eval()


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """The factory that ``idc evaluate masks:of_NAME`` names."""
    if not name.startswith("of_"):
        raise AttributeError(name)
    name = name.removeprefix("of_")
    if kind := {k.__name__: k for k in MASKS}.get(name):
        return lambda: mask(kind)
    if name in HONEST:
        return HONEST[name]
    raise AttributeError(name)


def true_accuracy(whole: Mask, images: Tensor, classes: Tensor, threat: Threat) -> float:
    """What is left of ``whole`` after attacks on the network inside, each image judged by itself, of a new copy."""
    streams = Streams(torch.arange(len(images)), 7)

    def straight_through(x: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            return whole.net(x + (whole.before(x) - x).detach())

    left = _judged(whole, images, classes)
    for index, (function, objective) in enumerate(product((whole.net, straight_through), (Margin(), CrossEntropy()))):
        attack = apgd(threat, objective=objective)
        found = whole.shown(attack(Target(function), images, classes, streams.of(index)))
        left = torch.minimum(left, _judged(whole, found, classes))
    return left.mean().item()


def _judged(whole: Mask, images: Tensor, classes: Tensor) -> Tensor:
    """(B,) share of right answers."""
    each = []
    for image in images:
        copy = deepcopy(whole)  # asked nothing before
        with whole.asking():
            each.append([int(copy(image[None]).argmax()) for _ in range(9 if whole.stochastic else 1)])
    return (torch.tensor(each) == classes[:, None]).double().mean(1)


def short(threat: Threat) -> Protocol:
    """``adaptive``, shorter."""
    found = PROTOCOLS["adaptive"](threat)
    own = {"steps": STEPS, "queries": QUERIES}
    attacks = [
        (name, replace(attack, **{k: v for k, v in own.items() if hasattr(attack, k)}))  # type: ignore[type-var]
        for name, attack in found.attacks
    ]
    return replace(found, attacks=tuple(attacks), sanity=IMAGES)


def evaluated(model: str, *, eps: float = EPS, **settings: Any) -> dict[str, Any]:
    """Accuracy as ``adaptive`` reports it, its failed checks, and seconds of a core."""
    began = time.process_time()
    with TemporaryDirectory() as folder:
        request = Request(model=model, data="digits", eps=eps, **{"limit": IMAGES, "draws": DRAWS} | settings)
        found = evaluate(request, Path(folder) / "out", protocol=short(Threat("linf", eps)), say=lambda text: None)
    failed = [check["name"] for check in found["sanity"] if not check["passed"]]
    seconds = round(time.process_time() - began, 1)
    return {"clean": found["clean"]["mean"]["mean"], "reported": found["robust"]["mean"]["mean"], "failed": failed,
            "seconds": seconds}  # fmt: skip


def row(name: str) -> dict[str, Any]:
    """What is known of one model; ``passes``: reported well above the truth, and nothing said."""
    if name in PACKAGED:
        settings = {"one_step": True} if PACKAGED[name] else {}
        return {"honest": True} | evaluated("idc-digits-robust", eps=FEW_EPS, limit=FEW, draws=4, **settings)
    if name in HONEST:
        return {"honest": True} | evaluated(f"masks:of_{name}")
    images, classes = pixels("test", IMAGES)
    order = interleaved(classes)
    true = true_accuracy(mask({k.__name__: k for k in MASKS}[name]), images[order], classes[order], Threat("linf", EPS))
    found = evaluated(f"masks:of_{name}")
    passes = found["reported"] > true + POINTS and not found["failed"]
    return {"honest": False, "true": true} | found | {"passes": passes}


def main() -> None:
    # Left out: AutoAttack's library, a minute a mask.
    command.CHECKS = tuple(check for check in command.CHECKS if check is not autoattack_finds_no_more)
    names = sys.argv[1:] or [*(k.__name__ for k in MASKS), *HONEST, *PACKAGED]
    rows = read(RESULTS / "masks.json")["rows"] if sys.argv[1:] and (RESULTS / "masks.json").exists() else {}
    for name in names:
        found = rows[name] = row(name)
        true = "" if found["honest"] else f"{found['true']:6.1%}"
        bad = " PASSES" if found.get("passes") else " FALSE ALARM" if found["honest"] and found["failed"] else ""
        text = f"{name:28} {true:7} {found['reported']:6.1%} {found['seconds']:5.0f} s{bad}"
        print(text, "; ".join(found["failed"]), sep="  ", flush=True)
        write("masks", "python benchmarks/masks.py", {"eps": EPS, "images": IMAGES, "rows": rows})


if __name__ == "__main__":
    main()
