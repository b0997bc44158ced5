"""What ``idc evaluate`` does: a model, data and a protocol put together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from idc import __version__
from idc import data as datasets
from idc.attacks.gradient import Attack
from idc.attacks.threat import Threat
from idc.commands.clean import own_answers
from idc.commands.fresh import same_in_fresh_process
from idc.commands.notes import notes
from idc.commands.opening import open_both
from idc.commands.plugins import plugin
from idc.commands.request import Request, write_request
from idc.cost import answer_cost, evaluation_cost
from idc.data.image_set import interleaved
from idc.errors import IDCError
from idc.evaluation.inside_record import found_in, note_inner
from idc.evaluation.inside_search import LOOKED_AT
from idc.evaluation.nested import held_in, note, read_larger
from idc.evaluation.panel import LABELS, write_panel
from idc.evaluation.protocol import PROTOCOLS, Protocol, build_protocol
from idc.evaluation.runner import KEPT, Problem, Runner
from idc.evaluation.sanity.bench import Bench, Finding, copied, run_checks
from idc.evaluation.sanity.checks import CHEAP, CHECKS
from idc.evaluation.sanity.discontinuity import margin_continuous
from idc.evaluation.sanity.gradients import gradients_along
from idc.evaluation.sanity.recorded import finite_check, nested_check, points_check, square_check
from idc.evaluation.sanity.slopes import gradient_is_the_answers
from idc.evaluation.summary import LINES, averages, read_costs, read_lines, summarise_lines
from idc.method.classifier import IDC
from idc.method.labels import gram_report
from idc.noise import Streams, derive_seed
from idc.progress import Bar
from idc.storage import records
from idc.storage.fields import recorded
from idc.storage.files import alone_in
from idc.storage.kinds import EVALUATION
from idc.text import default_eps, eps_text
from idc.types import Classifier

if TYPE_CHECKING:
    from accelerate import PartialState

Say = Callable[[str], object]
CHEAPLY = 16  # images that the checks of a short attack take
CHECKED = "sanity.jsonl"  # of the checks that are done, while others are not
_LIBRARIES = ("torch", "diffusers", "pyautoattack", "accelerate")


def build(request: Request, images: datasets.ImageSet, protocol: Protocol | None = None) -> Protocol:
    """The protocol that a request asks for, or the one that is given, with the request's draws, attacks, settings."""
    eps = default_eps(request.norm, images.shape[0]) if request.eps is None else request.eps
    threat = Threat(request.norm, eps)
    found: str | Protocol = protocol or request.protocol
    if isinstance(found, str) and ":" in found:
        expected = "a Protocol, or a function from a Threat to one"
        found = plugin(found, Protocol, lambda own: own if isinstance(own, Protocol) else own(threat), expected)
        if found.name in PROTOCOLS:
            raise IDCError(
                f"{request.protocol}, named {found.name!r}", "a protocol with a name of its own", "rename it"
            )
    if isinstance(found, Protocol) and request.eps is not None and found.threat != threat:
        own = f"{found.threat.norm} {eps_text(found.threat.eps)} of protocol {found.name}"
        raise IDCError(f"{request.norm} {eps_text(eps)}", own, "leave --eps out, or name a function of a Threat")
    attacks = {name: partial(_own_attack, name) for name in request.attacks}
    turns = {name: getattr(request, name) for name in ("draws", "steps", "eot", "restarts", "surrogate", "loss")}
    return build_protocol(found, threat, attacks=attacks, **turns)


def _own_attack(name: str, threat: Threat) -> Attack:
    expected = "a class or function that gives an attack when called with threat="
    found: Any = plugin(name, object, lambda own: own(threat=threat), expected)
    if not callable(found) or getattr(found, "threat", ...) not in (None, threat):
        which = "callable, whose .threat is that of the protocol, or None if it keeps to no ball"
        raise IDCError(name, f"{expected}: {which}", "let it take threat, keep it as .threat and have __call__")
    own: Attack = found
    return own


