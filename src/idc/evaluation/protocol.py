"""Evaluation protocols by name: which attacks run in which order, and how an image is judged; kept with the result."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from idc.attacks.adaptive import AdaptiveAttack
from idc.attacks.boundary import FAB
from idc.attacks.corruption import KINDS, Corruption
from idc.attacks.gradient import Attack, GradientAttack, apgd, fgsm, mi_fgsm, pgd
from idc.attacks.minimum_norm import FMN, CarliniWagner
from idc.attacks.objective import DLR, OBJECTIVES, CrossEntropy, Margin, Objective
from idc.attacks.square import Square
from idc.attacks.target import FIRST, Target
from idc.attacks.third_party import AutoAttack
from idc.attacks.threat import Threat
from idc.attacks.warping import WorstShift
from idc.errors import IDCError
from idc.storage.fields import recorded, setting


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is done to each image, and how it is judged.

    Args:
        name: of the protocol.
        threat: of its attacks.
        attacks: by name, in the order in which they run.
        draws: of the noise by which a stochastic model is judged on each point; a deterministic one is asked once.
        adaptive: whether the attacks are made for the model; otherwise the result is marked as an upper bound.
        gate: an image with no right draw left, of ten or more, is not attacked further: nothing can get worse for it.
            Such a protocol's attacks take their radius from ``threat`` alone: those of two radii are else the same.
        sanity: images on which all sanity checks run; with 0 the cheap ones alone, and whether the gradients that the
            attacks follow are finite and not 0, on 16 images.
        within: what its attacks keep to, in words, where that is no ball of a norm: ``threat`` is then all of [0, 1],
            and there is no random noise of its size to compare with.
        left_out: what it would hold if its norm had a form of it.
        basic: none of its attacks looks for the worst adversarial example: what survives them at one radius is not
            taken to survive them at a smaller one.
    """

    name: str
    threat: Threat
    attacks: tuple[tuple[str, Attack], ...] = ()
    draws: int = 20
    adaptive: bool = False
    gate: bool = False
    sanity: int = 0
    within: str = setting("", omit_default=True)
    left_out: tuple[str, ...] = setting((), omit_default=True)
    basic: bool = setting(False, omit_default=True)

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise IDCError(f"draws = {self.draws}", "1 or more", "use 20 for a stochastic model")
        names = [name for name, _ in self.attacks]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise IDCError(f"two attacks named {twice} in {self.name}", "a name for each", "rename one")

    @property
    def nests(self) -> bool:
        """Whether what survives it at one radius is taken to survive it at smaller ones, see ``nested``: not what
        survives one attack, which does not look for the worst adversarial example."""
        if self.within or any(getattr(attack, "nearest", False) for _, attack in self.attacks):
            return False  # it has no radius; or an image that is not attacked would count as surviving every one
        return not self.basic and (self.gate or len(self.attacks) > 1)

    def for_target(self, target: Target) -> "Protocol":
        """The same for this model: attacks that leave open which function they follow have the name of its first one.
        Without those that do nothing to an answer with noise."""

        def fitted(attack: Attack) -> Attack:
            if isinstance(attack, GradientAttack) and attack.surrogate == FIRST:
                return replace(attack, surrogate=target.first)
            return attack.for_target(target) if isinstance(attack, AdaptiveAttack) else attack

        kept = ((name, own) for name, own in self.attacks if not (target.stochastic and isinstance(own, FAB)))
        return replace(self, attacks=tuple((name, fitted(own)) for name, own in kept))

    @property
    def needs_published(self) -> bool:
        """Whether an attack wants the function that the published ones see."""
        return any(getattr(attack, "surrogate", None) == PUBLISHED for _, attack in self.attacks)

    @property
    def tries_all(self) -> bool:
        """Whether an attack tries every function of the model."""
        return any(isinstance(attack, AdaptiveAttack | FMN) for _, attack in self.attacks)

    @property
    def climbs(self) -> bool:
        """Whether an attack follows gradients, if it has an image to attack."""
        return any(isinstance(attack, GradientAttack | AdaptiveAttack) for _, attack in self.attacks)

    @property
    def objectives(self) -> list[Objective]:
        """What its attacks raise; the margin, for those that do not say, or raise something of their own."""
        named = [own for _, a in self.attacks for own in getattr(a, "objectives", [getattr(a, "objective", None)])]
        known = [own if isinstance(own, CrossEntropy | Margin | DLR) else Margin() for own in named]
        return list(dict.fromkeys(known))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the kind of every attack and objective."""
        return recorded(self) | {"attacks": {name: recorded(attack, kinds=True) for name, attack in self.attacks}}


def _clean(threat: Threat) -> Protocol:
    return Protocol("clean", replace(threat, eps=0.0))


def _paper(threat: Threat) -> Protocol:
    """The published evaluation. Its 150-draw check of each of 51 iterates is one of the last."""
    if threat.norm != "linf":
        raise IDCError(f"norm {threat.norm}", "linf for the paper's protocol", "leave --norm out")
    same: dict[str, Any] = {"surrogate": PUBLISHED, "fixed_noise": True}
    step = threat.eps / 4
    return Protocol(
        "paper",
        threat,
        (
            ("fgsm", fgsm(threat, **same)),
            ("mi-fgsm", mi_fgsm(threat, step=step, **same)),
            ("pgd-20", pgd(threat, step=step, **same)),
            ("eot-pgd-50", pgd(threat, steps=50, step=step, random_start=False, eot=15, mean_of="outputs", **same)),
            ("autoattack-10", AutoAttack(threat=threat, version="standard", surrogate=PUBLISHED, steps=10,
                                         reseed=True)),
            ("cw-l2", CarliniWagner(surrogate=PUBLISHED, constant=1e-4, searches=1, reseed=True)),
        ),
    )  # fmt: skip


def _adaptive(threat: Threat) -> Protocol:
    search = ("adaptive", AdaptiveAttack(threat=threat))
    if threat.norm == "l1":
        absent = ("FAB", "Square", "AutoAttack's library as a check", "APGD-L1's first rounds at larger radii")
        return Protocol("adaptive", threat, (search,), adaptive=True, gate=True, sanity=64, left_out=absent)
    fab, square = FAB(threat=threat, steps=50, targets=3), Square(threat=threat, draws=4, progress=0.5)
    attacks = (search, ("fab", fab), ("square", square))
    return Protocol("adaptive", threat, attacks, adaptive=True, gate=True, sanity=64)


def _autoattack(threat: Threat) -> Protocol:
    """What RobustBench reports for a deterministic model; the rand version for a stochastic one."""
    return Protocol("autoattack", threat, (("autoattack", AutoAttack(threat=threat)),))


def _curve(threat: Threat) -> Protocol:
    """The smallest change for each image, by attacks that look for it, hence accuracy over every radius in one run."""
    fmn = ("fmn", FMN(threat=threat))
    if threat.norm == "l1":
        return Protocol("curve", threat, (fmn,), left_out=("FAB",))
    return Protocol("curve", threat, (fmn, ("fab", FAB(threat=threat, targets=3, nearest=True))))


def _quick(threat: Threat) -> Protocol:
    attack = AdaptiveAttack(threat=threat, objectives=(Margin(),), trial_steps=5, steps=20, targets=3, eot=2,
                            low_frequency=None, judge_draws=4)  # fmt: skip
    return Protocol("quick", threat, (("adaptive", attack),), draws=10, adaptive=True, gate=True)


def _pgd(threat: Threat) -> Protocol:
    return _by_either_loss("pgd", "pgd-20", pgd(threat, surrogate=FIRST))


def _apgd(threat: Threat) -> Protocol:
    return _by_either_loss("apgd", "apgd-100", apgd(threat, surrogate=FIRST))


def _by_either_loss(name: str, label: str, attack: GradientAttack) -> Protocol:
    """The attack on the margin and, of images that survive it, on the usual cross-entropy. Neither is the stronger one
    of every model: the latter saturates where logits are large, and where they are small (an IDC's are distances over
    0.1) its gradient is a mean over all wrong classes; the margin's knows the nearest one alone."""
    both = tuple(
        (f"{label} ({loss})", replace(attack, objective=OBJECTIVES[loss])) for loss in ("margin", "cross-entropy")
    )
    return Protocol(name, attack.threat, both, gate=True, basic=True)


