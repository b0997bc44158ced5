"""What one can watch while a run goes on: progress bar, metrics.jsonl, TensorBoard."""

import json
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Self

from torch import Tensor

from idc.progress import Bar
from idc.storage import records
from idc.storage.files import explained, write_text
from idc.text import duration_text, epoch_text, visible
from idc.training.objective import Validation

_TIMED, _SETTLED = 20, 5  # steps after which the time left is estimated, and of these the first that are not typical
_WORTH_SAYING = 20.0  # seconds


class Monitor:
    """Progress bar (quiet when stderr is no terminal), one JSON line a record, TensorBoard.

    Args:
        out: the run's folder; None (a process other than the first) watches nothing.
        total, done: images in all, and before this start.
        step: the step this start begins at; later lines of metrics.jsonl, written before a kill, are dropped.
        judged: whether the line of the best weights has been written for good.
    """

    def __init__(self, out: Path | None, *, total: int, done: int, step: int, judged: bool = False) -> None:
        self.out, self.total, self.done, self.step, self.judged = out, total, done, step, judged
        self.seen: list[tuple[float, int]] = []  # when each of the first steps ended, and the images until then

    def __enter__(self) -> Self:
        self.bar = Bar("images", total=self.total, done=self.done, quiet=self.out is None)
        with ExitStack() as undo:
            undo.callback(setattr, threading, "excepthook", threading.excepthook)
            self.thread_failed, threading.excepthook = threading.excepthook, self._thread_failed
            if self.out is not None:
                with explained(self.out):
                    self._rewind(self.out / "metrics.jsonl")
                    self.file = undo.enter_context((self.out / "metrics.jsonl").open("a", encoding="utf-8"))
                    self.writer = _writer(self.out / "tensorboard", self.step)
                    if self.writer:
                        undo.callback(self.writer.close)
            self.undo = undo.pop_all()
        self.bar.__enter__()
        if self.out is not None and self.writer is None:
            self.say("nothing is written for TensorBoard: pip install 'idc-classifier[train]'")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bar.__exit__()
        with suppress(OSError) if kind or self.out is None else explained(self.out):
            self.undo.close()

    def _thread_failed(self, failure: Any) -> None:
        """TensorBoard writes in a thread, which a full disk ends: the next point that it is given raises the error."""
        if not issubclass(failure.exc_type, OSError):
            self.thread_failed(failure)

    def _rewind(self, file: Path) -> None:
        rows = (row for row in records.read(file) if isinstance(row.get("step"), int) and row["step"] <= self.step)
        kept = [row for row in rows if self.judged or not any(name.startswith("best/") for name in row)]
        write_text(file, "".join(f"{json.dumps(row)}\n" for row in kept))

    def advance(self, images: int, *, total: int | None = None) -> None:
        """``images`` more are done, of ``total`` if that is now known better. After the first steps it is said how long
        all of it will take."""
        self.bar.advance(images, total=total)
        self.total = total or self.total
        self.done += images
        if len(self.seen) <= _TIMED:
            self.seen.append((monotonic(), self.done))
            if len(self.seen) > _TIMED:
                self._estimate()

    def _estimate(self) -> None:
        rate = self._rate(self.seen[-1][0])
        if (left := (self.total - self.done) / rate) >= _WORTH_SAYING:
            self.say(f"{rate:,.0f} images a second: about {duration_text(left)} more, validations not counted")

    def _rate(self, now: float) -> float:
        """Images a second since the steps that are not typical."""
        began, before = self.seen[_SETTLED]
        return (self.done - before) / max(1e-9, now - began)

    def scalars(self, step: int, values: dict[str, float | str]) -> None:
        """One JSON line, and a TensorBoard point for each number."""
        if self.out is None:
            return
        with explained(self.out):
            for name, value in values.items() if self.writer else ():
                if not isinstance(value, str):
                    self.writer.add_scalar(name, value, step)
            self.file.write(json.dumps({"step": step} | values) + "\n")
            self.file.flush()

    def validation(self, step: int, found: Validation, *, epoch: float, seconds: float) -> None:
        """A validation: recorded, and said above the progress bar."""
        values = {f"validation/{k}": v for k, v in found.to_dict().items()}
        self.scalars(step, values | {"epoch": epoch, "seconds": seconds})
        self.say(f"epoch {epoch_text(epoch)}: validation {found.text()}, {seconds:.0f} s{self._left()}")

    def _left(self) -> str:
        """How long the rest will take at the rate so far, validations counted."""
        if len(self.seen) <= _SETTLED + 1:
            return ""
        left = (self.total - self.done) / self._rate(monotonic())
        return f", about {duration_text(left)} more" if left >= _WORTH_SAYING else ""

    def best(self, step: int, found: Validation, *, epoch: str) -> None:
        """The validation of the best weights, those of ``epoch``, at the end."""
        self.scalars(step, {f"best/{k}": v for k, v in found.to_dict().items()})
        self.say(f"best, of epoch {epoch}: validation {found.text()}")

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        if self.out is not None:
            self.bar.console.print(visible(text), highlight=False, soft_wrap=True)

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        """A (C, H, W) picture in [0, 1] for TensorBoard."""
        if self.out is not None and self.writer:
            with explained(self.out):
                self.writer.add_image(name, picture, step)


def _writer(folder: Path, step: int) -> Any:
    """TensorBoard's, whose points from ``step`` on are dropped; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step)
