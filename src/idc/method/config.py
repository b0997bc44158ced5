"""All that defines an IDC but its weights."""

from dataclasses import dataclass, field
from typing import Any

from idc.errors import IDCError
from idc.method.bridge import BridgeSpec, default_visits
from idc.method.presets import resolve_spec
from idc.method.unet import UNetSpec
from idc.storage.fields import check, setting, written
from idc.text import in_markdown
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
        visits: timesteps of the default answer; () stands for ``default_visits(T)``, for a network of one step for
            (T-1,), the only one that it can answer at.
        clip: clamp x0_hat to [-1, 1] after each evaluation, as the authors do.
        temperature: tau in logits = -distance / tau.
        class_names: K names; () numbers them.
        label_kind, label_cell: what the labels look like and how coarse they are, see ``orthogonal_labels``. A kind
            ``package.module:function`` says who made labels of one's own; they are saved among the weights.
    """

    num_classes: int = setting(least=1)
    image_shape: tuple[int, int, int] = setting(least=1)
    unet: UNetSpec = setting()
    bridge: BridgeSpec = field(default_factory=BridgeSpec)
    label_seed: int = 0
    visits: tuple[int, ...] = setting((), expected="timesteps such as [3, 1, 0]")
    clip: bool = True
    temperature: float = setting(0.1, above=0, remedy="use 0.1, as the paper does")
    class_names: tuple[str, ...] = ()
    label_kind: str = setting("qr", omit_default=True)
    label_cell: int = setting(1, omit_default=True)

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "class_names", name_classes(self.class_names, self.num_classes))
        last = (self.bridge.timesteps - 1,)
        usual = last if self.unet.one_step else default_visits(self.bridge.timesteps)
        object.__setattr__(self, "visits", self.visits or usual)
        if self.visits != last and self.unet.one_step:
            kind, remedy = "not told the timestep", "leave visits out, or train a network with time_embedding"
            if self.unet.mirrored:
                kind, remedy = "mirrored", "give --one-step too, or leave mirrored out"
            said = f"visits {written(self.visits)} of a network that is {kind}"
            raise IDCError(said, f"{last[0]}, the one-step answer", remedy)

    @property
    def own_labels(self) -> bool:
        """Whether the labels are a user's own, which follow from no setting."""
        return ":" in str(self.label_kind)


def config_from_dict(values: dict[str, Any]) -> IDCConfig:
    """The config of which ``fields.recorded`` has these values.

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
        f"- Classes: {in_markdown(', '.join(config.class_names[:200]))}",
        f"- Image labels: {config.label_kind}, seed {config.label_seed}{cell}",
        f"- Timesteps visited: {visits} of T = {config.bridge.timesteps}; eta = {config.bridge.eta}",
        *(["- Mirrored: it answers for an image and its mirror image"] if config.unet.mirrored else []),
    ]  # fmt: skip
