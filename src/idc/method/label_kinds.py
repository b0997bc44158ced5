"""The kinds of image labels besides the paper's: Hadamard, low-frequency, blocks."""

import math
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

Shape = tuple[int, int, int]


_LARGEST = 2048  # order of a Paley matrix: a few MB


def scaled(rows: Tensor, shape: Shape) -> Tensor:
    """(K, C*H*W) -> (K, C, H, W) float32, each in [0, 1] by its own minimum and maximum."""
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    return ((rows - low) / (high - low)).to(torch.float32).view(len(rows), *shape)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))


def _paley_prime(order: int) -> int | None:
    """The prime of Paley's construction (the first: order - 1, the second: order / 2 - 1), if there is one."""
    if order % 4 == 0 and _is_prime(order - 1):
        return order - 1
    if order % 4 == 0 and (order // 2 - 1) % 4 == 1 and _is_prime(order // 2 - 1):
        return order // 2 - 1
    return None


@lru_cache(maxsize=64)
def hadamard_factors(size: int) -> tuple[int, ...] | None:
    """Orders, each 2 or one of Paley's, whose product is ``size``; None if there are none."""
    if size & (size - 1) == 0:
        return (2,) * (size.bit_length() - 1)
    for order in range(12, min(size, _LARGEST) + 1, 4):
        if size % order == 0 and order & (order - 1) and _paley_prime(order):
            rest = hadamard_factors(size // order)
            if rest is not None:
                return (order, *rest)
    return None


def _factor(order: int) -> Tensor:
    """A Hadamard matrix of order 2 or one of Paley's, (order, order) int8, whose first row is all ones."""
    if order == 2:
        return torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)
    prime = _paley_prime(order)
    assert prime is not None
    place = torch.arange(prime)
    character = torch.full((prime,), -1, dtype=torch.int8)
    character[place.square() % prime] = 1  # squares
    character[0] = 0
    core = torch.ones(prime + 1, prime + 1, dtype=torch.int8)
    core[0, 0] = 0
    core[1:, 1:] = character[(place[:, None] - place) % prime]
    one = torch.eye(prime + 1, dtype=torch.int8)
    if prime + 1 == order:
        core[1:, 0] = -1
        return core + one
    ones, turned = (torch.tensor(m, dtype=torch.int8) for m in ([[1, 1], [1, -1]], [[1, -1], [-1, -1]]))
    found = torch.kron(core, ones) + torch.kron(one, turned)
    return found * found[0]


def hadamard(num_classes: int, shape: Shape, seed: int) -> Tensor:
    size = math.prod(shape)
    chosen = 1 + torch.randperm(size - 1, generator=torch.Generator().manual_seed(seed))[:num_classes]
    rows = torch.ones(num_classes, 1, dtype=torch.int8)
    for order in reversed(hadamard_factors(size) or ()):  # a row of a Kronecker product is one of rows
        rows = (_factor(order)[chosen % order][:, :, None] * rows[:, None, :]).flatten(1)
        chosen = chosen // order
    return ((rows + 1) // 2).to(torch.float32).view(num_classes, *shape)


def low_frequency(num_classes: int, shape: Shape) -> Tensor:
    channels, height, width = shape

    def waves(length: int) -> Tensor:
        # Not scipy's dct of the identity: its last bits are others, and labels of saved models must stay what they are.
        frequency = torch.arange(length, dtype=torch.float64)
        return torch.cos(math.pi / length * frequency[:, None] * (frequency + 0.5))

    # By channel, then by frequency in cycles a pixel; whole numbers, so that ties are ties.
    order = sorted(
        product(range(channels), range(height), range(width)),
        key=lambda f: (f[0], (f[1] * width) ** 2 + (f[2] * height) ** 2, f),
    )
    c, v, u = torch.tensor(order[1 : num_classes + 1]).T
    found = torch.einsum("kc,kh,kw->kchw", waves(channels)[c], waves(height)[v], waves(width)[u])
    return scaled(found.flatten(1), shape)


def blocks(num_classes: int, shape: Shape) -> Tensor:
    channels, height, width = shape
    size = height * width
    # A path through all pixels: bands of rows, one to the right and the next to the left, column by column. Its K equal
    # lengths are the regions; on a plane that divides evenly they are rectangles.
    bands = min(height, max(1, round(math.sqrt(num_classes * height / width))))
    path = sorted(
        product(range(height), range(width)),
        key=lambda p: (p[0] * bands // height, -p[1] if p[0] * bands // height % 2 else p[1], p[0]),
    )
    region = torch.empty(height, width, dtype=torch.int64)
    row, column = torch.tensor(path).T
    region[row, column] = torch.arange(size) * num_classes // size
    found = torch.nn.functional.one_hot(region, num_classes).permute(2, 0, 1)
    return found[:, None].expand(-1, channels, -1, -1).to(torch.float32).contiguous()
