"""One frozen dataclass = one experiment. Recipes become the command line's flags from their fields."""

import dataclasses
import types
import typing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from idc.errors import IDCError

if TYPE_CHECKING:  # the command line reads the fields of a recipe before anything heavy is imported
    from idc.data import Augmentation


@dataclass(frozen=True, slots=True)
class Recipe:
    """All settings of a training run but its data and its network. Each field's metadata is its help text."""

    def _of(default: Any, text: str) -> Any:  # noqa: N805  # a helper of the class body, deleted below
        return dataclasses.field(default=default, metadata={"help": text})

    epochs: float = _of(20.0, "passes over the training split")
    batch_size: int = _of(128, "images in one step, over all processes")
    accumulation: int = _of(1, "steps whose gradients are averaged into one update")
    optimizer: Literal["adam", "adamw"] = _of("adamw", "adam or adamw")
    lr: float = _of(2e-3, "peak learning rate")
    weight_decay: float = _of(0.05, "decoupled weight decay (adamw only)")
    beta2: float = _of(0.99, "decay of Adam's second moment")
    schedule: Literal["constant", "cosine", "linear", "plateau"] = _of("linear", "how the rate falls after the warm-up")
    warmup: float = _of(0.1, "share of all updates in which the rate rises from 0")
    plateau_patience: int = _of(3000, "plateau: updates without improvement before the rate halves; also the cooldown")
    plateau_floor: float = _of(5e-7, "plateau: smallest rate")
    clip_norm: float = _of(1.0, "largest gradient norm; 0 does not clip")
    inter_weight: float = _of(0.2, "weight of the inter-class loss")
    ce_weight: float = _of(0.0, "weight of a cross-entropy of the label distances (not in the paper)")
    ce_temperature: float = _of(0.02, "temperature of that cross-entropy")
    t_weights: tuple[float, ...] = _of((), "how often each timestep 0..T-1 is trained on; none: uniformly")
    init: Literal["default", "normal"] = _of("default", "normal: all weights N(0, 0.02), as the authors start")
    dropout: float | None = _of(None, "dropout of the network; none: as in its preset")
    flip: bool = _of(False, "augmentation: mirror half of the images")
    crop: int = _of(0, "augmentation: shift by up to so many pixels")
    rotation: float = _of(0.0, "augmentation: rotate by up to so many degrees")
    ema_decay: float = _of(
        0.998, "decay of the averaged weights, which are the ones that are validated and kept; 0: none"
    )
    ema_every: int = _of(1, "updates between two averagings")
    ema_start: int = _of(0, "updates before the first averaging")
    precision: Literal["auto", "fp32", "bf16"] = _of("auto", "auto: bf16 where the hardware multiplies it, else fp32")
    compile: bool = _of(False, "torch.compile the network (pays in long runs)")
    seed: int = _of(0, "of the weights, the order, the augmentation and the noise")
    validate_every: float = _of(1.0, "epochs between two validations")
    validation_limit: int = _of(2000, "images of the validation split used while training; at the end all are")
    checkpoint_every: float = _of(1.0, "epochs between two checkpoints")
    del _of

    def __post_init__(self) -> None:
        object.__setattr__(self, "t_weights", tuple(float(w) for w in self.t_weights))
        for name in ("epochs", "batch_size", "accumulation", "lr", "validate_every", "validation_limit",
                     "checkpoint_every", "ema_every", "ce_temperature"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise IDCError(f"{name} = {getattr(self, name)}", "a number above 0", "correct the recipe")
        for name in ("ema_decay", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise IDCError(f"{name} = {getattr(self, name)}", "a number in [0, 1)", "correct the recipe")
        for name in ("weight_decay", "clip_norm", "ema_start", "inter_weight", "ce_weight"):
            if not getattr(self, name) >= 0:
                raise IDCError(f"{name} = {getattr(self, name)}", "0 or more", "correct the recipe")
        if self.t_weights and (min(self.t_weights) < 0 or not sum(self.t_weights) > 0):
            raise IDCError(f"t_weights = {self.t_weights}", "weights of 0 or more, not all 0", "correct the recipe")
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            choices = typing.get_args(hints[field.name]) if typing.get_origin(hints[field.name]) is Literal else ()
            if choices and getattr(self, field.name) not in choices:
                wanted = ", ".join(map(str, choices))
                raise IDCError(
                    f"{field.name} = {getattr(self, field.name)!r}", f"one of {wanted}", "correct the recipe"
                )

    @property
    def augmentation(self) -> "Augmentation":
        """The augmentation of one batch."""
        from idc.data import Augmentation

        return Augmentation(flip=self.flip, crop=self.crop, rotation=self.rotation)


RECIPES: dict[str, Recipe] = {
    # The authors' settings for CIFAR-10: 64 images on each of 4 GPUs, gradients of 2 batches, uniform t (method.md).
    "paper": Recipe(
        epochs=400,
        batch_size=256,
        accumulation=2,
        optimizer="adam",
        lr=1e-4,
        weight_decay=0.0,
        beta2=0.999,
        schedule="plateau",
        warmup=0.0,
        clip_norm=0.0,
        init="normal",
        ema_decay=0.995,
        ema_every=8,
        ema_start=30_000,
    ),
    # Ours. The default visits are 3, 1, 0: training t = 2 would be wasted, and t = 0 is nearly the answer itself.
    "fast": Recipe(flip=True, crop=4, t_weights=(0.05, 0.35, 0.0, 0.6), ce_weight=0.1, lr=3e-3),
    "digits": Recipe(
        crop=2,
        epochs=40,
        batch_size=64,
        t_weights=(0.05, 0.35, 0.0, 0.6),
        ce_weight=0.1,
        lr=3e-3,
        ema_decay=0.99,
        validate_every=5,
        checkpoint_every=10,
    ),
}


def convert(field: dataclasses.Field[Any], text: str) -> Any:
    """A field's value from the text of a command-line flag.

    Raises:
        IDCError: if the text is no value of the field's type.
    """
    hint = typing.get_type_hints(Recipe)[field.name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in options and text.lower() in ("none", ""):
        return None
    kind = next(o for o in options if o is not type(None))
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if typing.get_origin(kind) is tuple:
            return () if text.lower() == "none" else tuple(float(part) for part in text.split(",") if part.strip())
        return kind(text) if kind in (int, float) else text
    except (ValueError, KeyError) as error:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(
            kind, "numbers with commas between"
        )
        raise IDCError(f"{field.name} = {text!r}", wanted, f"it means: {field.metadata['help']}") from error


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """``recipe`` with fields replaced; texts are converted.

    Raises:
        IDCError: for an unknown field or a value of the wrong type.
    """
    known = {f.name: f for f in fields(Recipe)}
    for name in changes:
        if name not in known:
            raise IDCError(f"recipe field {name!r}", f"one of {', '.join(known)}", "correct its name")
    try:
        return replace(recipe, **{n: convert(known[n], v) if isinstance(v, str) else v for n, v in changes.items()})
    except TypeError as error:
        raise IDCError(
            f"recipe {changes}", "values of the fields' types", "compare with the recipe.yaml of a run"
        ) from error


def load_recipe(name: str) -> tuple[Recipe, dict[str, Any]]:
    """A recipe by name, or from a YAML file; the second value holds the file's other keys (data, preset, ...).

    A YAML file may name a ``recipe`` to start from. Raises IDCError for anything that is not such a file.
    """
    if name in RECIPES:
        return RECIPES[name], {}
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise IDCError(f"recipe {name!r}", f"one of {', '.join(RECIPES)}, or a .yaml file", "correct its name")
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IDCError(name, "a readable recipe file", "check the path") from error
    except yaml.YAMLError as error:
        raise IDCError(name, "YAML", " ".join(str(error).split())[:120]) from error
    if not isinstance(values, dict):
        raise IDCError(name, "a mapping of settings", "compare with the recipe.yaml of a run")
    own = {f.name for f in fields(Recipe)}
    base = RECIPES.get(str(values.pop("recipe", "fast")))
    if base is None:
        raise IDCError(f"recipe in {name}", f"one of {', '.join(RECIPES)}", "correct its name")
    extra = {k: v for k, v in values.items() if k not in own}
    if unknown := set(extra) - {"data", "preset", "network", "bridge", "image_size", "channels"}:
        raise IDCError(
            f"setting {sorted(unknown)[0]!r} in {name}", f"one of {', '.join(sorted(own))}", "correct its name"
        )
    return override(base, {k: v for k, v in values.items() if k in own}), extra
