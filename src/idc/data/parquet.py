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
from idc.data.splits import before_split, split_of
from idc.data.tables import Table, image_column, table_source
from idc.errors import IDCError

_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)  # the last for a column whose name is damaged
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
    others: dict[str, int] = {}
    if root.is_file():
        # A lone test file is a test split; any other lone file is one pool, whatever its name.
        groups: Mapping[Split, Sequence[Path]] = {"test" if split_of(root.stem) == "test" else "train": files}
        folder = root.parent
    else:
        files, others = _one_configuration(root, files)
        groups, folder = _group_by_split(root, files), root
    tables = {split: _table(part) for split, part in groups.items()}
    opened = table_source(str(root), tables, folder / "README.md", has_splits=_has_splits(root, files))
    opened.left_out.update(others)
    return opened


def holds_images(files: Sequence[Path]) -> bool:
    """Whether a parquet file can be a data set of images, by the columns of the first; a damaged one can."""
    try:
        return image_column(pq.read_schema(files[0])) is not None
    except _UNREADABLE:
        return True


def _has_splits(root: Path, files: Sequence[Path]) -> bool:
    return split_of(root.stem) == "test" if root.is_file() else _told(root, files[0])[0] is not None


def _told(root: Path, file: Path) -> tuple[Split | None, tuple[str, ...]]:
    """The split that a file's name, else a folder's name, tells, and what else its place says: the configuration."""
    folders = file.relative_to(root).parts[:-1]
    if split := split_of(file.stem):
        return split, (*folders, before_split(file.stem))
    split = next((found for name in reversed(folders) if (found := split_of(name))), None)
    return split, tuple(name for name in folders if split is None or split_of(name) is None)


def _one_configuration(root: Path, files: Sequence[Path]) -> tuple[Sequence[Path], dict[str, int]]:
    """The files of the configuration `default`, or of the first by name, and how many there are of each other one.
    Configurations may hold the same images in another form: they are never merged."""
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(" ".join(filter(None, _told(root, file)[1])), []).append(file)
    chosen = "default" if "default" in found else min(found)
    others = {f"files of configuration {name or '(none)'}": len(held) for name, held in found.items() if name != chosen}
    return found[chosen], others


def _group_by_split(root: Path, files: Sequence[Path]) -> Mapping[Split, Sequence[Path]]:
    """Files by the split that their name, else a folder's name, tells; all of them are train where none tells.

    Raises:
        IDCError: some tell and others do not.
    """
    told = {file: _told(root, file) for file in files}
    groups: dict[Split, list[Path]] = {}
    for file, (split, _) in told.items():
        groups.setdefault(split or "all", []).append(file)
    if len(groups) > 1 and "all" in groups:
        name = groups["all"][0].relative_to(root)
        raise IDCError(f"{root}: {name} beside files of splits", "a split in every name", "move it, or rename it")
    return groups if "all" not in groups else {"train": files}


def _table(files: Sequence[Path]) -> Table:
    with _readable(files):
        schemas = [pq.read_schema(file) for file in files]
    for file, schema in zip(files, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise IDCError(f"{file.name} has other columns than {files[0].name}", "equal columns", "name one of them")
    return Table(schemas[0], functools.partial(_column, files), functools.partial(_key, files), files[0].parent)


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
    except _UNREADABLE as error:
        value = f"{', '.join(file.name for file in files[:5])} ({str(error).splitlines()[0]})"
        raise IDCError(value, "readable parquet files with equal columns", "download the data again") from error


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
