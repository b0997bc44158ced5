"""What a user adds by name: ``package.module:object``, imported from the working folder too.

Only a user's own word imports code: a flag, a Python argument, a comparison's file. No saved model, run or result does.
"""

import importlib
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from idc.errors import IDCError

T = TypeVar("T")


def is_plugin(name: object) -> bool:
    """Whether a text names an object of a module."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None


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
    module, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise IDCError(name, f"package.module:object that can be imported ({error})", "correct the name") from error
        made = make(found)
    except IDCError:
        raise
    except Exception as error:
        raise IDCError(name, f"{expected} that works ({type(error).__name__}: {error})", "fix it") from error
    finally:
        with suppress(ValueError):
            sys.path.remove(folder)
    if not isinstance(made, kind):
        raise IDCError(name, f"{expected} (this gives {type(made).__name__})", "fix it")
    return made
