"""What the commands share: where they print, and flags that several have."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from idc.errors import IDCError
from idc.text import count_text

_LEADS = os.environ.get("RANK", "0") == "0"  # of several processes (accelerate launch), one speaks
out = Console(soft_wrap=True, highlight=False, emoji=False, quiet=not _LEADS)
note = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False, quiet=not _LEADS)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)  # mistakes: every process's own

DATA_HELP = "digits (the default) | image folder by class | parquet file or folder | hub id"
SAVED_HELP = "a model's folder, a run's folder, a name of idc models, or a hub id"
MODEL_HELP = (
    f"{SAVED_HELP}; a peer: pyautoattack-resnet18, diffpure:..., zdc:..., rdc:... (see docs/peers.md); "
    "or package.module:factory for your own nn.Module"
)
Data = Annotated[str, typer.Option("--data", help="digits | image folder by class | parquet file or folder | hub id")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
ImageSize = Annotated[int | None, typer.Option("--image-size", help="resize to this; default: the data's own")]
Channels = Annotated[int | None, typer.Option("--channels", help="1, 3 or 4; default: the data's own")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="leave unreadable files out instead of stopping")]
OneStep = Annotated[bool, typer.Option("--one-step", help="answer after one network pass, without noise")]
Visits = Annotated[str | None, typer.Option("--visits", help="timesteps of IDC's answer, such as 3,0")]
Eta = Annotated[float | None, typer.Option("--eta", help="share of the noise in IDC's answer, 0 to 1")]


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C inside ends the program with a hint that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        note.print("interrupted; the same command goes on where this one was")
        raise typer.Exit(130) from None


def parse_visits(text: str | None) -> tuple[int, ...] | None:
    """Timesteps as ``--visits`` takes them. Raises IDCError for anything else."""
    if text is None:
        return None
    try:
        return tuple(int(v) for v in text.split(","))
    except ValueError as error:
        raise IDCError(f"visits {text!r}", "timesteps such as 3,1,0", "correct --visits") from error


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return count_text(value) if isinstance(value, int) else str(value)


def table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    found = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        number = isinstance(rows[0][name], int | float)
        whole = name == "preset"  # to be typed
        found.add_column(name.replace("_", " "), justify="right" if number else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        found.add_row(*(Text(cell(v)) for v in row.values()))  # plain text: a class may be called [red]
    out.print(found)
