"""Files that appear whole or not at all: written under a temporary name beside the target, then renamed."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from idc.errors import IDCError


def _explain(path: Path, error: OSError) -> IDCError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return IDCError(path, "room on the disk", "free some space, or write elsewhere")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return IDCError(path, "a folder", "a file of that name is in the way: remove it or write elsewhere")
    return IDCError(path, f"a place that can be written ({error.strerror})", "choose another folder or its permissions")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of writing to ``path`` (no room, no permission, no folder) into an IDCError."""
    try:
        yield
    except OSError as error:
        raise _explain(path, error) from error
    except Exception as error:  # safetensors' and torch's Rust and C++ writers report the system's error as text
        text = str(error).lower()
        for code, words in (
            (errno.ENOSPC, "no space left"),
            (errno.EACCES, "permission denied"),
            (errno.EROFS, "read-only"),
        ):
            if words in text:
                raise _explain(path, OSError(code, os.strerror(code))) from error
        raise


def make_folder(path: Path) -> Path:
    """Create ``path`` and its parents, and prove that it can be written to.

    Raises:
        IDCError: if not.
    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    return path


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out of ``folder``, which is there, until the body ends or dies.

    Raises:
        IDCError: if one is in it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise IDCError(folder, "no other process at work in it", "wait for that one, or write elsewhere") from error
    except NotImplementedError:  # a file system without locks: better to work than not
        yield
        return
    except OSError as error:
        raise _explain(folder, error) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the body ends well it becomes ``path``, else nothing is left."""
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.part")
    try:
        with explained(path):
            part.touch()
            mode = part.stat().st_mode  # what the user's umask gives a new file; safetensors' writer is stricter
            yield part
            part.chmod(mode)
            os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the body ends well it takes the place of ``path``, else nothing is left.

    A reader that finds neither the old nor the new one (a kill between two renames) finds the old one as ``path.old``.
    """
    part, old = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.part"), path.with_name(f".{path.name}.old")
    try:
        with explained(path):
            part.mkdir(parents=True)
            yield part
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                os.rename(path, old)
            os.rename(part, path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
