"""All that defines an IDC but its weights."""

from dataclasses import dataclass, field
from typing import Any

from idc.errors import IDCError
from idc.method.bridge import BridgeSpec, default_visits
from idc.method.labels import LabelKind
from idc.method.presets import resolve_spec
from idc.method.unet import UNetSpec
from idc.storage.records import OMIT_DEFAULT
from idc.types import name_classes


@dataclass(frozen=True, slots=True)
class IDCConfig:
    """All that defines a classifier but its weights.

    Args:
        num_classes: K.
        image_shape: (C, H, W) of images and labels.
        unet: the network.
        bridge: the Brownian bridge.
        label_seed: of the orthogonal labels.
        visits: timesteps of the default answer; () stands for ``default_visits(T)``, for a network that is not told the
            timestep for (T-1,), the only one that it can answer at.
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
        last = (self.bridge.timesteps - 1,)
        usual = default_visits(self.bridge.timesteps) if self.unet.time_embedding else last
        object.__setattr__(self, "visits", tuple(self.visits) or usual)
        if self.visits != last and not self.unet.time_embedding:
            visits = ",".join(map(str, self.visits))
            raise IDCError(
                f"visits {visits} of a network that is not told the timestep",
                f"{last[0]}, the one-step answer",
                "leave visits out, or train a network with time_embedding",
            )
        if not self.temperature > 0:
            raise IDCError(f"temperature = {self.temperature}", "a positive number", "use 0.1, as the paper does")


def config_from_dict(values: dict[str, Any]) -> IDCConfig:
    """The config of which ``records.recorded`` has these values.

    Raises:
        KeyError, TypeError, ValueError, IDCError: for values that do not make one.
    """
    given = dict(values)
    unet = resolve_spec(given.pop("unet"))
    return IDCConfig(unet=unet, bridge=BridgeSpec(**given.pop("bridge")), **given)


def card_head(config: IDCConfig) -> list[str]:
    """The lines of a model card from its front matter on, in the hub's layout: what the config says."""
    shape, visits = "x".join(map(str, config.image_shape)), ", ".join(map(str, config.visits))
    cell = f", in cells of {config.label_cell}x{config.label_cell} pixels" if config.label_cell > 1 else ""
    return [
        "---", "library_name: idc", "license: apache-2.0", "pipeline_tag: image-classification",
        "tags: [image-classification, adversarial-robustness, diffusion]", "---", "",
        f"# Image-to-Image Diffusion Classifier, {config.num_classes} classes, {shape}", "",
        "Translates an image into one of K orthogonal image labels by a Brownian-bridge diffusion model and answers "
        "with the nearest (Mei, Dong and Xu, AAAI 2025).", "",
        "```python", "from idc import IDC", 'model = IDC.from_pretrained("THIS FOLDER OR HUB ID")',
        f"prediction = model.predict(images)  # (B, {', '.join(map(str, config.image_shape))}) in [0, 1]", "```", "",
        f"- Classes: {', '.join(config.class_names[:200])}",
        f"- Image labels: {config.label_kind}, seed {config.label_seed}{cell}",
        f"- Timesteps visited: {visits} of T = {config.bridge.timesteps}; eta = {config.bridge.eta}",
    ]  # fmt: skip
