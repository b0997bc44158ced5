"""Memory of the inter-class loss against stacking (B, K, C, H, W) tensors: python benchmarks/loss_memory.py"""

import torch
from common import write

from idc.bridge import Bridge
from idc.loss import bridge_loss
from idc.profiling import peak_cpu_bytes

BATCH, SHAPE = 64, (3, 32, 32)


def stacked_loss(sample, output, labels, classes):
    """The plain way: every class's target, one (B, K, C, H, W) tensor for each operation that autograd keeps."""
    targets = sample.target[:, None] - sample.gap[..., None] * (labels[None] - sample.x0[:, None])
    distances = (targets - output[:, None]).abs().flatten(2).mean(2)
    intra = (sample.target - output).abs().flatten(1).mean(1)
    wrong = distances.scatter(1, classes[:, None], torch.inf).amin(1)
    right = distances.gather(1, classes[:, None]).squeeze(1)
    return intra - 0.2 * torch.where(right <= wrong, 0.0, wrong)


def main() -> None:
    random = torch.Generator().manual_seed(0)
    rows = []
    for classes in (10, 100, 200, 1000):
        labels = 2 * torch.rand(classes, *SHAPE, generator=random) - 1
        chosen = torch.randint(classes, (BATCH,), generator=random)
        y = 2 * torch.rand(BATCH, *SHAPE, generator=random) - 1
        t = torch.randint(4, (BATCH,), generator=random)
        sample = Bridge().sample(labels[chosen], y, t, torch.randn(BATCH, *SHAPE, generator=random))
        output = torch.randn(BATCH, *SHAPE, generator=random).requires_grad_()
        ours = peak_cpu_bytes(lambda: bridge_loss(sample, output, labels, chosen).total.sum().backward())  # noqa: B023
        one_tensor = BATCH * classes * 3 * 32 * 32 * 4
        output.grad = None
        plain = peak_cpu_bytes(lambda: stacked_loss(sample, output, labels, chosen).sum().backward())  # noqa: B023
        rows.append(
            {
                "classes": classes,
                "batch": BATCH,
                "peak_bytes": ours,
                "stacked_peak_bytes": plain,
                "one_stacked_tensor_bytes": one_tensor,
                "ratio": plain / ours,
                "ratio_to_one_tensor": one_tensor / ours,
            }
        )
        print(f"K = {classes:5d}: {ours / 2**20:8.1f} MiB, stacked {plain / 2**20:8.1f} MiB, {plain / ours:7.1f} times")
    print(write("loss_memory", "python benchmarks/loss_memory.py", {"rows": rows}))


if __name__ == "__main__":
    main()
