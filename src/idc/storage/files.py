"""Files that appear whole or not at all: written under a temporary name, then renamed; the lock on a folder at work."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from idc.errors import IDCError
from idc.storage.kinds import check_kind

_LEFT = re.compile(r"\.(.+)-[0-9a-f]{8}\.(part|old)")  # what ``_beside`` names


def _beside(path: Path, kind: str) -> Path:
    """A name of nobody else's beside ``path``: of a ``part`` of it that is being written, or of the ``old`` one."""
    return path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.{kind}")


def _explain(path: Path, error: OSError) -> IDCError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return IDCError(path, "room on the disk", "free some space, or write elsewhere")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return IDCError(path, "a folder", "a file of that name is in the way: remove it or write elsewhere")
    return IDCError(path, f"a place that can be written ({error.strerror})", "choose another folder or its permissions")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of writing to ``path`` (no room, no permission, no folder) into an IDCError; so is a name that is
    no UTF-8, with which TensorBoard, torch and onnx cannot deal."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise IDCError(path, "a name in UTF-8", "choose another name") from error
    try:
        yield
    except OSError as error:
        raise _explain(path, error) from error
    except Exception as error:  # safetensors' and torch's Rust and C++ writers report the system's error as text
        text = str(error).lower()
        for code, words in (
            (errno.ENOSPC, "no space left"),
            (errno.ENOSPC, "unexpected pos"),  # torch.save's words: less was written than it gave
            (errno.ENOSPC, "iostream error"),
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
        probe = _beside(path / "write", "part")
        probe.touch()
        probe.unlink()
    return path


@contextlib.contextmanager
def alone_in(folder: Path, *inside: str, kind: str = "") -> Iterator[None]:
    """Make ``folder``, and keep other processes that ask for the same out of it until the body ends or dies.

    What a killed process has left half-written in it, and in its folders ``inside``, is removed first. A new folder in
    which nothing is written goes again.

    Args:
        kind: of the folder, see ``idc.storage.kinds``; "" for any.

    Raises:
        IDCError: if one is in it, it is of another kind, or it cannot be written to.
    """
    from filelock import FileLock, Timeout

    if kind:
        check_kind(folder, kind)
    new = not folder.exists()
    make_folder(folder)
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
        for place in (folder, *(folder / name for name in inside)):
            remove_left_over(place)
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        if new:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def remove_left_over(folder: Path, idle: float = 0) -> None:
    """Remove what killed writers have left half-written in ``folder``, if nothing was added to it for ``idle`` seconds;
    a folder that one was about to replace is itself again. Nobody else may be writing there for as short a time."""
    for path in folder.glob(".*"):
        found = _LEFT.fullmatch(path.name)
        with contextlib.suppress(OSError):
            if found is None or time.time() - path.lstat().st_mtime < idle:
                continue
            if found[2] == "old" and not path.with_name(found[1]).exists():
                path.rename(path.with_name(found[1]))
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the body ends well it becomes ``path``, else nothing is left."""
    part = _beside(path, "part")
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

    After a kill between two renames neither is there until ``remove_left_over`` gives the old one its name back.
    """
    part, old = _beside(path, "part"), _beside(path, "old")
    try:
        with explained(path):
            part.mkdir(parents=True)
            yield part
            if path.exists():
                os.rename(path, old)
            os.rename(part, path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with whole_file(path) as part:
        # A path's bytes that are no UTF-8 as \udce9, which JSON reads again.
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def parse_json(text: str | bytes, **how: Any) -> Any:
    """``json.loads`` of what may have come from anywhere. Raises ValueError for brackets without end too."""
    try:
        return json.loads(text, **how)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def digest(values: Any) -> str:
    """SHA-256 of JSON-ready values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
