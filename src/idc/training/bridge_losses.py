"""The losses of the Brownian bridge on a batch, each image towards the class or the classes that it is of."""

from dataclasses import replace

from torch import Tensor

from idc.method.bridge import BridgeSample
from idc.method.loss import answer_distances, bridge_loss, squared_hinge
from idc.training.recipe import Recipe
from idc.training.targets import Targets


def bridge_terms(
    sample: BridgeSample, output: Tensor, labels: Tensor, targets: Targets, recipe: Recipe
) -> dict[str, Tensor]:
    """Means over a batch, each (): "total", "intra" and "inter", see ``bridge_loss``, and with a weight for it "hinge";
    of an image of two classes ``share L(a) + (1 - share) L(b)``, with x0, and with it the target of the network, that
    of the one and of the other.

    Args:
        sample: of the bridge to the images' own classes, (B, C, H, W) tensors.
        output: U(x_t, t), (B, C, H, W).
        labels: P, (K, C, H, W) on [-1, 1].
        targets: of the B images.
        recipe: its weights of the losses.
    """
    found: dict[str, Tensor] = {}
    distances = answer_distances(sample.x_t - output, labels) if recipe.hinge_weight else None
    for classes, share in targets.each():
        if classes is not targets.classes:
            x0 = labels[classes]
            sample = replace(sample, x0=x0, target=sample.x_t - x0)
        terms = bridge_loss(sample, output, labels, classes, inter_weight=recipe.inter_weight)
        values = {"total": terms.total, "intra": terms.intra, "inter": terms.inter}
        if distances is not None:
            values["hinge"] = squared_hinge(distances, classes, margin=recipe.hinge_margin)
            values["total"] = values["total"] + recipe.hinge_weight * values["hinge"]
        for name, value in values.items():
            mean = (value if share is None else value * share).mean()
            found[name] = found[name] + mean if name in found else mean
    return found
