"""Result files: one JSON line for each finished image, flushed as it is done, read back whatever a kill left behind.

Each line, and each file that is a record, has a checksum of its own: what was changed since is noticed. Those of before
there were checksums are read as they are.
"""

import json
import os
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from idc.errors import IDCError
from idc.storage.files import digest, explained, parse_json, write_json

Row = dict[str, Any]

# The keys of an evaluation's summary.
SUMMARY = ("clean", "noise", "robust", "attacks", "sanity", "cost", "answer", "settings", "protocol")
_NOW = {"evaluations": "network_evaluations", "chunk": "batch_size"}  # keys of older records, by their names now
_LINE_SUM, _SUM = "crc32", "record_sha256"  # the last key of a line, and of a record


def append(file: Path, rows: Iterable[Row]) -> None:
    """Append ``rows`` to ``file``, a line each, and wait until they are on the disk.

    A line that a kill cut short is closed first, so that it spoils no other.
    """
    with explained(file), file.open("ab+") as out:
        if out.tell():
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")
        out.write("".join(json.dumps(row | {_LINE_SUM: _line_sum(row)}) + "\n" for row in rows).encode())
        out.flush()
        os.fsync(out.fileno())


def _line_sum(row: Row) -> str:
    return f"{zlib.crc32(json.dumps(row).encode()):08x}"


def read(file: Path) -> list[Row]:
    """The whole lines of ``file`` in order; lines that a kill cut short, or that were changed since, are left out, and
    a missing file has none."""
    rows: list[Row] = []
    if not file.exists():
        return rows
    for line in file.read_bytes().splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.pop(_LINE_SUM, None) in (None, _line_sum(row)):
            rows.append(row)
    return rows


def read_all(folder: Path, pattern: str, key: str) -> dict[int, Row]:
    """The rows of every file that matches ``pattern``, by their integer ``key``; of equal keys the first."""
    found: dict[int, Row] = {}
    for file in sorted(folder.glob(pattern)):
        for row in read(file):
            if isinstance(row.get(key), int):
                found.setdefault(row[key], row)
    return dict(sorted(found.items()))


def write(file: Path, values: Row) -> Row:
    """Write ``values`` as JSON with a checksum of their own, whole or not at all; returns what is written."""
    own = {name: value for name, value in values.items() if name != _SUM}
    sealed = own | {_SUM: digest(json.loads(json.dumps(own)))}
    write_json(file, sealed)
    return sealed


def read_json(file: Path, remedy: str, *, keys: Collection[str] = ()) -> Any:
    """A JSON file; keys that older records name otherwise have their names of now.

    Args:
        keys: that it must have; those of a mapping within it after a dot.

    Raises:
        IDCError: with ``remedy``, if it is missing or damaged, or a record that was changed since it was written.
    """
    try:
        text = file.read_text(encoding="utf-8")
        held = parse_json(text)
        if isinstance(held, dict) and _SUM in held and held[_SUM] != digest({k: held[k] for k in held.keys() - {_SUM}}):
            raise IDCError(file, "a record as it was written (its checksum differs)", remedy)
        found = parse_json(text, object_pairs_hook=lambda own: {_NOW.get(name, name): value for name, value in own})
    except FileNotFoundError as error:
        raise IDCError(file, "a file", remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise IDCError(file, "a whole JSON file", remedy) from error
    if missing := [key for key in keys if not _has(found, key)]:
        raise IDCError(file, f"a whole record ({missing[0]} is missing)", remedy)
    return found


def _has(held: Any, key: str) -> bool:
    first, _, rest = key.partition(".")
    return isinstance(held, dict) and first in held and (not rest or _has(held[first], rest))


def finished(folder: Path, name: str) -> dict[int, Row]:
    """The finished images of a result, by id, from its ``name-*.jsonl``."""
    return read_all(folder, f"{name}-*.jsonl", "id")


def read_whole(file: Path, name: str, ids: Iterable[int], keys: Collection[str]) -> Row | None:
    """A summary with these ``keys``, if there is one and all images ``ids`` are among the lines ``name`` beside it."""
    if not file.exists():
        return None
    held: Row = read_json(file, "remove it, to have it made again", keys=keys)
    return held if finished(file.parent, name).keys() >= set(ids) else None


def read_lines(folder: Path, name: str, command: str) -> list[dict[str, Any]]:
    """The lines of ``finished``.

    Raises:
        IDCError: if there is none; ``command`` is what makes them.
    """
    lines = list(finished(folder, name).values())
    if not lines:
        raise IDCError(folder, f"a result of idc {command}", f"check the path, or run idc {command} first")
    return lines
