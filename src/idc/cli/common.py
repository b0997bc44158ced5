"""What the commands share: where they print, and flags that several have."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from idc.storage.fields import recorded
from idc.storage.hub import check_path
from idc.text import count_text, visible


class _Plain(Console):
    """Prints what it is given as it is: a class may be called [red], a file anything at all."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(soft_wrap=True, markup=False, highlight=False, emoji=False, **settings)

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **how)


UNRELIABLE = 3  # exit code: there is a result, and a sanity check of it failed
_LAUNCHED = ("WORLD_SIZE", "TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # torchrun or accelerate launch
_LEADS = os.environ.get("RANK", "0") == "0"  # of several processes (accelerate launch), one speaks
out = _Plain(quiet=not _LEADS)
note = _Plain(stderr=True, quiet=not _LEADS)
err = _Plain(stderr=True)  # mistakes: every process's own

Out = Annotated[Path, typer.Option("--out", help="folder of the result; what it already holds is not done again")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C inside ends the program with a hint that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        note.print("interrupted; the same command goes on where this one was")
        raise typer.Exit(130) from None


def end_unless(reliable: bool) -> None:
    """End the program with the exit code for a result that is written but not to be quoted; not under a launcher, which
    would take it for a crash."""
    if not reliable and not any(name in os.environ for name in _LAUNCHED):
        raise typer.Exit(UNRELIABLE)


def check_paths(*sources: str | None) -> None:
    """Refuse mistyped paths of models and data before what takes seconds to import, see ``hub.check_path``."""
    for source in filter(None, sources):
        check_path(source)


def print_json(value: Any) -> None:
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    sys.stdout.write(json.dumps(recorded(value), indent=2, ensure_ascii=not unicode) + "\n")


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return count_text(value) if isinstance(value, int) else visible(str(value))


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows under the columns that any of them has, in the order in which they come; what a row lacks is empty."""
    from rich.table import Table
    from rich.text import Text

    found = Table(title=Text(visible(title)), title_justify="left")
    first = {name: value for row in reversed(rows) for name, value in row.items()}  # of each column
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        number = isinstance(first[name], int | float)
        whole = name in ("preset", "image")  # to be typed
        found.add_column(name.replace("_", " "), justify="right" if number else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        found.add_row(*(Text(cell(row[name])) if name in row else "" for name in columns))
    if "image" in columns:  # a path is not broken: wider than the terminal is better
        found.width = out.measure(found, options=out.options.update(width=10_000)).maximum
    out.print(found)
