"""All that defines an IDC but its weights."""

from dataclasses import dataclass, field

from idc.errors import IDCError
from idc.method.bridge import BridgeSpec, default_visits
from idc.method.labels import LabelKind
from idc.method.unet import UNetSpec
from idc.storage.fields import check, setting, short
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

    num_classes: int = setting(least=1)
    image_shape: tuple[int, int, int] = setting(least=1)
    unet: UNetSpec = setting()
    bridge: BridgeSpec = field(default_factory=BridgeSpec)
    label_seed: int = 0
    visits: tuple[int, ...] = setting((), expected="timesteps such as [3, 1, 0]")
    clip: bool = True
    temperature: float = setting(0.1, above=0, remedy="use 0.1, as the paper does")
    class_names: tuple[str, ...] = ()
    label_kind: LabelKind = setting("qr", omit_default=True)
    label_cell: int = setting(1, omit_default=True)

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "class_names", name_classes(self.class_names, self.num_classes))
        last = (self.bridge.timesteps - 1,)
        usual = default_visits(self.bridge.timesteps) if self.unet.time_embedding else last
        object.__setattr__(self, "visits", self.visits or usual)
        if self.visits != last and not self.unet.time_embedding:
            raise IDCError(
                f"visits {short(self.visits)} of a network that is not told the timestep",
                f"{last[0]}, the one-step answer",
                "leave visits out, or train a network with time_embedding",
            )
