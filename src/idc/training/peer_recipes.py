"""Recipes of the peers: one frozen dataclass = one experiment."""

from dataclasses import dataclass
from typing import Any, Literal

from idc.training.settings import Settings, setting


@dataclass(frozen=True, slots=True)
class CNNRecipe(Settings):
    """All settings of a CNN's training but its data and its network."""

    method: Literal["standard", "pgd-at", "trades", "noise"] = setting(
        "pgd-at", "standard, pgd-at (Madry et al.), trades (Zhang et al.), or noise (Gaussian, Cohen et al.)"
    )
    norm: Literal["linf", "l2"] = setting("linf", "pgd-at, trades: norm of the perturbation")
    eps: float = setting(8 / 255, "pgd-at, trades: its radius, on [0, 1]; also of the validation's attack")
    attack_steps: int = setting(10, "pgd-at, trades: steps of the attack on each batch")
    attack_step: float = setting(0.0, "length of such a step; 0: a quarter of eps")
    beta: float = setting(6.0, "trades: weight of the divergence")
    sigma: float = setting(0.25, "noise: its standard deviation, on [0, 1]")
    label_smoothing: float = setting(0.0, "share of the label that goes to all classes alike")

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        self.check(lambda v: v >= 0, "0 or more", "eps", "attack_step", "beta", "sigma")
        self.check(lambda v: v > 0, "a number above 0", "attack_steps")
        self.check(lambda v: 0 <= v < 1, "a number in [0, 1)", "label_smoothing")

    @property
    def adversarial(self) -> bool:
        """Whether the training attacks each batch."""
        return self.method in ("pgd-at", "trades")


# SGD with momentum 0.9, weight decay 5e-4, flips and 4-pixel crops, as all four papers; the rate as Rice et al.,
# "Overfitting in adversarially robust deep learning", ICML 2020 (piecewise), in a third of its epochs. Unlike theirs,
# the decay spares BatchNorm and biases, and TRADES sends clean and attacked images through BatchNorm as one batch.
_PUBLISHED: dict[str, Any] = {
    "epochs": 60, "batch_size": 128, "optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "schedule": "piecewise",
    "warmup": 0.0, "clip_norm": 0.0, "flip": True, "crop": 4, "ema_decay": 0.995, "validate_every": 2.0,
}  # fmt: skip
CNN_RECIPES: dict[str, CNNRecipe] = {
    "published": CNNRecipe(**_PUBLISHED),
    # Cyclic, for short runs: the rate rises for 40% of them and falls to 0 (Wong, Rice and Kolter, ICLR 2020).
    "fast": CNNRecipe(**_PUBLISHED | {"epochs": 15, "schedule": "linear", "warmup": 0.4, "lr": 0.2,
                                      "validate_every": 1.0}),
    "digits": CNNRecipe(**_PUBLISHED | {"epochs": 20, "batch_size": 64, "schedule": "linear", "warmup": 0.4,
                                        "flip": False, "crop": 2, "eps": 0.1, "ema_decay": 0.98,
                                        "validate_every": 5.0, "checkpoint_every": 5.0}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NoiseRecipe(Settings):
    """All settings of a diffusion model's training but its data and its network."""

    conditional: bool = setting(
        False, "the network is told the class (for zdc and rdc); an unconditional one serves diffpure"
    )
    drop: float = setting(0.1, "conditional: how often the class is withheld, so that the model also knows none")
    min_snr: float = setting(
        0.0, "weights min(snr, so much) / snr of the timesteps (Hang et al., 2023); 0: all alike, as DDPM"
    )

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        self.check(lambda v: 0 <= v < 1, "a number in [0, 1)", "drop")
        self.check(lambda v: v >= 0, "0 or more", "min_snr")


NOISE_RECIPES: dict[str, NoiseRecipe] = {
    # Ho et al., appendix B: Adam, 2e-4, batches of 128, flips, averaged weights (0.9999), for about 2000 epochs.
    "published": NoiseRecipe(epochs=2000, optimizer="adam", lr=2e-4, weight_decay=0.0, beta2=0.999, schedule="constant",
                             warmup=0.006, flip=True, ema_decay=0.9999, validate_every=50.0, checkpoint_every=10.0),
    "fast": NoiseRecipe(epochs=60, lr=1e-3, weight_decay=0.0, flip=True, ema_decay=0.999, validate_every=5.0),
    "digits": NoiseRecipe(epochs=150, batch_size=64, lr=2e-3, weight_decay=0.0, ema_decay=0.995, validate_every=50.0,
                          checkpoint_every=25.0),
}  # fmt: skip
