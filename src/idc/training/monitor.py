"""What one can watch while a run goes on: progress bar, metrics.jsonl, TensorBoard."""

import json
from pathlib import Path
from typing import Any, Self

import torch

from idc.classifier import IDC
from idc.data import ImageSet
from idc.files import explained, write_text
from idc.progress import Bar
from idc.training.validation import CleanAccuracy


class Monitor:
    """Progress bar (quiet when stderr is no terminal), one JSON line a record, TensorBoard.

    Args:
        out: the run's folder; None (a process other than the first) watches nothing.
        total, done: images in all, and before this start.
        step: the step this start begins at; later lines of metrics.jsonl, written before a kill, are dropped.
    """

    def __init__(self, out: Path | None, *, total: int, done: int, step: int) -> None:
        self.out, self.total, self.done, self.step = out, total, done, step

    def __enter__(self) -> Self:
        self.bar = Bar("images", total=self.total, done=self.done, quiet=self.out is None)
        self.writer: Any = None
        if self.out is not None:
            with explained(self.out):
                self._rewind(self.out / "metrics.jsonl")
                from torch.utils.tensorboard import SummaryWriter

                self.file = (self.out / "metrics.jsonl").open("a", encoding="utf-8")
                self.writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step)
        self.bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.__exit__()
        if self.writer is not None:
            self.writer.close()
            self.file.close()

    def _rewind(self, file: Path) -> None:
        if not file.exists():
            return
        kept = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line)
            except (ValueError, KeyError):  # a line cut short by a kill
                continue
        write_text(file, "".join(f"{line}\n" for line in kept))

    def advance(self, images: int) -> None:
        """``images`` more are done."""
        self.bar.advance(images)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One JSON line and a TensorBoard point for each value."""
        if self.writer is None:
            return
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        with explained(Path(self.file.name)):
            self.file.write(json.dumps({"step": step} | values) + "\n")
            self.file.flush()

    def accuracy(self, step: int, accuracy: CleanAccuracy, *, epoch: float, seconds: float) -> None:
        """A validation: recorded, and said above the progress bar."""
        values = {f"validation/{k}": v for k, v in accuracy.to_dict().items()}
        self.scalars(step, values | {"epoch": epoch, "seconds": seconds})
        if self.out is not None:
            self.bar.console.print(
                f"epoch {epoch:g}: validation accuracy {accuracy.one_step:.1%} one-step, "
                f"{accuracy.multi_step:.1%} multi-step ({accuracy.images} images, {accuracy.draws} draw"
                f"{'s' if accuracy.draws > 1 else ''}, {seconds:.0f} s)",
                highlight=False,
                soft_wrap=True,
            )

    def translations(self, step: int, model: IDC, data: ImageSet, *, count: int = 8) -> None:
        """A grid in TensorBoard: images, their one-step and multi-step translations, their true labels."""
        if self.writer is None:
            return
        images = data.images[:count].float().div(255)
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            one = model.translate(images, visits=model.one_step_visits)
            many = model.translate(images, generator=random)
        rows = [images, one, many, model.labels[data.labels[:count]]]
        grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        self.writer.add_image("image, one-step, multi-step, label", grid.clamp(0, 1).float().cpu(), step)
