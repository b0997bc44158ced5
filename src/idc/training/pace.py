"""How far a run has come: by the steps that its epochs make, or by the clock (``--minutes``)."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from idc.training.settings import Settings

_RESERVE = 0.06  # share of the time that is kept for the end of a run, before it is known what that takes
_PLANNED = 0.1  # share after which it has to be known
_JUDGED = 0.05  # share in which the best weights are judged, at most, but for
_LEAST = 100  # images, fewer than which say nothing: a run of a minute may last longer for it
_PAUSES = 10  # the next validation, or checkpoint, comes when so many times the last one's cost has gone by
_TOGETHER = 10  # steps between two looks of several processes at the first one's clock: each is a synchronisation


class Pace:
    """By steps: those that are planned are the whole run.

    Args:
        steps: of the schedule.
    """

    wants_figures = False  # of what the end of the run will take

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.before, self.done = 0.0, 0.0

    @property
    def last(self) -> int | None:
        """The step with which the run ends, where that is known."""
        return self.steps

    @property
    def share(self) -> float:
        """Of the schedule that lies behind, in [0, 1]."""
        return min(1.0, self.done / self.steps)

    @property
    def ended(self) -> bool:
        """Whether the whole schedule lies behind."""
        return self.done >= self.steps

    @property
    def clock(self) -> dict[str, float]:
        """What a checkpoint keeps of it: nothing of a run by steps."""
        return {}

    def go_on(self, step: int, clock: dict[str, float], *, finished: bool) -> None:
        """Begin at a checkpoint of ``step`` with what it kept, maybe of a run that has ended."""
        self.reach(step)

    def reach(self, step: int) -> None:
        """So many steps are done."""
        self.before, self.done = self.done, float(step)

    def share_at(self, step: int) -> float:
        """Of the schedule that lies behind before ``step`` is made."""
        return step / self.steps

    def due(self, kind: str, every: int) -> bool:
        """Whether a multiple of ``every`` steps of the schedule has been reached, and with it the next ``kind``."""
        return self.done // every > self.before // every

    def updates(self, made: int, accumulation: int) -> int:
        """Updates of the schedule that lie behind, of which so many were ``made``."""
        return made

    def expected(self, step: int) -> int:
        """Steps of the whole run, as far as can be known at ``step``."""
        return self.steps

    @contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        """Inside, the run does not train: ``kind`` is "validation" or "files"."""
        yield

    def plan_end(self, seconds: float, images: int) -> int:
        """How many of so many ``images`` the best weights may be judged on, each of which takes ``seconds``, and on as
        many that they were trained on."""
        return images


class Clock(Pace):
    """By the clock: the schedule is stretched, or shortened, to some seconds, what comes at the run's end included.

    Such a run is not the same a second time, nor when it is resumed.

    Args:
        seconds: of the run.
        began: ``time.monotonic`` of its beginning.
        agreed: gives all processes the first one's numbers; None if there is one process.
        now: the clock.
    """

    def __init__(
        self,
        steps: int,
        seconds: float,
        *,
        began: float,
        agreed: Callable[[list[float]], list[float]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(steps)
        self.seconds, self.began, self.agreed, self.now = seconds, began, agreed, now
        self.earlier, self.reserve = 0.0, _RESERVE * seconds
        self.lost, self.started = 0.0, False  # before first steps: loading, compiling
        self.planned, self.ready = False, True
        self.cost: dict[str, float] = {}
        self.next = 0.0  # when the next pause may be
        self.owed: set[str] = set()

    @property
    def last(self) -> None:
        return None

    @property
    def spent(self) -> float:
        """Seconds so far, those of earlier starts included."""
        return self.earlier + self.now() - self.began

    @property
    def wants_figures(self) -> bool:  # type: ignore[override]
        return not self.planned and self.share >= _PLANNED

    @property
    def clock(self) -> dict[str, float]:
        return {"spent": self.spent, "lost": self.lost}

    def go_on(self, step: int, clock: dict[str, float], *, finished: bool) -> None:
        self.earlier, self.lost = clock.get("spent", 0.0), clock.get("lost", 0.0)
        if finished:
            self.planned, self.done = True, float(self.steps)
        else:
            self._look()

    def share_at(self, step: int) -> float:
        return self.share

    def reach(self, step: int) -> None:
        if not self.started:  # the first step compiles
            self.started, self.lost = True, self.lost + self.spent - self.earlier
        self.before = self.done
        if self.agreed is None or step % _TOGETHER == 0:
            self._look()

    def _look(self) -> None:
        whole = max(1e-9, self.seconds - self.reserve - self.lost)
        found = [min(1.0, max(0.0, self.spent - self.lost) / whole), float(self.spent >= self.next)]
        share, ready = self.agreed(found) if self.agreed else found
        self.done, self.ready = self.steps * share, bool(ready)

    def due(self, kind: str, every: int) -> bool:
        if super().due(kind, every):
            self.owed.add(kind)
        if kind not in self.owed or not self.ready:
            return False
        self.owed.discard(kind)
        return True

    def updates(self, made: int, accumulation: int) -> int:
        return int(self.done // accumulation)

    def expected(self, step: int) -> int:
        return max(step, round(step / self.share)) if step and self.share else step + self.steps

    @contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        began = self.now()
        yield
        self.cost[kind] = self.now() - began
        self.next = self.spent + _PAUSES * sum(self.cost.values())

    def plan_end(self, seconds: float, images: int) -> int:
        many = min(images, max(_LEAST, int(_JUDGED * self.seconds / max(2 * seconds, 1e-9))))
        # The last validation, and that of the best weights on so many images and on as many training images.
        end = self.cost.get("validation", 0.0) + 2 * self.cost.get("files", 0.0) + 2 * many * seconds
        self.planned, self.reserve = True, min(end, max(0.0, self.seconds - self.lost) / 2)
        return many


def build_pace(recipe: Settings, steps: int, accelerator: Accelerator, *, began: float | None) -> Pace:
    """By the clock if the recipe has ``minutes``, counted from ``began`` (now, if None), else by ``steps``."""
    if not recipe.minutes:
        return Pace(steps)

    def agreed(values: list[float]) -> list[float]:
        given = torch.tensor(values, device=accelerator.device)
        torch.distributed.broadcast(given, 0)
        found: list[float] = given.tolist()
        return found

    return Clock(
        steps,
        60 * recipe.minutes,
        began=time.monotonic() if began is None else began,
        agreed=agreed if accelerator.num_processes > 1 else None,
    )
