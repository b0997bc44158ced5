"""Parquet files as splits: found in a folder, grouped by the names of files and folders, read column by column."""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from idc.data.pools import Source, Split
from idc.data.splits import split_of
from idc.data.tables import Table, table_source
from idc.errors import IDCError

_HASHED_BYTES = 512 * 2**20  # files up to this size together are keyed by content, larger ones by name, size and time


def find_parquet(path: Path) -> list[Path]:
    """A parquet file itself, or the visible ones in a folder, sorted: of the first of three levels that has any."""
    if path.is_file():
        return [path] if path.suffix.lower() in (".parquet", ".pq") else []
    for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet"):
        visible = (file for file in path.glob(pattern) if not _is_hidden(file.relative_to(path)))
        if files := sorted(visible):
            return files
    return []


def parquet_source(root: Path, files: Sequence[Path]) -> Source:
    """A source from the files that `find_parquet` found in `root`.

    Raises:
        IDCError: a file is damaged, the files' columns differ, or see `table_source`.
    """
    if root.is_file():
        # A lone test file is a test split; any other lone file is one pool, whatever its name.
        groups: Mapping[Split, Sequence[Path]] = {"test" if split_of(root.stem) == "test" else "train": files}
        folder = root.parent
    else:
        groups, folder = _group_by_split(root, files), root
    return table_source(str(root), {split: _table(part) for split, part in groups.items()}, folder / "README.md")


def _group_by_split(root: Path, files: Sequence[Path]) -> Mapping[Split, Sequence[Path]]:
    """Files by the split that their name, else a folder's name, tells; all of them are train where none tells."""
    groups: dict[Split, list[Path]] = {}
    for file in files:
        names = [file.stem, *reversed(file.relative_to(root).parts[:-1])]
        split = next((found for name in names if (found := split_of(name))), None)
        if split:
            groups.setdefault(split, []).append(file)
    return groups or {"train": files}


def _table(files: Sequence[Path]) -> Table:
    with _readable(files):
        schema = pq.read_schema(files[0])
    return Table(schema, functools.partial(_column, files), functools.partial(_key, files), files[0].parent)


def _column(files: Sequence[Path], name: str) -> Any:
    with _readable(files):
        parts = [pq.ParquetFile(file).read(columns=[name]).column(name) for file in files]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=parts[0].type)


def _key(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    by_content = sum(file.stat().st_size for file in files) <= _HASHED_BYTES
    for file in files:
        if by_content:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            stat = file.stat()
            digest.update(json.dumps([str(file.resolve()), stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()


@contextmanager
def _readable(files: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        value = f"{', '.join(file.name for file in files[:5])} ({str(error).splitlines()[0]})"
        raise IDCError(value, "readable parquet files with equal columns", "download the data again") from error


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
