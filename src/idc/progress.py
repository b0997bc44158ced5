"""A progress bar with rate and time left; quiet where stderr is no terminal."""

import sys
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """Counts ``name`` up to ``total``.

    Args:
        name: what is counted.
        total: of them.
        done: before this start.
        quiet: show nothing even on a terminal.
        alike: whether one takes about as long as another: else nothing is said of rate and time left.
    """

    def __init__(self, name: str, *, total: int, done: int = 0, quiet: bool = False, alike: bool = True) -> None:
        self.console = Console(stderr=True, markup=False, emoji=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            *([TextColumn("{task.fields[rate]}")] if alike else []), TimeElapsedColumn(),
            *([TimeRemainingColumn()] if alike else []), console=self.console,
            disable=quiet or not sys.stderr.isatty(),
        )  # fmt: skip
        self.task = self.progress.add_task(name, total=total, completed=done, rate="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def describe(self, text: str) -> None:
        """What is being done now."""
        self.progress.update(self.task, description=text)

    def advance(self, count: int, *, total: int | None = None) -> None:
        """``count`` more are done, and the whole is now ``total`` if that is given."""
        if self.progress.disable:
            return
        speed = self.progress.tasks[0].speed
        rate = "" if not speed else f"{speed:.0f}/s" if speed >= 10 else f"{speed:.2g}/s"
        self.progress.update(self.task, advance=count, rate=rate, total=total)
