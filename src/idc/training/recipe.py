"""The recipes by name (paper, fast, digits): all defaults of a training, augmentation included, as flags and YAML."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from idc.errors import IDCError
from idc.storage.fields import Rule, rules, setting, short, unknown, written
from idc.storage.yaml_file import YAML_SUFFIXES, read_yaml
from idc.training.class_settings import ClassSettings
from idc.training.settings import ATTACKS, AUGMENTATION, LOSSES, OPTIMISER, REMEDY, Settings, override

NEED_AN_ATTACK = ("attack_step", "eps_warmup", "step_share", "weight_perturbation")  # without which they say nothing
SOFT = ("mix", "label_smoothing", "rectify")  # targets of more than one class, of which MART has no form


@dataclass(frozen=True, slots=True)
class Recipe(ClassSettings):
    """All settings of a training run of IDC but its data and its network."""

    method: Literal["pgd-at", "trades", "mart", "consistency"] = setting(
        "pgd-at", "with --eps: pgd-at (Madry et al., 2018), trades (Zhang et al., 2019) or mart (Wang et al., 2020) of "
        "the distances; consistency: of clean images, and the distance of their x0 to that of attacked ones",
        omit_default=True, panel=LOSSES,
    )  # fmt: skip
    inter_weight: float = setting(0.2, "weight of the inter-class loss, which drives the classes apart", least=0)
    ce_weight: float = setting(
        0.0, "weight of a cross-entropy over the distances to the labels (not in the paper)", least=0
    )
    ce_temperature: float = setting(0.02, "temperature of the softmax in that cross-entropy", above=0)
    hinge_weight: float = setting(
        0.0, "weight of a squared hinge on the distances to the labels (not in the paper)", least=0, omit_default=True
    )
    hinge_margin: float = setting(
        0.1, "by how much the own label is to be nearer than any other, of distances on [0, 1]", least=0,
        omit_default=True,
    )  # fmt: skip
    t_weights: tuple[float, ...] = setting(
        (), "how often each timestep 0 to T-1 is trained, as T numbers; none: all alike", least=0
    )
    norm: Literal["linf", "l2"] = setting(
        "linf", "with --eps: norm in which the attack on the training images is bounded", panel=ATTACKS
    )
    eps: float = setting(
        0.0,
        "adversarial training: radius of the attack on the training images, on [0, 1], such as 8/255; 0: no attack",
        least=0,
    )
    attack_steps: int = setting(
        3, "with --eps: steps of the attack on each batch; 1: a single one from a random start", least=1
    )
    attack_step: float = setting(
        0.0, "with --eps: length of a step of the attack; 0: 2.5 eps divided by the steps, at most 1.25 eps", least=0
    )
    attack_temperature: float = setting(
        0.005,
        "with --eps: temperature of the softmax whose loss the attack raises; a high one can mislead it",
        above=0,
    )
    replays: int = setting(
        1, "with --eps: free adversarial training: so many steps in a row on the same batch, in each of which the "
        "attack goes one step on (of --attack-step, else eps); an epoch has as many steps, on fewer images", least=1
    )  # fmt: skip
    rollout: float = setting(
        0.0,
        "share of images whose x_t is made of the network's own x0, as when it answers, in place of the true label",
        least=0,
        most=1,
        panel=LOSSES,
    )
    sigma: float = setting(
        0.0, "standard deviation of Gaussian noise added to the training images, on [0, 1]", least=0, panel=AUGMENTATION
    )
    init: Literal["default", "normal"] = setting(
        "default", "first weights; normal: with a standard deviation of 0.02, as the authors start", panel=OPTIMISER
    )
    dropout: float | None = setting(
        None, "share of the network's units that each step drops; none: as in its preset", least=0, below=1
    )

    def __post_init__(self) -> None:
        ClassSettings.__post_init__(self)
        if not self.eps:
            for name in filter(self.given, ("method", *NEED_AN_ATTACK, "replays")):
                raise without_eps(name, getattr(self, name))
        if self.replays > 1:
            self.refuse(f"replays = {self.replays}", "mix", "method", "weight_perturbation", "strong_branch")
        if self.method == "mart":
            self.refuse("method = mart", *SOFT)
        if not self.ce_weight:
            beside = "ce_weight = 0, which leaves the cross-entropy out"
            self.refuse(beside, "label_smoothing", "rectify", remedy="give --ce-weight")
            if self.method in ("trades", "mart"):
                self.refuse(beside, "method", remedy="give --ce-weight")
        if self.t_weights and not any(self.t_weights):
            raise IDCError(f"t_weights = {written(self.t_weights)}", "weights that are not all 0", REMEDY)

    def idle(self) -> dict[str, str]:
        hinge = "hinge_weight beside it: give --hinge-weight"
        return ClassSettings.idle(self) | ({} if self.hinge_weight else {"hinge_margin": hinge})

    @property
    def adversarial(self) -> bool:
        return self.eps > 0

    @property
    def compares(self) -> bool:
        return self.adversarial and self.method != "pgd-at"

    @property
    def may_mix(self) -> bool:
        alone = any(self.t_weights) and not any(self.t_weights[:-1])
        return alone and self.mix == "none" and self.replays == 1


# Fields that every recipe has a value for, and that say nothing without eps.
ATTACK_SETTINGS = ("attack_steps", "attack_temperature", "norm")


def without_eps(name: str, value: object) -> IDCError:
    """The error for a setting of an attack that there is not."""
    return IDCError(f"{name} = {written(value)} without eps", "an attack to train against", "give --eps, such as 8/255")


RECIPES: dict[str, Recipe] = {
    # The authors' settings for CIFAR-10: 64 images on each of 4 GPUs, gradients of 2 batches, uniform t (their code).
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

# What "auto" is for images of one's own: an answer in one step by a network without a decoder, which learns from few
# images what the chain does not; batch size and epochs follow from their number.
ONE_STEP = Recipe(flip=True, crop=4, t_weights=(0.0, 0.0, 0.0, 1.0), ce_weight=3.0, lr=3e-3)


# What a recipe's file may say besides: of the data, the network and the answer, and of how benchmarks/reproduce.py
# evaluates what it gives.
_BESIDE = {
    "data": Rule(str), "preset": Rule(str), "network": Rule(dict), "bridge": Rule(dict), "labels": Rule(str),
    "label_cell": Rule(int, least=1), "visits": Rule(tuple[int, ...], least=0, expected="timesteps such as [3, 1, 0]"),
    "labels_sha256": Rule(str), "teachers_sha256": Rule(tuple[str, ...]), "objective": Rule(str), "from": Rule(str),
    "image_size": Rule(int | None, least=1), "channels": Rule(int | None, least=1), "evaluate": Rule(dict),
}  # fmt: skip


def renewed(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values as they are written now: ``consistency`` of before is the method of that name and its weight.

    Raises:
        IDCError: for a weight that is no number, or beside what it stands for.
    """
    if "consistency" not in values:
        return values
    rest = {name: value for name, value in values.items() if name != "consistency"}
    weight = Rule(float, least=0).value("consistency", values["consistency"], remedy=REMEDY)
    if weight and rest.keys() & {"method", "beta"}:
        both = f"consistency = {weight:g} with method or beta"
        raise IDCError(both, "one of them", "write method: consistency and its weight as beta")
    return rest | ({"method": "consistency", "beta": weight} if weight else {})


