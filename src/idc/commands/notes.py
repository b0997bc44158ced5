"""What a user should know of an evaluation before it begins."""

from torch import Tensor

from idc.attacks.gradient import GradientAttack
from idc.attacks.target import ANSWER, Target
from idc.commands.request import Request
from idc.evaluation.protocol import Protocol
from idc.text import eps_text

_LARGE = 0.3  # the largest L-inf radius in use, that of MNIST


def notes(request: Request, protocol: Protocol, target: Target, image: Tensor) -> list[str]:
    """Lines for the user: what of the request means little for this model.

    Args:
        protocol: for this ``target``.
        image: (1, C, H, W), one that the model takes.
    """
    found = []
    if protocol.name == "paper" and not target.stochastic:
        found.append(
            "the paper's protocol is made for IDC's stochastic answer; here it is basic attacks on probabilities"
        )
    if protocol.within and (request.eps is not None or request.norm != "linf"):
        found.append(f"--norm and --eps mean nothing to {protocol.name}: it gives each image {protocol.within}")
    threat = protocol.threat
    if protocol.attacks and not protocol.within and threat.norm == "linf" and threat.eps > _LARGE:
        scale = f"L-inf eps {eps_text(threat.eps)} is {255 * threat.eps:.3g} of 255 levels, where 8 are usual on photos"
        found.append(f"{scale}; from 0.5 on every image can be made plain grey")
    followed = {attack.surrogate for _, attack in protocol.attacks if isinstance(attack, GradientAttack)}
    for own in sorted(followed) if protocol.name in ("pgd", "apgd") else ():
        if own == target.first != ANSWER and request.surrogate is None:
            found.append(
                f"{protocol.name} follows {own}, the first of the model's surrogates (--surrogate names another)"
            )
        if (request.eot or 1) > 1 and not target.noisy(own, image):
            found.append(f"--eot changes nothing: {own} draws no noise (--surrogate names a function that does)")
    return [f"note: {text}" for text in found]
