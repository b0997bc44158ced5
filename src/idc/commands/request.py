"""What a user asks to be evaluated."""

from dataclasses import dataclass
from typing import Any

from idc.evaluation.runner import BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asks to be evaluated; the fields are the flags of ``idc evaluate``.

    Args:
        model: see ``open_model``.
        data: see ``idc.data.load``.
        protocol: a name in ``idc.evaluation.protocol.PROTOCOLS``, or ``package.module:object``: a ``Protocol``, or a
            function from a ``Threat`` to one.
        attacks: more of them, each ``package.module:object`` that is called with ``threat=`` and gives an attack.
        eps: radius; None stands for ``default_eps``.
        precision: of the networks, see ``idc.compute.hardware.uses_bf16``.
        compile: see ``idc.compute.compiled``.
        chunk, block: see ``Runner``.
        knobs: see ``build_protocol``.
    """

    model: str
    data: str
    protocol: str = "clean"
    attacks: tuple[str, ...] = ()
    split: str = "test"
    norm: str = "linf"
    eps: float | None = None
    limit: int | None = None
    draws: int | None = None
    seed: int = 0
    one_step: bool = False
    visits: tuple[int, ...] | None = None
    eta: float | None = None
    precision: str = "fp32"
    compile: bool = False
    checkpointing: bool = False
    chunk: int = 512
    block: int = BLOCK
    keep: bool = False
    skip_bad: bool = False
    data_name: str | None = None
    knobs: tuple[tuple[str, Any], ...] = ()