def _corruptions(threat: Threat) -> Protocol:
    """Each image under every kind and severity of the common corruptions, whatever the radius that was asked for."""
    whole = replace(threat, norm="linf", eps=1.0)
    severities = range(1, 6)
    attacks = tuple(
        (f"{kind}-{severity}", Corruption(threat=whole, kind=kind, severity=severity))
        for kind in KINDS
        for severity in severities
    )
    within = f"every one of {len(KINDS)} corruptions at {len(severities)} severities"
    return Protocol("corruptions", whole, attacks, draws=5, within=within)


def _shifts(threat: Threat) -> Protocol:
    """Each image under the worst of a grid of rotations and shifts, whatever the radius that was asked for."""
    whole = replace(threat, norm="linf", eps=1.0)
    attack = WorstShift(threat=whole)
    grid = (
        f"{len(attack.grid)} rotations up to {attack.degrees:g} degrees and shifts up to {attack.pixels:g} of 32 pixels"
    )
    return Protocol("shifts", whole, (("worst-of-grid", attack),), within=f"each of {grid}")


PROTOCOLS: dict[str, Callable[[Threat], Protocol]] = {
    "clean": _clean, "paper": _paper, "adaptive": _adaptive, "autoattack": _autoattack, "curve": _curve,
    "quick": _quick, "pgd": _pgd, "apgd": _apgd, "corruptions": _corruptions, "shifts": _shifts,
}  # fmt: skip
WITHOUT_RADIUS = ("corruptions", "shifts")  # of them, those that are the same at every eps


