"""From a name to the folder of a saved model: a folder, a run, a model that comes with the package, a hub id."""

import difflib
import os
from functools import partial
from pathlib import Path
from typing import Any

from idc.errors import IDCError
from idc.storage import hub
from idc.storage.model_folder import CONFIG, TRAIN, WEIGHTS, named_weights

HOME = Path(__file__).parents[1] / "zoo"  # of the models that come with the package


def packaged_names() -> tuple[str, ...]:
    """The names of all models that come with the package, sorted."""
    return tuple(sorted(file.parent.name for file in HOME.glob(f"[!.]*/{CONFIG}")))


def packaged(name: str) -> Path | None:
    """The folder of the packaged model of exactly that name; None if there is none."""
    return HOME / name if name in packaged_names() else None


def resembles_packaged(name: str) -> bool:
    """Whether ``name``, which is none of the names, was meant as one. A hub id ``owner/name`` never was."""
    known = packaged_names()
    if "/" in name or name in known:
        return False
    return name.startswith("idc-") or bool(difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7))


def locate(source: str, **options: Any) -> Path:
    """The folder of a model: a local one as it is, one that comes with the package by its name, a hub id after its
    download, for which ``options`` are, see ``hub.OPTIONS``. A name means the first of these that there is.

    Raises:
        IDCError: if there is no such model, no network for a hub id, or no such option.
    """
    hub.check_options(options)
    path = Path(os.path.expanduser(source))
    try:
        path.exists()
    except OSError as error:  # a name too long, say
        raise IDCError(source, "a readable path", f"check it ({error.strerror})") from error
    if path.is_dir():
        return _of_run(path)
    if not path.exists() and (shipped := packaged(source)):
        return shipped
    if path.exists() or hub.looks_like_path(source):
        raise IDCError(source, f"a model folder with {CONFIG} and {WEIGHTS}", TRAIN)
    if resembles_packaged(source):
        known = ", ".join(packaged_names())
        raise IDCError(source, "a model that comes with idc", f"take one of {known}, a folder, or a hub id owner/name")
    return _download(source, options)


def _of_run(path: Path) -> Path:
    """A model's folder as it is; the folder of a training run stands for its best model."""
    best, last = path / "best", path / "last"
    if (path / CONFIG).exists():
        return path
    if (best / CONFIG).exists():
        return best
    if not best.exists() and (last / CONFIG).exists():
        raise IDCError(path, "a run that has validated a model", f"go on with it (--resume), or take {last}")
    return path


def _download(source: str, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        offline = options.get("local_files_only") or not hub.reachable()
        fetch = partial(snapshot_download, source, **options | {"local_files_only": bool(offline)})
        folder = Path(fetch(allow_patterns=[CONFIG]))  # its name is the commit's
        # Only now is it known whether this is a model of ours, and which of the files there are its weights.
        weights = named_weights(folder)
        return Path(fetch(revision=folder.name, allow_patterns=[CONFIG, *weights])) if weights else folder
    except LocalEntryNotFoundError as error:
        raise hub.unreachable(source, "model") from error
    except (HfHubHTTPError, OSError) as error:
        raise IDCError(
            source, "a model on the hub", f"check its name and your access ({type(error).__name__})"
        ) from error
