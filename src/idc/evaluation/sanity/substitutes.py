"""Whether images made for networks that learnt from the model's answers alone do more than the evaluation did."""

import torch
from torch import Tensor, nn

from idc.attacks.gradient import pgd
from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER, Target
from idc.evaluation.sanity.bench import Bench, Finding
from idc.types import answered

_VARIANTS = 8  # of each image that the model is asked about
_STEPS, _BATCH = 250, 64
_SIDE = 32  # pixels a side that the substitutes see at most


def transfer_is_weaker(bench: Bench) -> Finding:
    """Adversarial images of two small substitutes, trained to answer as the model does, hurt less than the evaluation.

    They learn the model's answers to shifted and noisy variants of the images (Papernot et al., AsiaCCS 2017). Attacked
    are each of them and their mean. Of a deterministic model a single image more is let pass; of a stochastic one, what
    chance may do.
    """
    images, answers = _asked(bench)
    first, second = (
        train_substitute(n, images, answers) for n in networks(images.shape[1:], bench.classifier.num_classes)
    )

    def mean(x: Tensor) -> Tensor:
        return first(x).log_softmax(1) + second(x).log_softmax(1)

    each = []
    for name, function in (("convolutions", first), ("perceptron", second), ("both", mean)):
        attack, other = pgd(bench.threat, steps=40, objective=Margin()), Target(function, chunk=bench.target.chunk)
        found = attack(other, bench.images, bench.classes, bench.streams.of("transfer", name))
        each.append(bench.right(found, "transfer", name))
    passed, text = bench.no_weaker_than(each)
    remedy = "gradients are masked: black-box attacks see more"
    return Finding("white-box no weaker than transfer", passed, f"images made for substitutes leave {text}", remedy)


def networks(shape: tuple[int, ...], num_classes: int) -> tuple[nn.Module, nn.Module]:
    """A small convolutional network and a perceptron, of images (C, H, W), which they see at 32 pixels a side at most.
    The global generator is left as it was."""
    channels, side = shape[0], min(_SIDE, *shape[1:])
    patch = 4 if side >= 16 else 2 if side >= 2 else 1

    def seen(length: int) -> nn.Module:
        return nn.Identity() if shape[1:] == (length, length) else nn.AdaptiveAvgPool2d(length)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = nn.Sequential(
            seen(side), nn.Conv2d(channels, 32, 2 * patch - 1, patch, patch - 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * (-(-side // patch)) ** 2, num_classes),
        )  # fmt: skip
        perceptron = nn.Sequential(
            seen(side), nn.Flatten(), nn.Linear(channels * side * side, 64), nn.ReLU(), nn.Linear(64, num_classes)
        )
    return convolutions, perceptron


def train_substitute(network: nn.Module, images: Tensor, answers: Tensor) -> nn.Module:
    """Fit ``network`` to answers.

    Args:
        images: (N, C, H, W) in [0, 1].
        answers: (N,) the model's.

    Returns:
        It, on the images' device and in evaluation mode.
    """
    network = network.to(images.device)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    random = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(_STEPS):
            rows = torch.randint(len(images), (_BATCH,), generator=random).to(images.device)
            loss = nn.functional.cross_entropy(network(images[rows]), answers[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.requires_grad_(False).eval()


def _asked(bench: Bench) -> tuple[Tensor, Tensor]:
    """The images and variants of them, by up to a sixteenth of a side (a pixel at least) moved and under noise of up to
    twice the attack's size, with what the model answers."""
    streams, side = bench.streams.of("substitute"), bench.images.shape[-1]
    reach = max(1, side // 16)
    padded = nn.functional.pad(bench.images, (reach,) * 4, mode="replicate")
    variants, answers = [], []
    for variant in range(_VARIANTS):
        x, own = bench.images, streams.of(variant)
        if variant:
            down, right = ((2 * reach + 1) * own.of("move").uniform((2,))).long().clamp(max=2 * reach).unbind(1)
            x = torch.stack([
                image[:, i : i + image.shape[1] - 2 * reach, j : j + side]
                for image, i, j in zip(padded, down.tolist(), right.tolist(), strict=True)
            ])  # fmt: skip
            x = (x + variant % 3 * (bench.threat.random(bench.images, own) - bench.images)).clamp(0, 1)
        logits = bench.target.logits(ANSWER, x, own, draws=bench.answers if not variant else 1).mean(0)
        finite = answered(logits) >= 0
        variants.append(x[finite])
        answers.append(logits.argmax(1)[finite])
    return torch.cat(variants), torch.cat(answers)
