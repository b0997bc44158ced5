"""The Hugging Face hub: what is looked up there, and whether it can be."""

import os
import re
import threading
from importlib import import_module
from pathlib import Path

from idc.errors import IDCError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILE_SUFFIX = re.compile(
    r"\.(png|jpe?g|bmp|gif|webp|tiff?|parquet|pq|arrow|csv|jsonl?|ya?ml|txt|zip|tar|t?gz|np[yz]|pth?|pkl|bin|h5|safetensors)",
    re.IGNORECASE,
)
PROBE_SECONDS = 4.0


def looks_like_path(source: str) -> bool:
    """Whether ``source`` means a local path, which must never be looked up on the hub: it starts with . / or ~, has a
    backslash, more than one slash, a slash at its end or a file's suffix, begins with something that exists here, or is no
    legal hub id at all."""
    return (
        not _HUB_ID.fullmatch(source)
        or source.count("/") > 1
        or bool(_FILE_SUFFIX.fullmatch(Path(source).suffix))
        or os.path.lexists(source.split("/")[0])
    )


def unreachable(source: str, what: str) -> IDCError:
    """The error for a hub id when there is no network and no local copy."""
    return IDCError(
        f"{what} {source!r} (the hub cannot be reached, and it is not in the local cache)",
        "a network, or a local path",
        f"connect, or give a folder such as ./{source}",
    )


def reachable() -> bool:
    """Whether the hub answers at all, within PROBE_SECONDS; False without asking if the user chose to be offline."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return False
    request, error = import_module("urllib.request"), import_module("urllib.error")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    answered, done = threading.Event(), threading.Event()

    def probe() -> None:
        try:
            request.urlopen(request.Request(endpoint, method="HEAD"), timeout=PROBE_SECONDS).close()
            answered.set()
        except error.HTTPError:  # an answer, though not a friendly one
            answered.set()
        except (OSError, ValueError, import_module("http.client").HTTPException):
            pass  # no network, no such host, no URL
        finally:
            done.set()

    # In a thread, because a lookup of the host's name does not keep to the time limit.
    threading.Thread(target=probe, daemon=True).start()
    done.wait(PROBE_SECONDS + 0.5)
    return answered.is_set()
