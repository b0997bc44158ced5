"""The sides of ``image_labels.py``: what is trained, on what settings, and by which answers it is judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from label_models import KLogits, MetricIDC, RandomParts, ReadClassifier, ReadoutIDC
from label_readings import Learned, Logits, Parts, Weighted, Whole, codes
from label_training import ReadObjective

from idc.commands.train import fresh_weights
from idc.data import ImageSet
from idc.method.classifier import IDC
from idc.method.config import IDCConfig
from idc.method.presets import PRESETS
from idc.method.unet import UNetSpec
from idc.storage.saved import SavedClassifier
from idc.training.bridge_objective import BridgeObjective
from idc.training.objective import ModelObjective
from idc.training.recipe import Recipe, load_recipe
from idc.training.settings import override

RECIPE = Path(__file__).parents[1] / "recipes" / "idc-nano-cifar10-robust.yaml"
LAST, CELL = 3, 8  # the timestep of every answer; pixels of a square of the labels
REFERENCE, SHIPPED = "k-logits", "label"
REFERENCES = (REFERENCE, "k-logits-gain")  # what every side is set beside
CODES = "label_readings:codes"
OWN = "its own"  # answer
LEARNED: dict[str, Any] = {"metric": Weighted, "readout": Learned}  # readings with weights of their own, by network


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the comparison.

    Args:
        meaning: in words.
        answers: by name, in words; each is judged by itself.
        network: "labels", "logits", "sharp logits" (divided by twice the temperature of the labels' cross-entropy),
            "metric" or "readout".
        parts: "", or how the labels and the output are parted: "squares" or "sets".
        bridge: trained as shipped, by ``BridgeObjective``; else by the cross-entropy alone.
        noise: whether the network is trained on images with the bridge's noise.
        changes: of the recipe.
    """

    meaning: str
    answers: Mapping[str, str] = field(default_factory=lambda: {OWN: ""})
    network: str = "labels"
    parts: str = ""
    bridge: bool = False
    noise: bool = True
    changes: Mapping[str, Any] = field(default_factory=dict)


SIDES: dict[str, Side] = {
    SHIPPED: Side("An image label, trained as `idc-nano-cifar10-robust` is.", bridge=True),
    REFERENCE: Side(
        "K logits of the pooled last features, by their cross-entropy (PGD-AT), on the same noise.", network="logits"
    ),
    "k-logits-no-noise": Side("The same on images without the bridge's noise.", network="logits", noise=False),
    "k-logits-gain": Side(
        "As `k-logits`, with the logits times 25, as the labels' cross-entropy has it.", network="sharp logits"
    ),
    "label-cross-entropy": Side("An image label, by the cross-entropy of its distances alone."),
    "label-learned": Side(
        "The same output read by a learned linear layer in place of fixed labels.", network="readout"
    ),
    "label-parts": Side(
        "As `label-cross-entropy`, of a code in each square of 8x8 pixels, each trained by its own cross-entropy.",
        {
            "vote": "the vote of the squares",
            "mean distance": "the label nearest as a whole",
            "random half": "the vote of a random half of the squares",
        },
        parts="squares",
    ),
    "label-sets": Side(
        "As `label-cross-entropy`, of a few sets of labels (one a channel, or a quarter of a grey image), each trained "
        "by its own cross-entropy; the answer is the mean distance.",
        parts="sets",
    ),
    "label-metric": Side(
        "As `label-cross-entropy`, by distances with a learned weight for each value.", network="metric"
    ),
    "label-consistency": Side(
        "As `label`, but on clean images, with the translation of attacked ones drawn to theirs.",
        bridge=True,
        changes={"method": "consistency", "beta": 10.0},
    ),
}


def is_digits(source: str) -> bool:
    return source == "digits"


def spec_of(source: str) -> UNetSpec:
    """The encoder: that of the shipped model, or one for the digits that a CPU trains in half a minute."""
    if is_digits(source):
        return UNetSpec(16, (1, 2), groups=1, patch=4, residual=True, norm="batch", middle_attention=False,
                        decoder=False)  # fmt: skip
    return PRESETS["nano-encoder-bn"]


def recipe_of(source: str, side: Side, *, seed: int, epochs: float) -> Recipe:
    """The shipped recipe; the last weights are judged, so that none are chosen and few validations are needed."""
    changes: dict[str, Any] = {
        "epochs": epochs, "seed": seed, "ema_decay": 0.99, "validate_every": epochs, "validation_limit": 200,
        "final_limit": 200,
    }  # fmt: skip
    if is_digits(source):
        changes |= {"batch_size": 64, "eps": 0.1, "attack_step": 0.0625, "flip": False, "crop": 2,
                    "checkpoint_every": epochs}  # fmt: skip
    return override(load_recipe(str(RECIPE))[0], changes | dict(side.changes))


def layout(side: Side, shape: tuple[int, int, int]) -> dict[str, int]:
    """``side`` of the parts, see ``label_readings.Parts``, and the ``cell`` of their labels: squares as large as a
    place of the last level, or sets of one a channel, of a grey image one a quarter."""
    if side.parts == "squares":
        return {"side": 8, "cell": 2}
    return {"side": 0, "cell": CELL} if shape[0] > 1 else {"side": shape[1] // 2, "cell": CELL // 2}


def build(side: Side, data: ImageSet, recipe: Recipe, spec: UNetSpec) -> SavedClassifier:
    """A fresh model; of the same seed, all begin with the same encoder."""
    parted = layout(side, data.shape) if side.parts else None
    config = IDCConfig(
        data.num_classes, data.shape, spec, class_names=data.class_names, visits=(LAST,),
        label_kind=CODES if parted else "hadamard", label_cell=parted["cell"] if parted else CELL,
        temperature={"logits": 1.0, "sharp logits": 2 * recipe.ce_temperature}.get(side.network, 0.1),
    )  # fmt: skip
    with fresh_weights(recipe):
        if "logits" in side.network:
            return KLogits(config)
        labels = codes(data.num_classes, data.shape, **parted) if parted else None
        return {"metric": MetricIDC, "readout": ReadoutIDC}.get(side.network, IDC)(config, labels)


def reading_of(side: Side) -> Callable[[Any, Recipe], Any]:
    """What makes the reading by which a side is trained, of its model and recipe."""
    if "logits" in side.network:
        return lambda model, recipe: Logits()
    if side.network in LEARNED:
        return LEARNED[side.network]
    if side.parts:
        return lambda model, recipe: Parts(model, recipe, side=layout(side, model.input_shape)["side"])
    return Whole


def objective_of(side: Side, model: Any, recipe: Recipe) -> ModelObjective:
    """What trains the side."""
    if side.bridge:
        return BridgeObjective(model, recipe)
    return ReadObjective(model, recipe, reading_of(side), noise=side.noise)


def answer_of(side: Side, answer: str, model: Any, recipe: Recipe) -> Any:
    """The classifier that is judged, of a trained model on its device."""
    kinds = {"vote": ReadClassifier, "random half": RandomParts}
    if side.network in LEARNED or answer in kinds:
        return kinds.get(answer, ReadClassifier)(model, reading_of(side)(model, recipe)).eval()
    return model
