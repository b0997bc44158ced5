"""Projected gradient descent in the L-inf ball (Madry et al., ICLR 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from idc.errors import IDCError
from idc.types import Bounds, Logits

_UNIT = Bounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """Untargeted L-inf PGD on cross-entropy; calling it attacks one batch.

    It returns the last iterate and judges nothing: whether an image fell is decided on the real model with fresh noise.

    Args:
        eps: radius, in units of pixels on [0, 1].
        step: step size; by default eps / 4.
        steps: gradient steps.
        random_start: start from a uniform point of the ball.
        bounds: of every pixel.
    """

    eps: float
    step: float | None = None
    steps: int = 20
    random_start: bool = True
    bounds: Bounds = _UNIT

    def __post_init__(self) -> None:
        if not self.eps >= 0:
            raise IDCError(f"eps = {self.eps}", "0 or more, on [0, 1]", "write 8/255 as 0.0314")
        if self.steps < 0:
            raise IDCError(f"steps = {self.steps}", "0 or more", "use 20, as the paper does")

    def __call__(
        self, model: Logits, images: Tensor, classes: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Attack ``images`` (B, C, H, W) in [0, 1] of true ``classes`` (B,); returns images of the same shape.

        ``model`` is differentiated and should be a surrogate that can be; weights gather no gradient.
        """
        low = (images - self.eps).clamp(min=self.bounds.lower)
        high = (images + self.eps).clamp(max=self.bounds.upper)
        step = self.eps / 4 if self.step is None else self.step
        x = images.clone()
        if self.random_start and self.eps > 0:
            device = generator.device if generator else images.device
            shift = torch.rand(images.shape, generator=generator, device=device, dtype=images.dtype).to(images.device)
            x = torch.clamp(x + self.eps * (2 * shift - 1), low, high)
        for _ in range(self.steps):
            x.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(model(x), classes, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = torch.clamp(x.detach() + step * gradient.sign(), low, high)
        return x.detach()
