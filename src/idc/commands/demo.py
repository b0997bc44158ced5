"""What ``idc demo`` does: train on the digits, attack the result in a sweep and by ``quick``, write the reports."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.commands.sweep import run_sweep
from idc.commands.train import start_training
from idc.errors import IDCError
from idc.report.pictures import write_overview
from idc.report.results_page import write_report
from idc.storage.files import alone_in
from idc.storage.kinds import DEMO
from idc.text import percent, share

EPS = (0.05, 0.1, 0.2, 0.3)
DRAWS = 10
IMAGES = 100  # enough to tell the sizes apart, in minutes on two cores
QUICK_EPS, QUICK_IMAGES = 0.1, 20
_ANSWERS = ("multi-step", "one-step")  # and the folders of their sweeps

Say = Callable[[str], object]


def run_demo(
    out: Path, *, seed: int = 0, epochs: float | None = None, limit: int | None = None, say: Say = print
) -> Path:
    """Train, attack and report. An interrupted demo goes on where it stopped.

    Args:
        out: folder for ``run/`` (the training), ``multi-step/`` and ``one-step/`` (a sweep of either answer over
            ``EPS``), ``quick/``, and of these ``report.html``, ``quick.html`` and ``overview.png``.
        seed: of weights, order, noise and attack.
        epochs: of training; by default the recipe's, which reach full accuracy.
        limit: attack so many of the 539 test images, balanced by class, by default ``IMAGES``; ``quick`` takes 20 of
            them at most.
        say: takes a line for the user.

    Returns:
        ``out/report.html``.

    Raises:
        IDCError: if ``out`` cannot be written, is at work, or holds anything else, a demo of other settings, or one
            whose training was interrupted.
    """
    with alone_in(out, kind=DEMO):
        return _run(out, seed, epochs, limit, say)


def _run(out: Path, seed: int, epochs: float | None, limit: int | None, say: Say) -> Path:
    run = out / "run"
    changes = {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    say(f"training on scikit-learn's digits (TensorBoard: {run / 'tensorboard'})")
    if start_training("digits", run, recipe="digits", resume=run.is_dir(), changes=changes, say=say).stopped:
        raise IDCError(out, "a whole training run (this one was interrupted)", "run idc demo again: it goes on")
    limit = IMAGES if limit is None else limit
    request = Request(model=str(run / "best"), data="digits", limit=limit, seed=seed)
    _sweeps(request, out, say)
    _quick(replace(request, limit=min(limit, QUICK_IMAGES)), out, say)
    swept = [out / answer for answer in _ANSWERS]
    write_overview(swept, out / "overview.png")
    write_report([*swept, run], out / "report.html")
    return out / "report.html"


def _sweeps(request: Request, out: Path, say: Say) -> None:
    """Both answers over ``EPS``, by PGD along the model's first surrogate, a smooth one-step answer: its own has clamps
    and signs that hide its gradient."""
    request = replace(request, protocol="pgd", draws=DRAWS)
    over = f"eps={','.join(map(str, EPS))}"
    both = [
        run_sweep(replace(request, one_step=answer == "one-step"), over, out / answer, say=say) for answer in _ANSWERS
    ]
    many, one = (sweep["rows"] for sweep in both)
    clean = [share(rows[0]["clean"]["mean"]) for rows in (one, many)]
    say(f"clean test accuracy: {clean[0]} one-step, {clean[1]} multi-step (mean of {DRAWS} draws)")
    for a, b in zip(one, many, strict=True):
        say(
            f"PGD-20 at eps {a['text']}: {share(a['robust']['mean'])} one-step, {share(b['robust']['mean'])} "
            f"multi-step (random noise of that size: {share(b['noise']['mean'])})"
        )
    say("This is a basic attack: a stronger one can only lower these figures.")


def _quick(request: Request, out: Path, say: Say) -> None:
    """The quick protocol, and its report."""
    say(f"the quick protocol (a short adaptive attack) at eps {QUICK_EPS} on {request.limit} of these images alone ...")
    summary = evaluate(replace(request, protocol="quick", eps=QUICK_EPS), out / "quick", say=say)
    robust, clean = (
        [percent(summary[kind][name]["mean"]) for name in ("mean", "majority", "worst_of_n")]
        for kind in ("robust", "clean")
    )
    say(
        f"quick: {robust[0]} of draws right, {robust[1]} by majority, {robust[2]} in all {summary['draws']} draws "
        f"(clean: {', '.join(clean)})"
    )
    write_report([out / "quick"], out / "quick.html")
    say(f"its report: {out / 'quick.html'}")
