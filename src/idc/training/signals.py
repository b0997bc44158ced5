"""Interrupting a training in good order."""

import signal
from types import FrameType
from typing import Self


class Signals:
    """Notes the first Ctrl-C or SIGTERM so that the loop can save; a second one ends the program at once."""

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> Self:
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: its owner handles signals
                break
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
