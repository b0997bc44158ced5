"""Whether a gradient that the attack can follow is the one that the answer has, as measured by small steps."""

import torch
from torch import Tensor
from torch.nn import functional as F

from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER
from idc.evaluation.sanity.bench import Bench, Finding, not_made
from idc.text import counted, percent

_IMAGES, _WAYS, _DRAWS = 8, 12, 8
_APART, _FOLLOWED = 0.25, 0.85  # of slopes by two sizes of step, relative; cosine of slopes with the gradient's


def gradient_is_the_answers(bench: Bench) -> Finding:
    """Along random directions the margin of the real answer changes as the gradient of one of its functions says, on
    images that survived the evaluation: a gradient that is right for some of the pixels alone still rises, but leads an
    attack astray. Central differences; where steps of two sizes find other slopes (a quantiser, half precision), there
    is none to compare with.
    """
    name = "a gradient is that of the answer"
    remedy = "give a surrogate whose gradient is the answer's, at all pixels"
    rows = (bench.white_each >= 0.5).nonzero().flatten()[:_IMAGES]
    if not len(rows) or bench.threat.eps == 0:
        return not_made(name, "no image survived an attack")
    if not bench.repeats:
        return not_made(name, "the answer has noise of its own")
    step = min(max(bench.threat.eps / 8, 1e-3), 0.01)
    images = bench.images[rows].clamp(4 * step, 1 - 4 * step)  # steps of both ways stay within [0, 1]
    random = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (_WAYS, *images.shape), generator=random).to(images) * 2 - 1
    found = [_measured(bench, images, rows, signs, size) for size in (step, 2 * step)]
    apart = ((found[1] - found[0]).norm(dim=0) / found[0].norm(dim=0)).nan_to_num(1.0).median().item()
    if apart > _APART:
        return not_made(name, f"slopes of steps of two sizes differ by {percent(apart)}")
    classes, streams = bench.classes[rows], bench.streams.of("slopes").take(rows)
    best, function = -1.0, ANSWER
    for own in (ANSWER, *bench.target.surrogates):
        if best < _FOLLOWED:
            _, gradient, _ = bench.target.gradient(
                own, images, classes, streams, objective=Margin(), draws=_draws(bench)
            )
            score = _cosine((gradient * signs).flatten(2).sum(2), found[0])
            best, function = (score, own) if score > best else (best, function)
    text = f"slopes along {_WAYS} directions are {best:.2f} alike on {counted(str(len(rows)), 'image')} ({function})"
    return Finding(name, best >= _FOLLOWED, text, remedy)


def _draws(bench: Bench) -> int:
    return _DRAWS if bench.target.stochastic else 1


def _measured(bench: Bench, images: Tensor, rows: Tensor, signs: Tensor, size: float) -> Tensor:
    """(directions, B) slopes of the margin by central differences, under the same noise everywhere."""
    points = torch.stack([images + size * signs, images - size * signs]).flatten(0, 2)
    each = rows.repeat(2 * len(signs))
    streams = bench.streams.of("slopes").take(each)
    margins = -bench.target.judge(points, bench.classes[each], streams, draws=_draws(bench))[1]
    ahead, behind = margins.view(2, len(signs), len(rows))
    return (ahead - behind) / (2 * size)


def _cosine(one: Tensor, other: Tensor) -> float:
    """Of the slopes of each image, the median over images."""
    return F.cosine_similarity(one.double(), other.double(), dim=0).median().item()
