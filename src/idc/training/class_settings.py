"""The settings of a training on classes that IDC and its CNN peers have in common: what an image's target is, and what
goes with an attack. Each is off by default, so that each can be set beside a training without it."""

from dataclasses import dataclass
from typing import Any, Literal

from idc.errors import IDCError
from idc.storage.fields import setting, written
from idc.training.settings import ATTACKS, AUGMENTATION, LOSSES, TARGETS, Settings, refuse_idle


@dataclass(frozen=True, slots=True)
class ClassSettings(Settings):
    """Beside the settings of every training: mixed images, soft targets, and the company of an attack."""

    mix: Literal["none", "cutmix", "mixup"] = setting(
        "none", "mix each image with another one, and the losses of both classes alike, in an attack too "
        "(Rebuffi et al., 2021); cutmix: a box of the other is pasted in; mixup: the two are blended",
        omit_default=True, panel=AUGMENTATION,
    )  # fmt: skip
    mix_rate: float = setting(1.0, "with --mix: share of the images that are mixed", least=0, most=1, omit_default=True)
    strong_branch: bool = setting(
        False, "beside each image, in the same batch, a strongly augmented one (TrivialAugment), for "
        "which BatchNorm has statistics of its own (DAJAT; Addepalli et al., 2022); it doubles the cost of a step",
        omit_default=True,
    )  # fmt: skip
    label_smoothing: float = setting(
        0.0, "share of the target that goes to all classes alike, in the cross-entropy and in an attack that raises it",
        least=0, below=1, omit_default=True, panel=TARGETS,
    )  # fmt: skip

    rectify: tuple[float, float] | None = setting(
        None, "self-distillation: share of the averaged network's answer to the unattacked image in the target, at the "
        "run's beginning and end, such as 0.7,0.95, less where it errs; before --ema-start the network's own (ADR; Wu "
        "et al., 2024); with --teachers: of theirs",
        least=0, most=1, omit_default=True,
    )  # fmt: skip
    teachers: tuple[str, ...] = setting(
        (), "with --rectify: distillation from trained models, folders or names, whose mean answer takes the place of "
        "the averaged network's (RSLAD; Zi et al., 2021)",
        omit_default=True,
    )  # fmt: skip
    rectify_temperature: tuple[float, float] = setting(
        (2.0, 1.0), "with --rectify: by what the logits of that answer are divided, at the beginning and at the end",
        above=0, omit_default=True,
    )  # fmt: skip
    beta: float = setting(
        6.0, "weight of what a method adds to the loss: the divergence of trades and mart, the distance of consistency",
        least=0, omit_default=True, panel=LOSSES,
    )  # fmt: skip
    eps_warmup: float = setting(
        0.0, "share of the run in which the attack's radius rises from 0; 1: all of it (ACAT; Addepalli et al., 2022)",
        least=0, most=1, omit_default=True, panel=ATTACKS,
    )  # fmt: skip
    step_share: float = setting(
        0.0, "length of a step of the attack as a share of the radius, with which it rises (ACAT: 1, two steps); 0: as "
        "--attack-step says", least=0, omit_default=True,
    )  # fmt: skip
    weight_perturbation: float = setting(
        0.0, "adversarial weight perturbation (AWP; Wu et al., 2020) in each step, as a share of the weights' norm "
        "(there 0.005)", least=0, below=1, omit_default=True,
    )  # fmt: skip
    awp_start: float = setting(
        0.0, "share of the run after which the weights are perturbed (there 0.05: 10 of 200 epochs)", least=0,
        below=1, omit_default=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if self.step_share:
            self.refuse(f"step_share = {self.step_share:g}", "attack_step")
        refuse_idle(self, (name for name in type(self).__dataclass_fields__ if self.given(name)))
        if self.strong_branch:
            self.refuse("strong_branch", "mix")
        if self.rectify and not (self.ema_decay or self.teachers):
            remedy = "give --ema-decay, such as 0.995, or --teachers"
            raise IDCError("rectify with ema_decay = 0", "weights that are averaged", remedy)

    @property
    def compares(self) -> bool:
        """Whether the loss is of clean and attacked images."""
        raise NotImplementedError

    def idle(self) -> dict[str, str]:
        found = {}
        if not self.weight_perturbation:
            found["awp_start"] = "weight_perturbation beside it: give --weight-perturbation, such as 0.005"
        if not self.rectify:
            beside = "rectify beside it: give --rectify, such as 0.7,0.95"
            found |= {"rectify_temperature": beside, "teachers": beside}
        if self.mix == "none":
            found["mix_rate"] = "mix beside it: give --mix, such as cutmix"
        if not self.compares:
            found["beta"] = "a method with a divergence beside it: give --method, such as trades"
        return found

    def refuse(self, beside: str, *names: str, remedy: str = "") -> None:
        """Raise IDCError for the first of the settings of these ``names`` that has another value than its default,
        ``beside`` what does not go with it."""
        for name in filter(self.given, names):
            one = f"{name} = {written(getattr(self, name))}"
            raise IDCError(
                f"{one} with {beside}", "one without the other", remedy or f"leave {name} out, or change the other"
            )

    def given(self, name: str) -> bool:
        """Whether a setting has another value than its default."""
        default: Any = type(self).__dataclass_fields__[name].default
        return bool(getattr(self, name) != default)
