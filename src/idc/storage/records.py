"""Result files: one JSON line for each finished image, flushed as it is done, read back whatever a kill left behind."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from idc.errors import IDCError
from idc.storage.files import explained

Row = dict[str, Any]

_NOW = {"evaluations": "network_evaluations"}  # keys of older records, by their names now


def append(file: Path, rows: Iterable[Row]) -> None:
    """Append ``rows`` to ``file``, a line each, and wait until they are on the disk.

    A line that a kill cut short is closed first, so that it spoils no other.
    """
    with explained(file), file.open("ab+") as out:
        if out.tell():
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")
        out.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        out.flush()
        os.fsync(out.fileno())


def read(file: Path) -> list[Row]:
    """The whole lines of ``file`` in order; lines that a kill cut short are left out, a missing file has none."""
    rows: list[Row] = []
    if not file.exists():
        return rows
    for line in file.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
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


def read_json(file: Path, remedy: str) -> Any:
    """A JSON file; keys that older records name otherwise have their names of now.

    Raises:
        IDCError: with ``remedy``, if it is missing or damaged.
    """
    try:
        text = file.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=lambda pairs: {_NOW.get(name, name): value for name, value in pairs})
    except FileNotFoundError as error:
        raise IDCError(file, "a file", remedy) from error
    except (OSError, ValueError) as error:
        raise IDCError(file, "a whole JSON file", remedy) from error


def finished(folder: Path, name: str) -> dict[int, Row]:
    """The finished images of a result, by id, from its ``name-*.jsonl``."""
    return read_all(folder, f"{name}-*.jsonl", "id")


def read_whole(file: Path, name: str, ids: Iterable[int]) -> Row | None:
    """A summary, if there is one and all images ``ids`` are among the lines ``name`` beside it."""
    if not file.exists():
        return None
    held: Row = read_json(file, "remove it, to have it made again")
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
