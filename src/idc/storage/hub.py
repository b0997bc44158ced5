"""Hub ids, for data sets and models alike: which strings are one, whether the hub answers, the error if it does not."""

import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from idc.errors import IDCError

PROBE_SECONDS = 4.0
OPTIONS: dict[str, tuple[type, ...]] = {  # of huggingface_hub, where a model is fetched
    "revision": (str,), "cache_dir": (str, Path), "token": (str, bool), "local_files_only": (bool,),
    "force_download": (bool,),
}  # fmt: skip

_IMAGES = {"AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP"}  # Pillow knows more
_FILE_SUFFIXES = frozenset({  # beside those of images
    ".parquet", ".pq", ".arrow", ".csv", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".zip", ".tar", ".gz", ".tgz",
    ".npy", ".npz", ".pt", ".pth", ".pkl", ".bin", ".h5", ".safetensors",
})  # fmt: skip


@cache
def image_suffixes() -> frozenset[str]:
    """File suffixes of the image formats that a data set may have, such as ``.png``, as Pillow lists them."""
    from PIL import Image

    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in _IMAGES)


def looks_like_path(source: str) -> bool:
    """Whether a string is meant as a path, or is no legal hub id; neither may be looked up on the hub.

    A path is what begins like one (``.``, ``/``, ``~``), ends in ``/`` or a file's suffix, has a backslash or two
    slashes, or begins with the name of something in the current folder.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its list of names

    try:
        validate_repo_id(source)
    except HFValidationError:
        return True
    suffix = Path(source).suffix.lower()
    return os.path.lexists(source.split("/")[0]) or suffix in _FILE_SUFFIXES or suffix in image_suffixes()


def check_path(source: str) -> None:
    """Refuse a mistyped path at once, before anything that takes long is imported.

    Args:
        source: what a user named, a model or data; what has a colon is a name of another kind.

    Raises:
        IDCError: if nothing is there, and it looks like a path, or like a path that is there (``phots/dogs``).
    """
    there = os.path.lexists(os.path.expanduser(source))
    if not there and ":" not in source and (looks_like_path(source) or ("/" in source and _meant(source))):
        raise IDCError(f"no such file or folder: {source!r}", "an existing path", _remedy(source, "check it"))


def _meant(source: str) -> Path | None:
    """The file or folder that is there, and whose path differs from ``source`` in one part, by little."""
    path = Path(os.path.expanduser(source))
    with suppress(OSError, ValueError):
        wrong = next((p for p in (*reversed(path.parents), path) if not p.exists()), path)
        for name in get_close_matches(wrong.name, os.listdir(wrong.parent), n=1):
            found = wrong.parent / name / path.relative_to(wrong)
            return found if found.exists() else None
    return None


def _remedy(source: str, remedy: str) -> str:
    found = _meant(source)
    return f"{remedy} (did you mean {found}?)" if found else remedy


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse keywords that are none of ``OPTIONS``, or a value that is none of theirs.

    Raises:
        IDCError: for the first.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise IDCError(f"{name}= for a model", f"one of device, {', '.join(OPTIONS)}", "leave it out")
        if not isinstance(value, (*OPTIONS[name], NoneType)):
            kinds = " or ".join(kind.__name__ for kind in OPTIONS[name])
            raise IDCError(f"{name}= of type {type(value).__name__}", kinds, "correct it")  # a token is not shown


def reachable() -> bool:
    """Whether the hub answers at all, within PROBE_SECONDS; False without asking if the user chose to be offline."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return False
    answers: list[bool] = []
    # In a thread, because a lookup of the host's name does not keep to the time limit.
    probe = threading.Thread(target=lambda: answers.append(_answers()), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS + 0.5)
    return answers == [True]


def unreachable(source: str, what: str) -> IDCError:
    """The error for a hub id that is not in the local cache when there is no network; ``what`` is it: a "model"."""
    value = f"hub {what} {source!r} (no such folder here; the hub cannot be reached, and it is not in the local cache)"
    known = ", or a name of idc models" if what == "model" and "/" not in source else ""
    remedy = _remedy(source, f"connect, or give a folder such as ./{source}{known}")
    return IDCError(value, "a network, or a local path", remedy)


def _answers() -> bool:
    try:
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:  # an answer, though not a friendly one
        return True
    except (OSError, ValueError, http.client.HTTPException):  # no network, no such host, no URL
        return False
    return True
