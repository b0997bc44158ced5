"""What a user asks to be evaluated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idc.errors import IDCError
from idc.evaluation import BLOCK
from idc.storage.fields import check, recorded, setting
from idc.storage.files import write_json
from idc.storage.records import read_json

SAVED_HELP = "a model's folder, a run's folder, a name of idc models, or a hub id"
DATA_HELP = "digits | image folder by class | parquet file or folder | hub id"
ATTACK, ANSWER, RUN = "The protocol and its attacks", "The model's answer", "How it is run"
_FORMAT = "format"  # of request.json: 2, since what was not asked of the split is null
_TURNS = {"panel": ATTACK, "least": 1, "shared": True, "unset": "the protocol's"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asks to be evaluated: the flags of ``idc evaluate``, ``sweep`` and ``certify``, the keys of a
    comparison's YAML and the arguments in Python at once.

    What is known of a field besides its help and range: ``shared``, it is the same for all models of a comparison;
    ``decides=False``, the result is the same whatever it is; ``unset``, what None stands for; and its ``panel``.
    """

    model: str = setting(
        help=f"{SAVED_HELP}; a peer: pyautoattack-resnet18, diffpure:..., zdc:..., rdc:... (see docs/comparing.md); or "
        "package.module:factory for your own nn.Module",
        argument=True,
    )
    data: str = setting(help=DATA_HELP, shared=True)
    split: Literal["test", "validation", "train", "all"] | None = setting(
        None, "which images of the data; all: of data without splits of their own", shared=True,
        unset="test; of data without splits all, or what the model's training held out",
    )  # fmt: skip
    limit: int | None = setting(None, "use this many images only, balanced by class", least=1, unset="all")
    skip_bad: bool = setting(False, "leave unreadable files out instead of stopping", shared=True, decides=False)
    data_name: str | None = setting(
        None, "what the record calls the data", shared=True, decides=False, unset="as --data"
    )
    protocol: str = setting(
        "clean",
        "clean | quick | adaptive | autoattack | curve | paper | pgd | apgd | corruptions | shifts, or "
        "package.module:object",
        panel=ATTACK,
        shared=True,
    )
    attacks: tuple[str, ...] = setting(
        (), "attacks of your own beside them: package.module:object,... (see docs/extending)", panel=ATTACK,
        shared=True, flag="--attack", unset="none",
    )  # fmt: skip
    norm: Literal["linf", "l2", "l1"] = setting("linf", "norm of the perturbation", panel=ATTACK, shared=True)
    eps: float | None = setting(
        None, "radius on [0, 1], such as 8/255", panel=ATTACK, least=0, shared=True, unset="by norm and colour",
        expected="a number such as 0.1 or 8/255",
    )  # fmt: skip
    draws: int | None = setting(
        None, "noise draws by which each image is judged", panel=ATTACK, least=1, unset="the protocol's"
    )
    steps: int | None = setting(None, "steps of the gradient attacks (pgd, apgd, quick, adaptive)", **_TURNS)
    eot: int | None = setting(None, "noise draws averaged in each gradient", **_TURNS)
    restarts: int | None = setting(None, "runs of the gradient attacks from starts of their own", **_TURNS)
    surrogate: str | None = setting(
        None, "the function that pgd or apgd follows; answer: the model itself", **_TURNS | {"unset": "its first"}
    )
    loss: Literal["margin", "cross-entropy", "dlr"] | None = setting(
        None,
        "the loss that pgd or apgd raise",
        **_TURNS | {"unset": "both, one after the other: margin, cross-entropy"},
    )
    block: int = setting(BLOCK, "images attacked together: more for a GPU, say 1024", panel=ATTACK, least=1)
    checkpointing: bool = setting(False, "less memory, a third more time (IDC)", panel=ATTACK, decides=False)
    keep: bool = setting(False, "keep the adversarial images, for idc rejudge", panel=ATTACK, decides=False)
    one_step: bool = setting(False, "answer after one network pass, without noise", panel=ANSWER)
    visits: tuple[int, ...] | None = setting(
        None, "timesteps of IDC's answer, such as 3,0", panel=ANSWER, least=0, unset="the model's",
        expected="timesteps such as [3, 1, 0]",
    )  # fmt: skip
    mirrored: bool = setting(
        False, "answer for an image and its mirror image, in twice the time (IDC, answers in one step)", panel=ANSWER
    )
    eta: float | None = setting(
        None, "share of the noise in IDC's answer", panel=ANSWER, least=0, most=1, unset="the model's"
    )
    precision: Literal["fp32", "bf16", "auto"] = setting(
        "fp32", "numbers that the network computes in; auto: bf16 where the hardware multiplies it", panel=RUN
    )
    compile: bool = setting(False, "compile the network: a minute or more, then less time", panel=RUN, decides=False)
    batch_size: int = setting(
        512,
        "images times draws at once: less takes less memory, and changes no result",
        panel=RUN,
        least=1,
        decides=False,
    )
    seed: int = setting(0, "seed of all random numbers", panel=RUN, least=0, shared=True)

    def __post_init__(self) -> None:
        check(self)


def write_request(file: Path, request: Request) -> None:
    """Write a result's request.json."""
    write_json(file, recorded(request) | {_FORMAT: 2})


def read_request(file: Path, remedy: str) -> Request:
    """The request of a result: its request.json.

    Raises:
        IDCError: with ``remedy``, if it is missing or damaged, or no request.
    """
    held = read_json(file, remedy)
    try:
        # Before they were fields, what is asked of the gradient attacks was pairs in a field of their own; and what was
        # not asked of the split was "test".
        asked = {name: value for name, value in held.items() if name not in {"knobs", _FORMAT}}
        if _FORMAT not in held and asked.get("split") == "test":
            del asked["split"]
        return Request(**asked | dict(held.get("knobs", ())))
    except (AttributeError, TypeError, ValueError, IDCError) as error:
        raise IDCError(file, "a request of idc evaluate", remedy) from error
