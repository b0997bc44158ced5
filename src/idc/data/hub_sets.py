"""Data sets of the Hugging Face hub, by the `datasets` library."""

import hashlib
import json
from pathlib import Path
from typing import Any

from idc.data.pools import Source, Split
from idc.data.splits import split_of
from idc.data.tables import Table, table_source
from idc.errors import IDCError
from idc.storage import hub


def hub_source(source: str) -> Source:
    """A data set of the hub, or of the hub library's own cache when the hub cannot be reached.

    Raises:
        IDCError: there is no such data set, no network for one that is not in the cache, or see `table_source`.
    """
    loaded = _load_dataset(source)
    names: dict[Split, str] = {}
    for name in sorted(loaded):
        if split := split_of(name):
            names.setdefault(split, name)
    has_splits = bool(names)
    if not names:
        names = {"train": next(iter(loaded))}
    tables = {split: _table(loaded[name]) for split, name in names.items()}
    return table_source(source, tables, None, has_splits=has_splits)


def _load_dataset(source: str) -> Any:
    online = hub.reachable()
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    # Told that it is offline the library goes straight to its cache, instead of trying again for minutes.
    datasets.config.HF_HUB_OFFLINE = before or not online
    try:
        return datasets.load_dataset(source)
    except Exception as error:  # the library raises anything from ValueError to errors of its HTTP client
        if not online:
            raise hub.unreachable(source, "data set") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise IDCError(f"hub data set {source!r} ({reason})", "a data set of images", "check the id") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _table(split: Any) -> Table:
    def key() -> str:
        files = [Path(file["filename"]) for file in split.cache_files]
        rows = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest() if files else ""

    return Table(split.features.arrow_schema, split.data.column, key, None)