def evaluate(
    request: Request, out: Path, *, protocol: Protocol | None = None, larger: Path | None = None, say: Say = print
) -> dict[str, Any]:
    """Run a protocol; what is already done in ``out`` is not done again. Under ``accelerate launch`` the images are
    shared out over the processes.

    Args:
        request: what is asked.
        out: folder of the result.
        protocol: in place of the one that the request names.
        larger: the result of the same request but a larger radius: a protocol that nests does not attack what
            survived it, but for one in eight (see ``idc.evaluation.nested``). A result that was begun
            without it is finished without it, and adversarial images that are to be kept are all looked for.
        say: is told what a user may want to know.

    Returns:
        The summary, as in ``out/summary.json``; that of a finished run as it is.

    Raises:
        IDCError: if model, data and settings do not fit, or ``out`` cannot be written, holds anything else or is at
            work.
    """
    classifier, images = open_both(request, processes()[1])
    return evaluate_on(classifier, images, request, out, protocol=protocol, larger=larger, say=say, opens=True)


def evaluate_on(
    classifier: Classifier,
    images: datasets.ImageSet,
    request: Request,
    out: Path,
    *,
    protocol: Protocol | None = None,
    larger: Path | None = None,
    say: Say = print,
    opens: bool = False,
) -> dict[str, Any]:
    """``evaluate``, of a model and images that are there already, or that the request ``opens``."""
    state, device = processes()
    if protocol is not None:
        request = replace(request, protocol=protocol.name)
    runner = Runner(
        classifier, problem_of(request, images), build(request, images, protocol), out, request.model,
        seed=request.seed, chunk=request.batch_size, block=request.block, keep=request.keep, rank=state.process_index,
        world=state.num_processes, device=device,
    )  # fmt: skip
    protocol = runner.protocol
    untouched = copied(classifier) if protocol.attacks else None
    with at_work(out, state, KEPT, kind=EVALUATION):
        if state.is_main_process:
            _prepare(runner, larger if protocol.nests and not request.keep else None)
            one, _ = runner.problem.first(1, device)
            for line in (images.summary, *notes(request, protocol, runner.target(), one)):
                say(line)
            write_request(out / "request.json", request)
            if done := len(records.finished(out, LINES)):
                say(f"{done} of {len(images)} images are already done")
        state.wait_for_everyone()
        runner = replace(runner, larger=held_in(out))
        if finished := runner.finished():
            return finished if state.is_main_process else {}
        if protocol.tries_all:
            if state.is_main_process:
                first = runner.problem.first(LOOKED_AT, device)
                note_inner(out, classifier, *first, chunk=runner.chunk, name=runner.name, say=say)
            state.wait_for_everyone()
            runner = replace(runner, inside={inner.name: inner.of(classifier) for inner in found_in(out)})
        with Bar("images", total=len(images), quiet=not state.is_main_process) as bar:
            runner.run(bar.advance, bar.describe)
        state.wait_for_everyone()
        return _summarise(request, runner, images, untouched, say, opens) if state.is_main_process else {}


def _prepare(runner: Runner, larger: Path | None) -> None:
    """The folder of the result, and in it which images a larger radius leaves out."""
    out = runner.out
    begun = (out / "settings.json").exists()
    claim = read_larger(larger, runner.settings() | runner.answers()) if larger and not begun else None
    runner.prepare()
    if claim is not None:
        note(out, claim)
    elif larger is None and (held := held_in(out)) and held.spared:
        raise IDCError(out, "a result of attacks on every image", "choose another --out (this one is of nested: true)")


def processes() -> tuple["PartialState", torch.device]:
    """This process among those of ``accelerate launch`` or torchrun, and its device."""
    from accelerate import PartialState

    # One process may be busy for hours while others wait.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    return state, state.device if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def at_work(out: Path, state: "PartialState", *inside: str, kind: str) -> Iterator[None]:
    """These processes alone in the folder ``out`` of this kind, computing in full float32: TF32 would move points that
    lie at a decision's edge from one batch to another.

    Raises:
        IDCError: if others are in it, or it is of another kind; see ``alone_in``.
    """
    alone = alone_in(out, *inside, kind=kind) if state.is_main_process else nullcontext()
    with alone, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def problem_of(request: Request, images: datasets.ImageSet) -> Problem:
    """The images as an evaluation takes them: classes interleaved, so that a part of them has all."""
    about = {"source": request.data_name or request.data, "split": images.split, "fingerprint": images.fingerprint}
    order = interleaved(images.labels)
    return Problem(images.images[order], images.labels[order], images.ids[order], about)


