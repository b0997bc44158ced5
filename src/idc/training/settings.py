"""The settings that every training run has; recipes add those of their own objective. Fields become flags."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from idc.errors import IDCError
from idc.storage.fields import check, rules, setting, short, unknown, written

if TYPE_CHECKING:  # the command line reads the fields of a recipe before anything heavy is imported
    from idc.data import Augmentation

LONG = 2_000  # steps that pay for compiling the network
WORTH_COMPILING = 2.0  # minutes that do
REMEDY = "correct the recipe"
# Sections of the help: a field's ``panel`` is that of the fields after it too, until another.
LENGTH, OPTIMISER, AUGMENTATION = "Recipe: length and batches", "Recipe: optimiser", "Recipe: augmentation"
AVERAGE, HARDWARE, KEEPING = "Recipe: averaged weights", "Recipe: how it runs", "Recipe: validation and checkpoints"
TARGETS, LOSSES, ATTACKS = "Recipe: targets", "Recipe: losses", "Recipe: attacks on the training images"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network is optimised, whatever its objective. Each field's metadata is its help text."""

    epochs: float = setting(20.0, "how often the training goes through all training images", above=0, panel=LENGTH)
    minutes: float = setting(
        0.0, "train for so long instead, loading, validation and files included: the schedule of the epochs is "
        "stretched, or shortened, to fit; 0: as many epochs as --epochs says", least=0,
    )  # fmt: skip
    batch_size: int = setting(128, "images in one step of the training, all processes together", least=1)
    accumulation: int = setting(1, "steps whose gradients are averaged into one update of the weights", least=1)
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = setting(
        "adamw",
        "how the weights are updated; sgd has Nesterov momentum 0.9; muon: inner layers' weights by Muon, all others "
        "by adamw",
        panel=OPTIMISER,
    )
    lr: float = setting(2e-3, "learning rate at its highest", above=0)
    weight_decay: float = setting(0.05, "weight decay: decoupled with adamw and muon, an L2 penalty with sgd", least=0)
    beta2: float = setting(0.99, "adam, adamw, muon: decay of the average of squared gradients", least=0, below=1)
    schedule: Literal["constant", "cosine", "linear", "piecewise", "plateau"] = setting(
        "linear",
        "how the learning rate falls after the warm-up; piecewise: to a tenth at 1/2 and again at 3/4 of all updates",
    )
    warmup: float = setting(
        0.1,
        "share of all updates in which the learning rate rises from 0 (0.4 with linear: a cyclic schedule)",
        least=0,
        below=1,
    )
    plateau_patience: int = setting(
        3000,
        "schedule plateau: updates without a lower loss before the learning rate halves, and as many of rest after it",
        least=0,
    )
    plateau_floor: float = setting(5e-7, "schedule plateau: smallest learning rate", least=0)
    clip_norm: float = setting(1.0, "gradients of a larger norm are scaled down to it; 0: none", least=0)
    flip: bool = setting(False, "mirror half of the images, left to right", panel=AUGMENTATION)
    crop: int = setting(0, "shift each image by up to so many pixels", least=0)
    rotation: float = setting(0.0, "rotate each image by up to so many degrees", least=0)
    ema_decay: float = setting(
        0.998,
        "decay of the moving average (EMA) of the weights, which is what is validated and kept; 0: no average",
        least=0,
        below=1,
        panel=AVERAGE,
    )
    ema_every: int = setting(1, "updates of the weights between two of that average", least=1)
    ema_start: int = setting(0, "updates of the weights before that average begins", least=0)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "numbers that the network computes in; auto: bf16 where the hardware multiplies it, else fp32",
        panel=HARDWARE,
    )  # fmt: skip
    compile: bool | None = setting(
        None,
        f"compile the network (torch.compile); none: on a GPU, from {LONG:,} steps or {WORTH_COMPILING:g} minutes on",
    )
    seed: int = setting(0, "seed of all random numbers: weights, order, augmentation, noise")
    validate_every: float = setting(1.0, "epochs between two validations", above=0, panel=KEEPING)
    validation_limit: int = setting(
        2000, "how many images of the validation split are used while the training goes on", least=1
    )
    final_limit: int = setting(
        0, "on how many validation images the best weights are judged at the end; 0: all", least=0
    )
    checkpoint_every: float = setting(1.0, "epochs between two checkpoints", above=0)

    def __post_init__(self) -> None:
        check(self, remedy=REMEDY)

    @property
    def adversarial(self) -> bool:
        """Whether the training attacks each batch."""
        return False

    def idle(self) -> dict[str, str]:
        """By name, settings that say nothing beside the others, and what they need."""
        return {}

    @property
    def may_mix(self) -> bool:
        """Whether images are not mixed with one another, but may be."""
        return False

    @property
    def augmentation(self) -> "Augmentation":
        """The augmentation of one batch."""
        from idc.data import Augmentation

        return Augmentation(flip=self.flip, crop=self.crop, rotation=self.rotation)


S = TypeVar("S", bound=Settings)


def override(recipe: S, changes: dict[str, Any]) -> S:
    """``recipe`` with fields replaced; texts are read as a flag's.

    Raises:
        IDCError: for an unknown field, a value of the wrong type, or a setting that would say nothing.
    """
    known = rules(type(recipe))
    for name in changes:
        if name not in known:
            raise unknown(f"recipe field {short(name)}", name, known)
    texts = {n: known[n].read(n, v, remedy=REMEDY) for n, v in changes.items() if isinstance(v, str)}
    found = replace(recipe, **changes | texts)
    refuse_idle(found, changes)
    return found


def refuse_idle(recipe: Settings, names: Iterable[str]) -> None:
    """Raise IDCError for the first of the settings of these names that says nothing beside the others."""
    idle = recipe.idle()
    for name in names:
        if name in idle:
            needs, _, remedy = idle[name].partition(": ")
            raise IDCError(f"{name} = {written(getattr(recipe, name))}", needs, remedy)