def build_protocol(
    source: str | Protocol,
    threat: Threat,
    *,
    draws: int | None = None,
    attacks: Mapping[str, Callable[[Threat], Attack]] | None = None,
    **settings: Any,
) -> Protocol:
    """A protocol by name, or one that is given, with changes.

    Args:
        threat: of a named one.
        draws: instead of the protocol's own.
        attacks: by name, what makes more of them for the protocol's threat; ``clean`` then has these alone.
        settings: of its gradient attacks to change, such as ``steps``, ``eot``, ``restarts``, ``surrogate`` or
            ``loss`` (a name of ``OBJECTIVES``); None leaves one alone.

    Raises:
        IDCError: for an unknown protocol, or a setting that none of its attacks has.
    """
    if isinstance(source, str) and source not in PROTOCOLS:
        expected = f"one of {', '.join(PROTOCOLS)}, or package.module:object"
        raise IDCError(f"protocol {source!r}", expected, "correct the protocol")
    protocol = PROTOCOLS[source](threat) if isinstance(source, str) else source
    changes = {k: v for k, v in settings.items() if v is not None}
    if protocol.name == "paper" and (changes or attacks):
        given = ", ".join((*changes, *(attacks or ())))
        raise IDCError(given, "the paper's own settings", "use --protocol pgd to vary them")
    if attacks:
        if protocol.name == "clean":
            protocol = replace(protocol, name="own attacks", threat=threat)
        more = tuple((name, make(protocol.threat)) for name, make in attacks.items())
        within = protocol.within and ", and ".join((protocol.within, *attacks))
        protocol = replace(protocol, attacks=(*protocol.attacks, *more), within=within)
    if changes:
        protocol = _turned(protocol, changes)
    return protocol if draws is None else replace(protocol, draws=draws)


def _turned_gradient(name: str, attack: GradientAttack, changes: Mapping[str, Any]) -> tuple[str, GradientAttack]:
    """The attack with its ``loss``, and a name that says so, such as "pgd-20 (margin)"."""
    base, bracket, rest = name.partition(" (")
    if rest.removesuffix(")") not in OBJECTIVES:
        base, bracket, rest = name, "", ""
    if "steps" in changes:
        base = f"{re.sub(r'-[0-9]+$', '', base)}-{changes['steps']}"
    if "loss" not in changes:
        return f"{base}{bracket}{rest}", attack
    return f"{base} ({changes['loss']})", replace(attack, objective=OBJECTIVES[changes["loss"]])


def _turned(protocol: Protocol, changes: dict[str, Any]) -> Protocol:
    attacks: list[tuple[str, Attack]] = []
    known: set[str] = set()
    for name, attack in protocol.attacks:
        if isinstance(attack, GradientAttack | AdaptiveAttack):
            own = {f.name for f in fields(attack)}
            known |= own
            if isinstance(attack, GradientAttack):
                name, attack = _turned_gradient(name, attack, changes)
                known.add("loss")
            attack = replace(attack, **{k: v for k, v in changes.items() if k in own})
        if (name, attack) not in attacks:  # two that differed in the loss alone
            attacks.append((name, attack))
    if unknown := [k for k in changes if k not in known]:
        have = "no attack" if not attacks else f"attacks without {unknown[0]}"
        expected = f"a protocol that has it ({protocol.name} has {have})"
        raise IDCError(f"--{unknown[0]}", expected, "use --protocol pgd")
    return replace(protocol, attacks=tuple(attacks))


PUBLISHED = "published"


def published(target: Target, *, probabilities: bool = True) -> Target:
    """``target`` with the function that the published attacks see, under the name ``PUBLISHED``.

    Args:
        probabilities: a softmax of the logits is attacked as if it were logits, as published; False gives logits. The
            other flaw, noise that repeats in every call, is a setting of the attacks.
    """

    def softmax(images: Tensor, **draws: int) -> Tensor:
        return torch.softmax(target.answer(images, **draws), dim=1)

    return target.with_surrogates({**target.surrogates, PUBLISHED: softmax if probabilities else target.answer})
