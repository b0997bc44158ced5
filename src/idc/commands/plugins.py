"""What a user adds by name: ``package.module:object``, imported from the working folder too.

Only a user's own word imports code: a flag, a Python argument, a comparison's file. No saved model, run or result does.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from idc.errors import IDCError, foreign

T = TypeVar("T")


def is_plugin(name: object) -> bool:
    """Whether a text names an object of a module."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None


def respelled(name: str, usual: str) -> str | None:
    """What ``./mine:f``, ``mine.py:f`` or ``mine``, a module of the working folder, mean: ``mine:f``, or ``mine:usual``
    where no object is named; None for what means nothing of the kind."""
    path, _, named = name.partition(":")
    module = path.removeprefix("./").removesuffix(".py").replace("/", ".")
    meant = f"{module}:{named or usual}"
    known = named or Path(*module.split(".")).with_suffix(".py").is_file()
    return meant if known and meant != name and is_plugin(meant) else None


def plugin(name: str, kind: type[T] | tuple[type[T], ...], make: Callable[[Any], Any], expected: str) -> T:
    """What ``make`` gives for the object that ``name`` means.

    Args:
        name: ``package.module:object``.
        kind: of what ``make`` must give.
        make: calls the object as its kind of plug-in is called, say; its errors are the plug-in's.
        expected: what the object should be, for the error.

    Raises:
        IDCError: if there is no such object, ``make`` fails, or gives something else.
    """
    meant = respelled(name, "NAME")
    remedy = f"write {meant}" if meant else "correct the name"
    if not is_plugin(name):
        raise IDCError(name, "package.module:object", remedy)
    module, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        with foreign(name, f"{expected} that works"):
            try:
                found = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                expected = f"package.module:object that can be imported ({error})"
                raise IDCError(name, expected, remedy) from error
            made = make(found)
    finally:
        with suppress(ValueError):
            sys.path.remove(folder)
    if not isinstance(made, kind):
        raise IDCError(name, f"{expected} (this gives {type(made).__name__})", "name one, or let it return one")
    return made


class _Guarded:
    def __init__(self, own: object, name: str) -> None:
        self._own, self._name = own, name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._own, attribute)
        return foreign(self._name, f"a {attribute} that works")(found) if inspect.ismethod(found) else found


def guarded(own: T, name: str) -> T:
    """``own``, a plug-in of that name; what its methods raise is an ``IDCError`` that names it."""
    return cast(T, _Guarded(own, name))
