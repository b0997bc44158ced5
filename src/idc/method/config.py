"""All that defines an IDC but its weights."""

from dataclasses import dataclass, field

from idc.errors import IDCError
from idc.method.bridge import BridgeSpec, default_visits
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
        label_kind, label_cell: what the labels look like and how coarse they are, see ``orthogonal_labels``. A kind
            ``package.module:function`` says who made labels of one's own; they are saved among the weights.
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
    label_kind: str = field(default="qr", metadata=OMIT_DEFAULT)
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

    @property
    def own_labels(self) -> bool:
        """Whether the labels are a user's own, which follow from no setting."""
        return ":" in str(self.label_kind)