def usual_recipe(data: str) -> str:
    """The name of the recipe that "auto" stands for: only digits must not be mirrored."""
    return "digits" if data == "digits" else "fast"


def load_recipe(name: str, data: str | None = None) -> tuple[Recipe, dict[str, Any]]:
    """A recipe by name, or from a YAML file; the second value holds the file's other keys (data, preset, ...).

    A YAML file may name a ``recipe`` to start from, by default the ``usual_recipe`` of ``data``, or of the data that it
    names. Raises IDCError for anything that is not such a file.
    """
    if name in RECIPES:
        return RECIPES[name], {}
    path = Path(name)
    if path.suffix not in YAML_SUFFIXES:
        raise IDCError(f"recipe {name!r}", f"one of {', '.join(RECIPES)}, or a .yaml file", "correct its name")
    values = read_yaml(path, remedy="compare with the recipe.yaml of a run")
    values = renewed(values)
    base = values.pop("recipe", usual_recipe(data or values.get("data", "digits")))
    if not isinstance(base, str) or base not in RECIPES:
        raise IDCError(f"recipe {short(base)} in {name}", f"one of {', '.join(RECIPES)}", "correct its name")
    own = rules(Recipe)
    for key in values:
        if key not in own and key not in _BESIDE:
            raise unknown(f"setting {short(key)} in {name}", key, own)
    extra = {k: _BESIDE[k].value(k, v, where=f" in {name}", remedy=REMEDY) for k, v in values.items() if k in _BESIDE}
    return override(RECIPES[base], {k: v for k, v in values.items() if k in own}), extra


