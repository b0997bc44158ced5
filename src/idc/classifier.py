"""``IDC``: the image-to-image diffusion classifier (paper; method.md "Classification")."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from idc import noise as streams
from idc.bridge import Bridge, BridgeSpec, check_eta, default_visits
from idc.errors import IDCError
from idc.files import make_folder
from idc.hardware import uses_bf16
from idc.labels import LabelKind, fingerprint, inner_products, orthogonal_labels
from idc.records import OMIT_DEFAULT
from idc.saved import check_stored
from idc.types import Logits, check_images, name_classes
from idc.unet import BridgeUNet, UNetSpec

Noise = Callable[[int, Tensor], Tensor]  # (reverse step, x) -> standard normal like x


@dataclass(frozen=True, slots=True)
class IDCConfig:
    """All that defines a classifier but its weights.

    Args:
        num_classes: K.
        image_shape: (C, H, W) of images and labels.
        unet: the network.
        bridge: the Brownian bridge.
        label_seed: of the orthogonal labels.
        visits: timesteps of the default answer; () stands for ``default_visits(T)``.
        clip: clamp x0_hat to [-1, 1] after each evaluation, as the authors do.
        temperature: tau in logits = -distance / tau.
        class_names: K names; () numbers them.
        label_kind, label_cell: what the labels look like and how coarse they are, see ``orthogonal_labels``.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    unet: UNetSpec
    bridge: BridgeSpec = field(default_factory=BridgeSpec)
    label_seed: int = 0
    visits: tuple[int, ...] = ()
    clip: bool = True
    temperature: float = 0.1
    class_names: tuple[str, ...] = ()
    label_kind: LabelKind = field(default="qr", metadata=OMIT_DEFAULT)
    label_cell: int = field(default=1, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", name_classes(self.class_names, self.num_classes))
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        object.__setattr__(self, "visits", tuple(self.visits) or default_visits(self.bridge.timesteps))
        if not self.temperature > 0:
            raise IDCError(f"temperature = {self.temperature}", "a positive number", "use 0.1, as the paper does")


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of the network: x_t went in, x0_hat came out; (B, C, H, W) on [-1, 1]."""

    t: int
    x_t: Tensor
    x0_hat: Tensor


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for B images.

    ``classes`` (B,) int64; ``distances`` (B, K), mean over draws, on [0, 1]; ``votes`` (B, K), the share of draws
    whose own answer is each class; ``confidence`` (B, K), softmax of -distances/temperature (not calibrated).
    """

    classes: Tensor
    distances: Tensor
    votes: Tensor
    confidence: Tensor
    class_names: tuple[str, ...]
    draws: int

    @property
    def agreement(self) -> Tensor:
        """(B,) share of draws whose own answer is ``classes``."""
        return self.votes.gather(1, self.classes[:, None])[:, 0]

    @property
    def names(self) -> list[str]:
        """The answers by name."""
        return [self.class_names[c] for c in self.classes.tolist()]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the mode of every submodule as found outside."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class IDC(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="idc",
    tags=["image-classification", "adversarial-robustness", "diffusion"],
    license="apache-2.0",
):
    """Translates an image into one of K image labels and answers with the nearest.

    Images are always (B, C, H, W), floating point, in [0, 1].

    Args:
        config: see ``IDCConfig``.
    """

    def __init__(self, config: IDCConfig) -> None:
        super().__init__()
        self.config = config
        self.bridge = Bridge(config.bridge)
        self.bridge.check_visits(config.visits)
        self.unet: nn.Module = BridgeUNet(config.unet, config.image_shape)
        labels = orthogonal_labels(
            config.num_classes, config.image_shape, seed=config.label_seed,
            kind=config.label_kind, cell=config.label_cell,
        )  # fmt: skip
        self.labels_sha256 = fingerprint(labels)
        self.labels: Tensor
        self.register_buffer("labels", labels, persistent=False)
        self.bf16 = False  # see with_precision
        self.checkpointing = False  # recompute each evaluation in the backward pass: the memory of one, not of all
        self.card: dict[str, Any] = {}  # what a model card says beyond the config: data, recipe, figures

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.config.image_shape

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.config.class_names

    @property
    def one_step_visits(self) -> tuple[int, ...]:
        """Visits of the one-step answer: T-1 alone, which draws no noise."""
        return (self.config.bridge.timesteps - 1,)

    @property
    def stochastic(self) -> bool:
        """Whether the default answer draws noise."""
        return len(self.config.visits) > 1 and self.config.bridge.eta > 0

    shares_draws = True  # see Classifier: the first evaluation sees no noise

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is counted as a network evaluation."""
        return (self.unet,)

    def with_answer(self, *, visits: Sequence[int] | None = None, eta: float | None = None) -> "IDC":
        """This model with another default answer. The weights are shared, not copied.

        Args:
            visits: timesteps, such as (3,) for the one-step answer.
            eta: share of the noise, in [0, 1].
        """
        other = self.with_network(self.unet)
        bridge = self.config.bridge if eta is None else replace(self.config.bridge, eta=eta)
        other.config = replace(
            self.config, bridge=bridge, visits=self.bridge.check_visits(visits or self.config.visits)
        )
        return other

    def with_precision(self, precision: str) -> "IDC":
        """This model with its network in another precision; bridge, distances and logits stay float32.

        Args:
            precision: "fp32", "bf16", or "auto": bf16 where the device multiplies it.

        Raises:
            IDCError: for another word.
        """
        other = self.with_network(self.unet)
        other.bf16 = uses_bf16(precision, self.labels.device)
        return other

    def with_network(self, unet: nn.Module) -> "IDC":
        """This model with another network of the same shape, such as averaged weights. Nothing is copied."""
        other = object.__new__(type(self))
        other.__dict__ = {
            k: dict(v) if k in ("_modules", "_buffers", "_parameters") else v for k, v in self.__dict__.items()
        }
        other.unet = unet
        return other

    # -- the chain -----------------------------------------------------------------------------------------------------

    def _x0_hat(self, x_t: Tensor, t: int, y: Tensor, clip: bool) -> Tensor:
        # A 0-d timestep, filled on the device: no host copy, and the network broadcasts it.
        t_now = torch.full((), t, dtype=torch.int64, device=x_t.device)
        with torch.autocast(x_t.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            if self.checkpointing and torch.is_grad_enabled():
                moved = checkpoint(self.unet, x_t, t_now, y, use_reentrant=False, preserve_rng_state=self.training)
            else:
                moved = self.unet(x_t, t_now, y)
        x0_hat = x_t - moved
        return x0_hat.clamp(-1, 1) if clip else x0_hat

    def _chain(
        self,
        images: Tensor,
        visits: Sequence[int],
        eta: float,
        noise: Noise,
        *,
        draws: int = 1,
        clip: bool | None = None,
    ) -> Iterator[Step]:
        """The reverse process. The first evaluation sees no noise, so all draws share it: (B, ...), (draws*B, ...)."""
        clip = self.config.clip if clip is None else clip
        y = 2 * images.to(self.labels.dtype) - 1
        x = x0_hat = y
        for index, t in enumerate(visits):
            if index:
                before = visits[index - 1]
                if index == 1 and draws > 1:
                    x, y, x0_hat = (v.repeat(draws, 1, 1, 1) for v in (x, y, x0_hat))
                eps = noise(index - 1, x) if eta > 0 and self.bridge.posterior_variance(before, t) > 0 else None
                moved = self.bridge.step(x, x0_hat, y, before, t, eta=eta, eps=eps)
                if before == t:  # nothing moved: the same evaluation again would give the same x0_hat
                    yield Step(t, x, x0_hat)
                    continue
                x = moved
            x0_hat = self._x0_hat(x, t, y, clip)
            yield Step(t, x, x0_hat)

    def _settings(self, visits: Sequence[int] | None, eta: float | None) -> tuple[tuple[int, ...], float]:
        if eta is not None:
            check_eta(eta)
        chosen = self.config.visits if visits is None else self.bridge.check_visits(visits)
        return chosen, self.config.bridge.eta if eta is None else eta

    def trajectory(
        self,
        images: Tensor,
        *,
        visits: Sequence[int] | None = None,
        eta: float | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> list[Step]:
        """Every evaluation of the reverse process, for pictures and analysis; arguments as for ``translate``."""
        check_images(images, self.input_shape)
        visits, eta = self._settings(visits, eta)
        return list(self._chain(images, visits, eta, _noise_source(generator, noise)))

    def translate(
        self,
        images: Tensor,
        *,
        visits: Sequence[int] | None = None,
        eta: float | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The image label that the network sees in each image, x0_hat.

        Args:
            images: (B, C, H, W) in [0, 1].
            visits: timesteps from T-1 down; by default the configuration's. (T-1,) is the one-step answer.
            eta: share of the noise in [0, 1]; by default the configuration's.
            generator: of the noise, on any device; fresh noise from the global one if None.
            noise: instead, (len(visits) - 1, B, C, H, W) standard normal, one slice a reverse step.

        Returns:
            (B, C, H, W) in [0, 1], differentiable.

        Raises:
            IDCError: for images or visits out of range.
        """
        last = self.trajectory(images, visits=visits, eta=eta, generator=generator, noise=noise)[-1]
        return _to_unit(last.x0_hat, self.config.clip)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _label_distances(self, x0_hat: Tensor, *, clip: bool | None = None) -> Tensor:
        unit = _to_unit(x0_hat, self.config.clip if clip is None else clip).flatten(1)
        with torch.autocast(unit.device.type, enabled=False):
            return torch.cdist(unit, self.labels.flatten(1), p=1.0) / unit.shape[1]

    def distances(
        self,
        images: Tensor,
        *,
        visits: Sequence[int] | None = None,
        eta: float | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Mean absolute difference between the translation and each label, both on [0, 1].

        Arguments as for ``translate``. Returns (B, K) in [0, 1], differentiable.
        """
        last = self.trajectory(images, visits=visits, eta=eta, generator=generator, noise=noise)[-1]
        return self._label_distances(last.x0_hat)

    def forward(
        self,
        images: Tensor,
        *,
        visits: Sequence[int] | None = None,
        eta: float | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        draws: int = 1,
    ) -> Tensor:
        """Logits ``-distances / temperature``, (B, K): not probabilities. Arguments as for ``translate``.

        With ``draws`` above 1, (draws*B, K), draw by draw, from one first evaluation; ``noise`` then has as many rows.
        """
        check_images(images, self.input_shape)
        visits, eta = self._settings(visits, eta)
        rows = draws * images.shape[0]
        if draws < 1:
            raise IDCError(f"draws = {draws}", "at least 1", "leave it out for one answer an image")
        if noise is not None and noise.shape[1] != rows:
            raise IDCError(f"noise for {noise.shape[1]} images", f"{rows}, one a draw and image", "draw as many")
        many = draws if self.bridge.draws_noise(visits, eta) else 1
        *_, last = self._chain(images, visits, eta, _noise_source(generator, noise), draws=many)
        return _of_each(-self._label_distances(last.x0_hat) / self.config.temperature, draws // many)

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        *,
        draws: int = 10,
        visits: Sequence[int] | None = None,
        eta: float | None = None,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> Prediction:
        """Classify: the nearest label by the mean distance over ``draws``.

        The noise of an image depends on ``seed`` and its id alone, unless ``generator`` is given: the answer does not
        change with the batch. The first, noise-free evaluation is shared by all draws; an answer that draws no noise at
        all is evaluated once.

        Args:
            images: (B, C, H, W) in [0, 1], on any device.
            draws: of the noise, at least 1.
            visits, eta: as for ``translate``.
            generator: of the noise, instead of per-image streams.
            ids: (B,) int64 identities of the images; 0..B-1 by default.
            seed: of the per-image streams.
            batch_size: images times draws in one network pass at most.

        Raises:
            IDCError: for images, draws or visits out of range.
        """
        if draws < 1:
            raise IDCError(f"draws = {draws}", "at least 1", "use 10 or more for a stable answer")
        check_images(images, self.input_shape)
        visits, eta = self._settings(visits, eta)
        n = draws if self.bridge.draws_noise(visits, eta) else 1
        ids = torch.arange(len(images)) if ids is None else ids
        chunk = max(1, batch_size // n)
        parts = []
        with evaluation_mode(self):
            for part, part_ids in zip(images.split(chunk), ids.split(chunk), strict=True) if len(images) else ():
                device = self.labels.device
                source = _noise_source(generator, None) if generator else _stream(part_ids.to(device), seed, n)
                *_, last = self._chain(part.to(device), visits, eta, source, draws=n)
                parts.append(self._label_distances(last.x0_hat).view(n, len(part), -1))
        each = torch.cat(parts, dim=1) if parts else self.labels.new_zeros(n, 0, self.num_classes)
        mean = each.mean(dim=0)
        classes = mean.argmin(dim=1)
        votes = torch.nn.functional.one_hot(each.argmin(dim=2), self.num_classes).to(mean.dtype).mean(dim=0)
        confidence = torch.softmax(-mean / self.config.temperature, dim=1)
        return Prediction(classes, mean, votes, confidence, self.class_names, draws)

    # -- weak spots ----------------------------------------------------------------------------------------------------

    def inner_products(self) -> tuple[Tensor, Tensor]:
        """Weights (K, C*H*W) and offsets (K,) of the inner products in place of distances; see ``idc.labels``."""
        return inner_products(self.labels, published=(self.config.label_kind, self.config.label_cell) == ("qr", 1))

    def surrogates(self) -> Mapping[str, Logits]:
        """The model's own weak spots: functions images -> logits that are easier to differentiate than the answer.

        No clamp anywhere, and in place of the L1 distance an inner product (see ``inner_products``) or L2; of the
        one-step answer, of the whole chain, and of the mean of its x0_hats. The chain draws fresh noise from the global
        generator.
        """
        labels = 2 * self.labels.flatten(1) - 1
        weights, offsets = self.inner_products()

        def inner(x0_hat: Tensor) -> Tensor:
            return (x0_hat.flatten(1) @ weights.T - offsets) / (labels.shape[1] * self.config.temperature)

        def l2(x0_hat: Tensor) -> Tensor:
            return -torch.cdist(x0_hat.flatten(1), labels).square() / (2 * labels.shape[1] * self.config.temperature)

        def l1(x0_hat: Tensor) -> Tensor:
            return -self._label_distances(x0_hat, clip=False) / self.config.temperature

        def run(visits: tuple[int, ...], read: Logits, *, average: bool = False) -> Logits:
            def logits(images: Tensor, draws: int = 1) -> Tensor:
                noise, eta = _noise_source(None, None), self.config.bridge.eta
                many = draws if self.bridge.draws_noise(visits, eta) else 1
                first, *rest = (s.x0_hat for s in self._chain(images, visits, eta, noise, draws=many, clip=False))
                mean = torch.stack([first.repeat(many, 1, 1, 1), *rest]).mean(0) if average else [first, *rest][-1]
                return _of_each(read(mean), draws // many)

            return logits

        first, all_visits = self.one_step_visits, self.config.visits
        found: dict[str, Logits] = {"one-step-inner": run(first, inner), "one-step-l2": run(first, l2)}
        if all_visits != first:
            found |= {"chain-inner": run(all_visits, inner), "chain-l2": run(all_visits, l2)}
            found |= {"chain-l1": run(all_visits, l1), "mean-x0-inner": run(all_visits, inner, average=True)}
        return found

    # -- files ---------------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, *, dtype: str = "fp32", **options: Any) -> str | None:
        """Save config, weights and model card into a folder, from which ``from_pretrained`` loads them.

        Args:
            save_directory: the folder.
            dtype: of the file: "fp32" as they are, or "bf16": half the size, each weight rounded to 8 bits of mantissa
                (not the statistics of BatchNorm). Loading gives float32 weights in either case; this model's own stay
                as they are.
            options: ``push_to_hub``, ``repo_id`` and others of huggingface_hub's ``ModelHubMixin.save_pretrained``.

        Returns:
            The address of the commit if it is pushed, else None.

        Raises:
            IDCError: for another dtype, or if the folder cannot be written.
        """
        check_stored(dtype)
        make_folder(Path(save_directory))
        kept = self if dtype == "fp32" else self.with_network(deepcopy(self.unet))
        if dtype == "bf16":
            for weight in kept.unet.parameters():  # not BatchNorm's statistics: few, and divided by
                weight.data = weight.data.bfloat16()
        return super(IDC, kept).save_pretrained(save_directory, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        from idc import storage

        storage.save(self, save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's own would look a mistyped local path up on the hub
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
    ) -> "IDC":
        """Load a saved model, in evaluation mode.

        Args:
            pretrained_model_name_or_path: a folder written by ``save_pretrained``, the name of a model that comes with
                the package (``idc models``), or a hub id ``owner/name``; a folder of that name comes first. What looks
                like a path is never looked up on the hub.
            revision: branch, tag or commit on the hub.
            device: where the weights go.

        Raises:
            IDCError: if a file is missing, truncated, edited or does not fit; never a wrong classifier.
        """
        from idc import storage

        return storage.load(str(pretrained_model_name_or_path), revision=revision).to(device)


def _of_each(logits: Tensor, copies: int) -> Tensor:
    """(B, K) for each of ``copies`` draws that do not differ."""
    return logits.repeat(copies, 1) if copies > 1 else logits


def _to_unit(x0_hat: Tensor, clip: bool) -> Tensor:
    unit = (x0_hat + 1) / 2
    return unit.clamp(0, 1) if clip else unit


def _noise_source(generator: torch.Generator | None, fixed: Tensor | None) -> Noise:
    def draw(step: int, x: Tensor) -> Tensor:
        if fixed is not None:
            return fixed[step].to(x)
        device = x.device if generator is None else generator.device
        return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)

    return draw


def _stream(ids: Tensor, seed: int, draws: int) -> Noise:
    def draw(step: int, x: Tensor) -> Tensor:
        return streams.normal(ids, tuple(x.shape[1:]), seed=seed, draws=draws, step=step).flatten(0, 1).to(x.dtype)

    return draw
