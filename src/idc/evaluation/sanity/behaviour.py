"""Checks that an answer belongs to the image alone: not to its batch, to gradients being asked for, or to the past."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from idc.attacks.target import ANSWER, Tally, Target
from idc.errors import IDCError, lacks_memory
from idc.evaluation.sanity.bench import Bench, Finding
from idc.noise import Streams
from idc.types import Classifier

_IMAGES, _DRAWS = 8, 16
_NEAR = {False: 1e-3, True: 0.05}  # what rounding may change, in standard deviations of the logits; True: in bf16


def same_in_any_batch(bench: Bench) -> Finding:
    """One by one, in batches of other sizes and in other company, images are answered alike."""
    x, streams = _points(bench)
    whole = _ask(bench, bench.target, x, streams)
    rows = torch.arange(len(x), device=x.device)
    found = {
        f"in batches of {size}": torch.cat([_ask(bench, bench.target, x[r], streams.take(r)) for r in rows.split(size)],
                                           dim=1)
        for size in (1, 3)
    }  # fmt: skip
    size = max(len(x), min(4 * len(x), bench.target.chunk))
    many = rows.flip(0).repeat(4)[:size]
    crowd = torch.cat([x.flip(0), 1 - x, x.roll(1, -1), x.roll(1, -2)])[:size]
    company = _ask(bench, bench.target, crowd, streams.take(many))
    found[f"in a batch of {len(crowd)}"] = company[:, : len(x)].flip(1)
    remedy = "let nothing in the model depend on the batch: its size, its statistics, an image's place in it"
    return _finding("the same answer in any batch", bench, f"with a batch of {len(x)}", whole, found, remedy)


def same_with_gradients(bench: Bench) -> Finding:
    """Images are answered alike whether or not a gradient is asked for, or could be."""
    x, streams = _points(bench)
    plain = _ask(bench, bench.target, x, streams)
    with torch.enable_grad():
        found = {"where gradients are on": _ask(bench, bench.target, x, streams, grad=True)}
        asked = x.clone().requires_grad_(True)
        found["where one is asked for"] = _ask(bench, bench.target, asked, streams, grad=True)
    name = "the same answer with gradients"
    remedy = "answer all alike: nothing may depend on requires_grad or grad mode"
    finding = _finding(name, bench, "without gradients", plain, found, remedy)
    if isinstance(bench.untouched, Exception) or not finding.passed:
        return finding
    # Of new copies, which may keep what they compute; a model that takes gradients itself cannot be asked so by anyone.
    other = _ask(bench, _of_copy(bench, bench.untouched), x, streams)
    try:
        with torch.inference_mode():
            served = _ask(bench, _of_copy(bench, bench.untouched), x, streams)
    except (RuntimeError, IDCError) as error:
        if lacks_memory(error):
            raise
        return replace(finding, figure=f"{finding.figure}; in inference mode it stops")
    inferred = _finding(name, bench, "of a copy, without gradients", other, {"in inference mode": served}, remedy)
    return finding if inferred.passed else inferred


def same_as_before(bench: Bench) -> Finding:
    """A copy that was asked nothing answers the images, noisy and adversarial ones as the model does after all that it
    was asked; each is asked of a new copy."""
    name, remedy = "the same answer as before it was asked", "keep no memory of images, answers or calls in the model"
    x, streams = _points(bench)
    points = {"adversarial": bench.worst, "clean": bench.images[:_IMAGES], "noisy": x[-_IMAGES:]}
    asked = {kind: v for kind, v in points.items() if v is not None}
    now = {kind: _ask(bench, bench.target, v, _first(streams, len(v))) for kind, v in asked.items()}
    if isinstance(bench.untouched, Exception):
        then = {kind: _ask(bench, bench.target, v, _first(streams, len(v))) for kind, v in asked.items()}
        text = f"no copy could be made ({type(bench.untouched).__name__}): asked twice, "
    else:
        then, text = {}, ""
        for kind, v in asked.items():
            then[kind] = _ask(bench, _of_copy(bench, bench.untouched), v, _first(streams, len(v)))
    one, other = (torch.cat([*v.values()], dim=1) for v in (now, then))
    found = _finding(name, bench, f"{text}{', '.join(asked)} images", one, {"before the evaluation": other}, remedy)
    return found


def _of_copy(bench: Bench, untouched: Classifier) -> Target:
    """A copy that has been asked nothing."""
    return replace(bench.target.with_surrogates({}), answer=deepcopy(untouched), tally=Tally())


def _points(bench: Bench) -> tuple[Tensor, Streams]:
    """A few images, clean, adversarial ones that the evaluation found, and under random noise of the attack's size, and
    the streams of their random numbers."""
    count = max(1, min(_IMAGES, len(bench.images), bench.target.chunk // 3))
    rows = torch.arange(count, device=bench.images.device)
    noise = bench.threat.random(bench.images[rows], bench.streams.of("behaviour noise").take(rows))
    worst = bench.images[:0] if bench.worst is None else bench.worst[:count]
    own = bench.streams.of("behaviour").take(torch.cat([rows, rows[: len(worst)], rows]))
    return torch.cat([bench.images[rows], worst, noise]), own


def _first(streams: Streams, count: int) -> Streams:
    return streams.take(torch.arange(count, device=streams.ids.device))


def _ask(bench: Bench, target: Target, x: Tensor, streams: Streams, *, grad: bool = False) -> Tensor:
    """(draws, B, K): one draw of noise that can be repeated, several of noise that cannot."""
    with torch.set_grad_enabled(grad):
        found = []
        for draw in range(1 if bench.repeats else _DRAWS):
            with streams.feeding(range(draw, draw + 1)):
                found.append(target.ask(ANSWER, x).detach())
    return torch.stack(found)


def _finding(name: str, bench: Bench, what: str, one: Tensor, others: dict[str, Tensor], remedy: str) -> Finding:
    """Whether logits (draws, B, K) are the same but for rounding: for all images but one in eight, which may lie at an
    edge (of a rounding, of the largest of several) that the last digit decides."""
    counts = {how: int(_apart(one, other, bf16=bench.classifier.bf16).sum()) for how, other in others.items()}
    worst = max(counts, key=lambda how: counts[how])
    flipped = int((one.mean(0).argmax(1) != others[worst].mean(0).argmax(1)).sum())
    images = one.shape[1]
    text = f"{what}: {counts[worst]} of {images} logits differ {worst}, {flipped} answers"
    return Finding(name, counts[worst] <= images // 8, text, remedy)


def _apart(one: Tensor, other: Tensor, *, bf16: bool) -> Tensor:
    """(B,) whether mean logits differ by more than rounding does, and by more than seven standard errors of draws."""
    one, other = (torch.nan_to_num(v.double(), nan=0.0, posinf=1e30, neginf=-1e30) for v in (one, other))
    gap = (one.mean(0) - other.mean(0)).abs().amax(1)
    near = _NEAR[bf16] * one.std() + 1e-5 * one.abs().max()
    if len(one) > 1:
        near = near + 7 * ((one.var(0) + other.var(0)) / len(one)).sqrt().amax(1)
    return gap > near


CHECKS = (same_in_any_batch, same_with_gradients, same_as_before)
