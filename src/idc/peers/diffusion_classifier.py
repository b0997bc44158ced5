"""Diffusion models as classifiers: the class under which the noise is predicted best.

ZDC: Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023; Clark and Jaini, NeurIPS 2023.
RDC: Chen et al., "Robust Classification via a Single Diffusion Model", ICML 2024 (arXiv 2305.15241), which first moves
the image to where the unconditional model finds it likelier.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from idc.errors import IDCError
from idc.peers.diffusion import Diffusion
from idc.types import ClassifierDefaults, Logits, check_images

Weights = Literal["uniform", "elbo"]


class DiffusionClassifier(nn.Module, ClassifierDefaults):
    """Images (B, C, H, W) in [0, 1] -> logits (B, K): minus the error of the noise predicted for each class.

    The error is averaged over ``timesteps`` strata of the schedule, one timestep (its middle) and one noise each; all
    classes see the same noise. An answer costs timesteps x K network evaluations: 125 x 10 = 1,250 as published for
    CIFAR-10.

    Args:
        diffusion: class-conditional.
        timesteps: n, at most T.
        weights: of the timesteps: "uniform", as Li et al.; "elbo", those of the evidence lower bound, by which the
            logits are log p(x | class) in nats, up to a constant and the bound's gap.
        temperature: of uniform logits, in units of the mean squared error of one pixel's noise.
        maximise: RDC's steps of likelihood maximisation; 0 is ZDC.
        budget: how far (L-inf, on [0, 1]) these may move the image; 8/255 in the paper.
        rate: their length, in units of the budget.
        levels: the noise levels that these look at, as ratios of noise to image: from and to; the paper's 0.4 to 0.6.
        rows: image x timestep x class triples in one evaluation; memory, not results, depends on it.

    Raises:
        IDCError: if the model knows no classes, or a setting is out of range.
    """

    stochastic = True

    def __init__(
        self,
        diffusion: Diffusion,
        *,
        timesteps: int = 125,
        weights: Weights = "uniform",
        temperature: float = 0.01,
        maximise: int = 0,
        budget: float = 8 / 255,
        rate: float = 0.5,
        levels: tuple[float, float] = (0.4, 0.6),
        rows: int = 512,
    ) -> None:
        super().__init__()
        total = diffusion.config.timesteps
        if not diffusion.config.num_classes:
            raise IDCError("diffusion model", "one that knows classes", "train it with --conditional")
        if not 1 <= timesteps <= total:
            raise IDCError(f"timesteps = {timesteps}", f"1 to {total}", "use 125, as published, or fewer")
        if weights not in ("uniform", "elbo"):
            raise IDCError(f"weights = {weights!r}", "uniform or elbo", "correct it")
        if maximise < 0 or budget < 0 or not temperature > 0:
            raise IDCError(
                "diffusion classifier", "maximise and budget of 0 or more, temperature above 0", "correct it"
            )
        self.diffusion, self.timesteps, self.maximise = diffusion, timesteps, maximise
        self.weights, self.temperature, self.budget, self.rate, self.rows = weights, temperature, budget, rate, rows
        self.strata: Tensor
        ratio = ((1 - diffusion.alphas) / diffusion.alphas).sqrt()
        wanted = torch.linspace(*levels, max(1, maximise))
        self.levels: Tensor
        self.register_buffer("levels", torch.searchsorted(ratio, wanted).clamp(max=total - 1), persistent=False)
        names = ("timesteps", "weights", "temperature", "maximise", "budget", "rate")
        self.config = {name: getattr(self, name) for name in names} | {"noise_levels": tuple(levels)}
        self.card = diffusion.card
        self.register_buffer("strata", ((torch.arange(timesteps) + 0.5) * total / timesteps).long(), persistent=False)

    @property
    def num_classes(self) -> int:
        return self.diffusion.config.num_classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.diffusion.config.image_shape

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.diffusion.config.class_names

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is counted as a network evaluation."""
        return (self.diffusion.unet,)

    # -- errors --------------------------------------------------------------------------------------------------------

    def _weight(self, t: Tensor) -> Tensor:
        """(m,) what the mean squared error at each timestep counts, so that logits are minus the mean over timesteps.

        "elbo": T times beta_t / (2 (1 - beta_t) (1 - a_{t-1})), the factor of KL(q(x_{t-1}|x_t,x_0) || p) with the
        posterior's variance (Ho et al., equation 12), over all D pixels; at t = 0, where that variance vanishes, it is
        the factor of the decoder's density with variance beta_0.
        """
        if self.weights == "uniform":
            return torch.full_like(t, 1 / self.temperature, dtype=torch.float32)
        a = self.diffusion.alphas.double()
        before = torch.cat([a.new_ones(1), a[:-1]])
        beta = 1 - a / before
        variance = (1 - before) / (1 - a) * beta
        variance[0] = beta[0]
        factor = beta**2 / (2 * variance * (1 - beta) * (1 - a))
        pixels = torch.Size(self.input_shape).numel()
        return (factor[t] * self.diffusion.config.timesteps * pixels).float()

    def errors(self, images: Tensor, strata: Tensor) -> Tensor:
        """(B, K) weighted mean squared error of the noise predicted for each class, mean over ``strata`` (n,).

        Differentiable; each chunk is computed again in the backward pass, so memory does not grow with n.
        """
        x0 = 2 * images - 1
        # One call for each timestep, whatever the chunks: an image's noise then depends on neither them nor its batch.
        noise = torch.stack([torch.randn_like(x0) for _ in strata])
        at_once = max(1, self.rows // self.num_classes)
        found = [self._image_errors(x, eps, strata) for x, eps in
                 zip(x0.split(at_once), noise.split(at_once, dim=1), strict=True)]  # fmt: skip
        return torch.cat(found) if found else x0.new_zeros(0, self.num_classes)

    def _image_errors(self, x0: Tensor, noise: Tensor, strata: Tensor) -> Tensor:
        """``errors`` of so few images that one timestep of them fits: (B, C, H, W), (n, B, C, H, W), (n,)."""
        total = torch.zeros(len(x0), self.num_classes, device=x0.device)
        at_once = max(1, self.rows // (len(x0) * self.num_classes))
        for eps, t in zip(noise.split(at_once), strata.split(at_once), strict=True):
            if torch.is_grad_enabled() and x0.requires_grad:
                found = checkpoint(self._errors, x0, eps, t, use_reentrant=False, preserve_rng_state=False)
            else:
                found = self._errors(x0, eps, t)
            total = total + found
        return total / len(strata)

    def _errors(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """(B, C, H, W), (m, B, C, H, W), (m,) -> (B, K), summed over the m timesteps; one batch of m x B x K."""
        m, b, k = len(t), len(x0), self.num_classes
        rows_t = t.repeat_interleave(b)
        x_t = self.diffusion.noised(x0.repeat(m, 1, 1, 1), rows_t, eps.flatten(0, 1))
        classes = torch.arange(k, device=x0.device).repeat(m * b)
        found = self.diffusion.predict(x_t.repeat_interleave(k, 0), rows_t.repeat_interleave(k), classes)
        # |eps - found|^2 needs no copy of eps for each class.
        away = (found.view(m, b, k, -1) - eps.view(m, b, 1, -1)).square().mean(-1)
        return (away * self._weight(t).view(m, 1, 1)).sum(0)

    # -- RDC -----------------------------------------------------------------------------------------------------------

    def likelier(self, images: Tensor, *, exact: bool = True) -> Tensor:
        """The image moved, within ``budget``, to where the unconditional error is smaller (RDC, algorithm 1).

        Each step takes one noise level of the range in turn and fresh noise, and follows the gradient, scaled to a
        largest component of ``rate`` times the budget.

        Args:
            images: (B, C, H, W) in [0, 1].
            exact: differentiate through the steps (a second derivative of the network); otherwise the result has the
                gradient of the image itself.
        """
        exact = exact and images.requires_grad and torch.is_grad_enabled()
        x = images if exact else images.detach()
        moved = torch.zeros_like(x)
        for index in range(self.maximise):
            gradient = self._unconditional(x + moved, self.levels[index % len(self.levels)], exact=exact)
            largest = gradient.flatten(1).abs().amax(1).clamp(min=1e-20).view(-1, 1, 1, 1)
            moved = (moved - self.rate * self.budget * gradient / largest).clamp(-self.budget, self.budget)
            moved = (x + moved).clamp(0, 1) - x
        return x + moved if exact else images + moved

    def _unconditional(self, images: Tensor, t: Tensor, *, exact: bool) -> Tensor:
        """The gradient of the unconditional error by the images."""
        eps = torch.randn_like(images)
        # Only the plain attention can be differentiated twice.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if exact else nullcontext():
            x = images if exact else images.detach().requires_grad_(True)
            predicted = self.diffusion.predict(self.diffusion.noised(2 * x - 1, t, eps), t, None)
            away = (predicted - eps).square().sum()
            (gradient,) = torch.autograd.grad(away, x, create_graph=exact)
        return gradient

    # -- answers -------------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.input_shape)
        return -self.errors(self.likelier(images) if self.maximise else images, self.strata)

    def surrogates(self) -> Mapping[str, Logits]:
        """A tenth of the timesteps; the same in the middle of the schedule, where classes differ most; and, for RDC,
        the answer without the maximisation and with it taken for the identity. (RDC's own gradient goes through it.)"""
        n = max(1, self.timesteps // 10)
        few = self.strata[torch.linspace(0, self.timesteps - 1, n + 2).long()[1:-1]]
        middle = self.strata[self.timesteps // 4 : max(self.timesteps // 4 + 1, self.timesteps // 2)][:n]
        found: dict[str, Logits] = {
            "few-timesteps": lambda images: -self.errors(images, few),
            "middle-timesteps": lambda images: -self.errors(images, middle),
        }
        if self.maximise:
            found["unmaximised"] = lambda images: -self.errors(images, self.strata)
            found["straight-through"] = lambda images: -self.errors(self.likelier(images, exact=False), self.strata)
        return found