def _summarise(
    request: Request,
    runner: Runner,
    images: datasets.ImageSet,
    untouched: Classifier | Exception | None,
    say: Say,
    opens: bool,
) -> dict[str, Any]:
    lines = read_lines(runner.out)
    summary = summarise_lines(lines, images.class_names)
    costs = read_costs(runner.out)
    target = runner.target()
    one, _, _ = runner.images(0)
    seconds = sum(costs["seconds"].values())
    dtype = torch.bfloat16 if runner.classifier.bf16 else torch.float32
    cost = evaluation_cost(target, one[:1], costs, seconds, dtype=dtype)
    cost["seconds_by_attack"] = {k: v / max(1, costs["images"]) for k, v in costs["seconds"].items()}
    anew = [same_in_fresh_process(request, runner.out, lines)] if opens and runner.protocol.sanity else []
    sanity = recorded([*_sanity(runner, lines, costs, untouched, say), *anew])
    summary |= {
        "protocol": runner.protocol.name,
        "adaptive": runner.protocol.adaptive,
        "reliable": all(f["passed"] for f in sanity),
        "sanity": sanity,
        "cost": cost,
        "answer": answer_cost(runner.classifier, runner.device),
        "flags": costs["flags"],
        "settings": _settings(request, runner),
    }
    if runner.protocol.name == "corruptions":
        summary["averages"] = averages(lines)
    if not runner.protocol.attacks:
        summary |= own_answers(request, runner, images)
    if isinstance(runner.classifier, IDC):
        summary["labels"] = recorded(gram_report(runner.classifier.labels[:LABELS]))  # of those that a report shows
    write_panel(runner, runner.out)
    (runner.out / CHECKED).unlink(missing_ok=True)
    return records.write(runner.out / "summary.json", summary)


def _settings(request: Request, runner: Runner) -> dict[str, Any]:
    return runner.settings() | circumstances(request, runner.classifier, runner.device, runner.world, _LIBRARIES)


def circumstances(
    request: Request, model: Classifier, device: torch.device, count: int, libraries: Sequence[str]
) -> dict[str, Any]:
    """For a record: the model and its answer, the machine with ``count`` processes, the versions."""
    config = model.config if isinstance(model, IDC) else None
    answer: dict[str, Any] = {"visits": list(config.visits), "eta": config.bridge.eta} if config else {}
    answer |= {"mirrored": True} if config and config.unet.mirrored else {}
    return answer | {
        "model": request.model,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": count,
        "versions": {"idc": __version__} | {name: version(name) for name in libraries},
    }


def _sanity(
    runner: Runner,
    lines: Sequence[dict[str, Any]],
    costs: dict[str, Any],
    untouched: Classifier | Exception | None,
    say: Say,
) -> list[Finding]:
    protocol, followed = runner.protocol, [*costs["backward"]]
    recorded_checks = [*finite_check(lines), *points_check(lines), *nested_check(lines)]
    if not protocol.attacks:
        return recorded_checks
    # A short attack has no room for all checks; the cheap ones are made of each.
    count = min(protocol.sanity or CHEAPLY, len(runner.problem))
    say(f"sanity checks on {count} images ...")
    images, classes, ids = runner.problem.part(slice(count), runner.device)
    pictures = runner.pictures()
    bench = Bench(
        runner.classifier, images, classes,
        Streams(ids, derive_seed(runner.seed, "sanity")), runner.protocol.threat,
        robust={line["id"]: line["robust"][0] / line["draws"] for line in lines},
        robust_draws=max(line["draws"] for line in lines), target=runner.target(),
        draws=10 if protocol.sanity else 2, untouched=untouched,
        worst=pictures["worst"] if pictures else None,
    )  # fmt: skip
    checks = CHECKS if protocol.sanity else CHEAP
    if not protocol.sanity and (followed or protocol.climbs or protocol.adaptive):
        # An attack that found no gradient to follow, or a wrong one, has attacked nothing.
        along = gradients_along(product(followed, protocol.objectives))
        checks = (*checks, along, margin_continuous, gradient_is_the_answers)
    with Bar("sanity checks", total=len(checks), quiet=not protocol.sanity, alike=False) as bar:
        found = run_checks(bench, checks, file=runner.out / CHECKED, advance=bar.advance)
    if protocol.sanity:
        return [*found, *square_check(lines), *recorded_checks]
    return [*found, *recorded_checks]