@dataclass(frozen=True, slots=True)
class CNNRecipe(ClassSettings):
    """All settings of a CNN's training but its data and its network."""

    method: Literal["standard", "pgd-at", "trades", "mart", "noise"] = setting(
        "pgd-at",
        "standard, pgd-at (Madry et al.; every recipe's), trades (Zhang et al.), mart (Wang et al.), or noise "
        "(Gaussian, Cohen et al.)",
        panel=LOSSES,
    )
    norm: Literal["linf", "l2"] = setting("linf", "under attack: norm of the perturbation", panel=ATTACKS)
    eps: float = setting(8 / 255, "under attack: its radius, on [0, 1]; also of the validation's attack", least=0)
    attack_steps: int = setting(10, "under attack: steps of the attack on each batch", least=1)
    attack_step: float = setting(
        0.0, "under attack: length of a step of the attack; 0: 2.5 eps divided by the steps, at most 1.25 eps", least=0
    )
    sigma: float = setting(0.25, "noise: its standard deviation, on [0, 1]", least=0, panel=AUGMENTATION)

    def __post_init__(self) -> None:
        ClassSettings.__post_init__(self)
        if not self.adversarial:
            remedy = "use --method pgd-at, trades or mart"
            self.refuse(f"method = {self.method}, which has no attack", *NEED_AN_ATTACK, remedy=remedy)
        if self.method == "mart":
            self.refuse("method = mart", *SOFT)

    @property
    def may_mix(self) -> bool:
        return self.mix == "none"

    @property
    def adversarial(self) -> bool:
        return self.method in ("pgd-at", "trades", "mart")

    @property
    def compares(self) -> bool:
        return self.method in ("trades", "mart")


# SGD with momentum 0.9, weight decay 5e-4, flips and 4-pixel crops, as all four papers; the rate as Rice et al.,
# "Overfitting in adversarially robust deep learning", ICML 2020 (piecewise), in a third of its epochs. Unlike theirs,
# the decay leaves out BatchNorm and biases, and TRADES sends clean and attacked images through BatchNorm as one batch.
_PUBLISHED: dict[str, Any] = {
    "epochs": 60, "batch_size": 128, "optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "schedule": "piecewise",
    "warmup": 0.0, "clip_norm": 0.0, "flip": True, "crop": 4, "ema_decay": 0.995, "validate_every": 2.0,
}  # fmt: skip
CNN_RECIPES: dict[str, CNNRecipe] = {
    "published": CNNRecipe(**_PUBLISHED),
    # Cyclic, for short runs: the rate rises for 40% of them and falls to 0 (Wong, Rice and Kolter, ICLR 2020).
    "fast": CNNRecipe(**_PUBLISHED | {"epochs": 15, "schedule": "linear", "warmup": 0.4, "lr": 0.2,
                                      "validate_every": 1.0, "clip_norm": 5.0}),
    "digits": CNNRecipe(**_PUBLISHED | {"epochs": 20, "batch_size": 64, "schedule": "linear", "warmup": 0.4,
                                        "flip": False, "crop": 2, "eps": 0.1, "ema_decay": 0.98,
                                        "validate_every": 5.0, "checkpoint_every": 5.0}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NoiseRecipe(Settings):
    """All settings of a diffusion model's training but its data and its network."""

    conditional: bool = setting(
        False, "the network is told the class (for zdc and rdc); an unconditional one serves diffpure", panel=LOSSES
    )
    drop: float = setting(
        0.1, "conditional: how often the class is withheld, so that the model also knows none", least=0, below=1
    )
    min_snr: float = setting(
        0.0, "weights min(snr, so much) / snr of the timesteps (Hang et al., 2023); 0: all alike, as DDPM", least=0
    )


NOISE_RECIPES: dict[str, NoiseRecipe] = {
    # Ho et al., appendix B: Adam, 2e-4, batches of 128, flips, averaged weights (0.9999), for about 2000 epochs.
    "published": NoiseRecipe(epochs=2000, optimizer="adam", lr=2e-4, weight_decay=0.0, beta2=0.999, schedule="constant",
                             warmup=0.006, flip=True, ema_decay=0.9999, validate_every=50.0, checkpoint_every=10.0),
    "fast": NoiseRecipe(epochs=60, lr=1e-3, weight_decay=0.0, flip=True, ema_decay=0.999, validate_every=5.0),
    "digits": NoiseRecipe(epochs=150, batch_size=64, lr=2e-3, weight_decay=0.0, ema_decay=0.995, validate_every=50.0,
                          checkpoint_every=25.0),
}  # fmt: skip
