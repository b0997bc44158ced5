"""The settings that every training run has; recipes add those of their own objective. Fields become flags."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from idc.storage.fields import check, rules, setting, short, unknown

if TYPE_CHECKING:  # the command line reads the fields of a recipe before anything heavy is imported
    from idc.data import Augmentation

LONG = 2_000  # steps that pay for compiling the network
REMEDY = "correct the recipe"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network is optimised, whatever its objective. Each field's metadata is its help text."""

    epochs: float = setting(20.0, "passes over the training split", above=0)
    batch_size: int = setting(128, "images in one step, over all processes", least=1)
    accumulation: int = setting(1, "steps whose gradients are averaged into one update", least=1)
    optimizer: Literal["adam", "adamw", "sgd"] = setting("adamw", "adam, adamw or sgd (Nesterov momentum 0.9)")
    lr: float = setting(2e-3, "peak learning rate", above=0)
    weight_decay: float = setting(0.05, "decoupled weight decay (adamw), or the L2 penalty (sgd)", least=0)
    beta2: float = setting(0.99, "decay of Adam's second moment", least=0, below=1)
    schedule: Literal["constant", "cosine", "linear", "piecewise", "plateau"] = setting(
        "linear", "how the rate falls after the warm-up; piecewise: a tenth at 1/2 and at 3/4 of all updates"
    )
    warmup: float = setting(
        0.1, "share of all updates in which the rate rises from 0 (0.4 with linear: cyclic)", least=0, below=1
    )
    plateau_patience: int = setting(
        3000, "plateau: updates without improvement before the rate halves; also the cooldown", least=0
    )
    plateau_floor: float = setting(5e-7, "plateau: smallest rate", least=0)
    clip_norm: float = setting(1.0, "largest gradient norm; 0 does not clip", least=0)
    flip: bool = setting(False, "augmentation: mirror half of the images")
    crop: int = setting(0, "augmentation: shift by up to so many pixels", least=0)
    rotation: float = setting(0.0, "augmentation: rotate by up to so many degrees", least=0)
    ema_decay: float = setting(
        0.998, "decay of the averaged weights, which are validated and kept; 0: none", least=0, below=1
    )
    ema_every: int = setting(1, "updates between two averagings", least=1)
    ema_start: int = setting(0, "updates before the first averaging", least=0)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "auto: bf16 where the hardware multiplies it, else fp32"
    )
    compile: bool | None = setting(
        None, f"torch.compile the network; none: on a GPU, if there are {LONG:,} steps or more to pay for it"
    )
    seed: int = setting(0, "of the weights, the order, the augmentation and the noise")
    validate_every: float = setting(1.0, "epochs between two validations", above=0)
    validation_limit: int = setting(2000, "images of the validation split used while training", least=1)
    final_limit: int = setting(0, "validation images on which the best weights are judged at the end; 0: all", least=0)
    checkpoint_every: float = setting(1.0, "epochs between two checkpoints", above=0)

    def __post_init__(self) -> None:
        check(self, remedy=REMEDY)

    @property
    def augmentation(self) -> "Augmentation":
        """The augmentation of one batch."""
        from idc.data import Augmentation

        return Augmentation(flip=self.flip, crop=self.crop, rotation=self.rotation)


S = TypeVar("S", bound=Settings)


def override(recipe: S, changes: dict[str, Any]) -> S:
    """``recipe`` with fields replaced; texts are read as a flag's.

    Raises:
        IDCError: for an unknown field or a value of the wrong type.
    """
    known = rules(type(recipe))
    for name in changes:
        if name not in known:
            raise unknown(f"recipe field {short(name)}", name, known)
    texts = {n: known[n].read(n, v, remedy=REMEDY) for n, v in changes.items() if isinstance(v, str)}
    return replace(recipe, **changes | texts)
