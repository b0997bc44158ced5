"""IDC written the plain way, as the published code is known to be: what ``speed.py`` measures ours against.

float32, channels first, one Python iteration a class in the loss over (B, K, C, H, W) tensors, four network passes an
answer, labels rebuilt by a QR in every forward of the attacked module, one pass a draw, pictures decoded one at a time
by the training process, averaged weights one by one. ``tests/benchmarks/test_plain.py`` holds that it computes what
ours does.
"""

import copy
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from idc import IDC

VISITS = (3, 1, 1, 0)  # the step 1 -> 1 changes nothing
TEMPERATURE = 0.1


class PlainIDC(nn.Module):
    """The same weights as ``model``, used the plain way."""

    def __init__(self, model: IDC) -> None:
        super().__init__()
        self.unet = copy.deepcopy(model.unet).float().to(memory_format=torch.contiguous_format)
        for name, module in list(self.unet.named_modules()):
            if isinstance(module, nn.Dropout):  # torch's, not ours
                self.unet.set_submodule(name, nn.Dropout(module.p))
        self.num_classes, self.shape = model.num_classes, model.input_shape
        m = torch.linspace(0.001, 0.999, 4)
        self.register_buffer("m", m)
        self.register_buffer("var", 2 * (m - m**2))
        self.register_buffer("fixed", self.labels())  # training has no need to make them anew

    def labels(self) -> Tensor:
        """(K, C, H, W) on [-1, 1], made anew."""
        size = int(np.prod(self.shape))
        gaussian = torch.randn(self.num_classes, size, generator=torch.Generator().manual_seed(0))
        q, _ = torch.linalg.qr(gaussian.T)
        found = []
        for column in q.T:
            label = column.reshape(self.shape)
            label = (label - label.min()) / (label.max() - label.min())
            found.append(2 * label - 1)
        return torch.stack(found).to(self.m.device)

    def loss(self, images: Tensor, classes: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Intra-class minus 0.2 times inter-class loss, the mean over the batch."""
        labels, y = self.fixed, 2 * images - 1
        x0 = labels[classes]
        m, var = self.m[t].view(-1, 1, 1, 1), self.var[t].view(-1, 1, 1, 1)
        target = m * (y - x0) + var.sqrt() * eps
        output = self.unet(x0 + target, t, y)
        return class_losses(target, output, labels, x0, y, m, var, eps, self.m, t, classes)

    def sample(self, images: Tensor, noise: Tensor) -> Tensor:
        """x0_hat after four passes; ``noise`` (3, B, C, H, W)."""
        y = 2 * images - 1
        x = y
        for i, t in enumerate(VISITS):
            x0 = (x - self.unet(x, torch.full((len(x),), t, device=x.device), y)).clamp(-1, 1)
            if i + 1 == len(VISITS):
                return x0
            n = VISITS[i + 1]
            m_t, m_n, var_t, var_n = self.m[t], self.m[n], self.var[t], self.var[n]
            s2 = ((var_t - var_n * ((1 - m_t) / (1 - m_n)) ** 2) * var_n / var_t).clamp(min=0)
            rest = ((var_n - s2).clamp(min=0) / var_t).sqrt() * (x - (1 - m_t) * x0 - m_t * y)
            x = (1 - m_n) * x0 + m_n * y + rest + s2.sqrt() * noise[i]
        raise AssertionError

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Logits (B, K) by the distance of every image to every label, stacked."""
        unit, labels = (self.sample(images, noise) + 1) / 2, (self.labels() + 1) / 2
        stacked = torch.stack([unit for _ in range(self.num_classes)], dim=1)  # (B, K, C, H, W)
        return -(stacked - labels[None]).abs().flatten(2).mean(2) / TEMPERATURE

    def gradient(self, images: Tensor, classes: Tensor, noises: list[Tensor]) -> Tensor:
        """Gradient of the mean cross-entropy over draws: one forward and backward pass a draw."""
        x = images.clone().requires_grad_()
        total = torch.zeros_like(images)
        for noise in noises:
            loss = nn.functional.cross_entropy(self(x, noise), classes, reduction="sum")
            total += torch.autograd.grad(loss, x)[0]
        return total / len(noises)


def class_losses(
    target: Tensor, output: Tensor, labels: Tensor, x0: Tensor, y: Tensor, m: Tensor, var: Tensor, eps: Tensor,
    schedule: Tensor, t: Tensor, classes: Tensor,
) -> Tensor:  # fmt: skip
    """The training loss, one iteration a class and stacked (B, K, C, H, W) tensors."""
    intra = (target - output).abs().mean()
    before = torch.where(t > 0, schedule[(t - 1).clamp(min=0)], 0.0).view(-1, 1, 1, 1)
    targets = []
    for label in labels:
        targets.append(before * (label[None] - x0) + m * (y - label[None]) + var.sqrt() * eps)
    stacked = torch.stack(targets, dim=1)
    outputs = torch.stack([output for _ in labels], dim=1)
    distances = (stacked - outputs).abs().flatten(2).mean(2)
    inter = []
    for row, true in zip(distances, classes, strict=True):
        if row.argmin() == true:
            inter.append(row.new_zeros(()))
        else:
            inter.append(torch.cat([row[:true], row[true + 1 :]]).min())
    return intra - 0.2 * torch.stack(inter).mean()


class PlainTraining:
    """One process of plain training: pictures decoded one at a time, Adam, an average by name."""

    def __init__(self, plain: PlainIDC, files: list[bytes], classes: list[int]) -> None:
        self.plain, self.files, self.classes = plain.train(), files, classes
        self.optimizer = torch.optim.Adam(plain.unet.parameters(), lr=1e-4)
        self.average = {name: p.detach().clone() for name, p in plain.unet.named_parameters()}

    def batch(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] and classes, item by item."""
        pictures = []
        for row in rows:
            with Image.open(io.BytesIO(self.files[row])) as picture:
                pixels = np.array(picture.convert("RGB"), dtype=np.float32) / 255
            pictures.append(torch.from_numpy(pixels).permute(2, 0, 1))
        device = self.plain.m.device
        return torch.stack(pictures).to(device), torch.tensor([self.classes[row] for row in rows]).to(device)

    def step(self, rows: list[int]) -> float:
        """One update."""
        images, classes = self.batch(rows)
        loss = self.plain.loss(
            images, classes, torch.randint(0, 4, (len(rows),), device=images.device), torch.randn_like(images)
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for name, p in self.plain.unet.named_parameters():
            self.average[name] = 0.995 * self.average[name] + 0.005 * p.detach()
        return loss.item()
