"""The settings of a training on classes that IDC and its CNN peers have in common: what an image's target is, and what
goes with an attack. Each is off by default, so that each can be set beside a training without it."""

from dataclasses import dataclass
from typing import Any, Literal

from idc.errors import IDCError
from idc.storage.fields import setting
from idc.training.settings import Settings


@dataclass(frozen=True, slots=True)
class ClassSettings(Settings):
    """Beside the settings of every training: mixed images, soft targets, and the company of an attack."""

    mix: Literal["none", "cutmix", "mixup"] = setting(
        "none", "augmentation: mix each image with another one, and the losses of both classes alike, in an attack too "
        "(Rebuffi et al., 2021); cutmix: a box of the other is pasted in; mixup: the two are blended (IDC: a training "
        "of timestep T-1 alone)",
        omit_default=True,
    )  # fmt: skip
    mix_rate: float = setting(1.0, "with --mix: share of the images that are mixed", least=0, most=1, omit_default=True)
    label_smoothing: float = setting(
        0.0, "share of the target that goes to all classes alike, in the cross-entropy and in an attack that raises it",
        least=0, below=1, omit_default=True,
    )  # fmt: skip

    def refuse_mix(self, beside: str, remedy: str) -> None:
        """Raise IDCError if images are mixed, ``beside`` what does not go with it."""
        if self.mix != "none":
            raise IDCError(f"mix = {self.mix} with {beside}", "one of them", remedy)

    def refuse_both(self, first: str, second: str) -> None:
        """Raise IDCError if two settings are given, neither of which has its default."""
        if self.given(first) and self.given(second):
            names = f"{first} = {getattr(self, first)} with {second} = {getattr(self, second)}"
            raise IDCError(names, "one of them", f"leave {first} or {second} out")

    def given(self, name: str) -> bool:
        """Whether a setting has another value than its default."""
        default: Any = type(self).__dataclass_fields__[name].default
        return bool(getattr(self, name) != default)
