"""The whole method in plain torch, without idc: labels, bridge, losses, training, sampling, answer.

    python examples/standalone.py

Trains a small convolutional network on scikit-learn's digits for some seconds and prints test accuracy. It is
meant to be read; ``tests/system/test_examples.py`` holds the library to its formulas.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

T = 4
M = torch.linspace(0.001, 0.999, T)  # share of the image at timestep t
VAR = 2 * (M - M**2)  # variance of the bridge


def make_labels(k, d):
    """K orthonormal directions, each scaled to [-1, 1]."""
    gaussian = torch.randn(k, d, generator=torch.Generator().manual_seed(0))
    rows = torch.linalg.qr(gaussian.T)[0].T
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    return 2 * (rows - low) / (high - low) - 1


def losses(x0, y, t, eps, output, labels, classes):
    """Intra-class and inter-class terms for flat (B, D) tensors."""
    m = M[t][:, None]
    before = torch.where(t > 0, M[(t - 1).clamp(min=0)], 0.0)[:, None]
    target = m * (y - x0) + VAR[t].sqrt()[:, None] * eps
    intra = (target - output).abs().mean(1)
    d = torch.stack([(target - (m - before) * (p - x0) - output).abs().mean(1) for p in labels], dim=1)
    wrong = d.scatter(1, classes[:, None], torch.inf).amin(1)
    inter = torch.where(d.gather(1, classes[:, None]).squeeze(1) <= wrong, 0.0, wrong)
    return intra, inter


def sample(network, y, visits=(3, 1, 0), eta=1.0, noise=None):
    """x0_hat after the reverse process over ``visits``."""
    x = y
    for i, t in enumerate(visits):
        x0 = (x - network(x, torch.full((len(x),), t))).clamp(-1, 1)
        if i + 1 == len(visits):
            return x0
        n = visits[i + 1]
        s2 = ((VAR[t] - VAR[n] * ((1 - M[t]) / (1 - M[n])) ** 2) * VAR[n] / VAR[t]).clamp(min=0)
        eps = torch.randn_like(x) if noise is None else noise[i]
        mean = (1 - M[n]) * x0 + M[n] * y
        x = mean + ((VAR[n] - s2) / VAR[t]).sqrt() * (x - (1 - M[t]) * x0 - M[t] * y) + eta * s2.sqrt() * eps


class Network(nn.Module):
    """U(x_t, t) for flat images of d values: what matters here is the method, not the network."""

    def __init__(self, d, width=256):
        super().__init__()
        self.time = nn.Embedding(T, width)
        self.first, self.second, self.last = nn.Linear(d, width), nn.Linear(width, width), nn.Linear(width, d)

    def forward(self, x, t):
        h = F.silu(self.first(x) + self.time(t))
        return x + self.last(h + F.silu(self.second(h)))


def main():
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = 2 * F.interpolate(images, size=(16, 16), mode="bilinear").flatten(1) - 1
    classes = torch.tensor(digits.target)
    order = torch.randperm(len(y))
    train, test = order[:1400], order[1400:]
    labels = make_labels(10, y.shape[1])
    network = Network(y.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(800):
        chosen = train[torch.randint(len(train), (128,))]
        x0, t, eps = labels[classes[chosen]], torch.randint(T, (128,)), torch.randn(128, y.shape[1])
        x_t = x0 + M[t][:, None] * (y[chosen] - x0) + VAR[t].sqrt()[:, None] * eps
        intra, inter = losses(x0, y[chosen], t, eps, network(x_t, t), labels, classes[chosen])
        (intra - 0.2 * inter).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for name, visits in (("one-step", (3,)), ("multi-step", (3, 1, 0))):
            distance = torch.cdist(sample(network, y[test], visits), labels, p=1.0)
            accuracy = (distance.argmin(1) == classes[test]).float().mean()
            print(f"{name}: {accuracy:.1%} of {len(test)} test images")


if __name__ == "__main__":
    main()
