"""The settings that every training run has; recipes add those of their own objective. Fields become flags."""

import dataclasses
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from idc.errors import IDCError
from idc.text import fraction

if TYPE_CHECKING:  # the command line reads the fields of a recipe before anything heavy is imported
    from idc.data import Augmentation

LONG = 2_000  # steps that pay for compiling the network


def setting(default: Any, text: str) -> Any:
    """A field of a recipe; ``text`` is its help."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network is optimised, whatever its objective. Each field's metadata is its help text."""

    epochs: float = setting(20.0, "passes over the training split")
    batch_size: int = setting(128, "images in one step, over all processes")
    accumulation: int = setting(1, "steps whose gradients are averaged into one update")
    optimizer: Literal["adam", "adamw", "sgd"] = setting("adamw", "adam, adamw or sgd (Nesterov momentum 0.9)")
    lr: float = setting(2e-3, "peak learning rate")
    weight_decay: float = setting(0.05, "decoupled weight decay (adamw), or the L2 penalty (sgd)")
    beta2: float = setting(0.99, "decay of Adam's second moment")
    schedule: Literal["constant", "cosine", "linear", "piecewise", "plateau"] = setting(
        "linear", "how the rate falls after the warm-up; piecewise: a tenth at 1/2 and at 3/4 of all updates"
    )
    warmup: float = setting(0.1, "share of all updates in which the rate rises from 0 (0.4 with linear: cyclic)")
    plateau_patience: int = setting(
        3000, "plateau: updates without improvement before the rate halves; also the cooldown"
    )
    plateau_floor: float = setting(5e-7, "plateau: smallest rate")
    clip_norm: float = setting(1.0, "largest gradient norm; 0 does not clip")
    flip: bool = setting(False, "augmentation: mirror half of the images")
    crop: int = setting(0, "augmentation: shift by up to so many pixels")
    rotation: float = setting(0.0, "augmentation: rotate by up to so many degrees")
    ema_decay: float = setting(
        0.998, "decay of the averaged weights, which are the ones that are validated and kept; 0: none"
    )
    ema_every: int = setting(1, "updates between two averagings")
    ema_start: int = setting(0, "updates before the first averaging")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "auto: bf16 where the hardware multiplies it, else fp32"
    )
    compile: bool | None = setting(
        None, f"torch.compile the network; none: on a GPU, if there are {LONG:,} steps or more to pay for it"
    )
    seed: int = setting(0, "of the weights, the order, the augmentation and the noise")
    validate_every: float = setting(1.0, "epochs between two validations")
    validation_limit: int = setting(2000, "images of the validation split used while training")
    final_limit: int = setting(0, "validation images on which the best weights are judged at the end; 0: all")
    checkpoint_every: float = setting(1.0, "epochs between two checkpoints")

    def __post_init__(self) -> None:
        self.check(lambda v: v > 0, "a number above 0", "epochs", "batch_size", "accumulation", "lr", "validate_every",
                   "validation_limit", "checkpoint_every", "ema_every")  # fmt: skip
        self.check(lambda v: 0 <= v < 1, "a number in [0, 1)", "ema_decay", "warmup")
        self.check(lambda v: v >= 0, "0 or more", "weight_decay", "clip_norm", "ema_start", "final_limit")
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            if hints[field.name] is int and type(getattr(self, field.name)) is not int:
                given = getattr(self, field.name)
                raise IDCError(f"{field.name} = {given!r}", "a whole number", "correct the recipe")
            choices = typing.get_args(hints[field.name]) if typing.get_origin(hints[field.name]) is Literal else ()
            if choices and getattr(self, field.name) not in choices:
                wanted = ", ".join(map(str, choices))
                raise IDCError(
                    f"{field.name} = {getattr(self, field.name)!r}", f"one of {wanted}", "correct the recipe"
                )

    def check(self, holds: Callable[[Any], bool], expected: str, *names: str) -> None:
        """Raise IDCError for the first of the fields that does not hold."""
        for name in names:
            if not holds(getattr(self, name)):
                raise IDCError(f"{name} = {getattr(self, name)}", expected, "correct the recipe")

    @property
    def augmentation(self) -> "Augmentation":
        """The augmentation of one batch."""
        from idc.data import Augmentation

        return Augmentation(flip=self.flip, crop=self.crop, rotation=self.rotation)


S = TypeVar("S", bound=Settings)


def convert(kind: type[Settings], field: dataclasses.Field[Any], text: str) -> Any:
    """A field's value from the text of a command-line flag; a fraction such as 8/255 is a number.

    Raises:
        IDCError: if the text is no value of the field's type.
    """
    hint = typing.get_type_hints(kind)[field.name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in options and text.lower() in ("none", ""):
        return None
    wanted = next(o for o in options if o is not type(None))
    try:
        if wanted is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if typing.get_origin(wanted) is tuple:
            return () if text.lower() == "none" else tuple(float(part) for part in text.split(",") if part.strip())
        return int(text) if wanted is int else fraction(text) if wanted is float else text
    except (ValueError, KeyError, ZeroDivisionError) as error:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(
            wanted, "numbers with commas between"
        )
        raise IDCError(f"{field.name} = {text!r}", expected, f"it means: {field.metadata['help']}") from error


def override(recipe: S, changes: dict[str, Any]) -> S:
    """``recipe`` with fields replaced; texts are converted.

    Raises:
        IDCError: for an unknown field or a value of the wrong type.
    """
    kind = type(recipe)
    known = {f.name: f for f in fields(kind)}
    for name in changes:
        if name not in known:
            raise IDCError(f"recipe field {name!r}", f"one of {', '.join(known)}", "correct its name")
    try:
        given = {n: convert(kind, known[n], v) if isinstance(v, str) else v for n, v in changes.items()}
        return replace(recipe, **given)
    except (TypeError, ValueError) as error:
        raise IDCError(
            f"recipe {changes}", "values of the fields' types", "compare with the recipe.yaml of a run"
        ) from error
