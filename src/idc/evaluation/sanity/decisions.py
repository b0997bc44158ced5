"""A check by an attack that is told nothing but the answer's class."""

import torch
from scipy.stats import hypergeom

from idc.attacks.rays import RayS
from idc.evaluation.sanity.bench import Bench, Finding, not_made
from idc.text import counted

_IMAGES, _QUERIES, _OF_NOISE = 8, 2000, 4000  # the last of a stochastic model, for which draws are averaged
_LET_PASS = 1  # so many of these may fall
_DRAWS, _CHANCE = 40, 0.01  # of the noise that judge RayS's images; so likely, fewer right draws are no fall


def decisions_hurt_no_more(bench: Bench) -> Finding:
    """RayS, which is told the class alone, misleads no image that survived the evaluation: of those with more right
    draws than wrong ones, the first. One of a stochastic model is misled if more draws are wrong than right now, and
    fewer right than chance would make of those that the evaluation left (Fisher's exact test).

    Scores and gradients may be those of another network than the one that decides, and that network unlike any which
    is trained to answer alike; whether an answer is wrong cannot be hidden.
    """
    name, remedy = "an attack on the class alone hurts no more", "give a surrogate of what decides, and no decoy"
    if bench.threat.norm != "linf":
        return not_made(name, "made in L-inf alone")
    rows = (bench.white_each > 0.5).nonzero().flatten()[:_IMAGES]
    if len(rows) <= _LET_PASS:
        return not_made(name, f"{counted(str(len(rows)), 'image')} survived the evaluation")
    images, classes, streams = bench.images[rows], bench.classes[rows], bench.streams.of("class alone").take(rows)
    queries, draws = (_OF_NOISE, _DRAWS) if bench.target.stochastic else (_QUERIES, 1)
    found = RayS(threat=bench.threat, queries=queries)(bench.target, images, classes, streams)
    right = bench.target.judge(found, classes, streams.of("judge"), draws=draws)[0].sum(0).cpu()
    then = (bench.white_each[rows] * bench.robust_draws).round().cpu()
    chance = hypergeom.cdf(right, bench.robust_draws + draws, right + then, draws)
    lost = (2 * right < draws) & (torch.from_numpy(chance) <= _CHANCE if bench.target.stochastic else True)
    broken = int(lost.sum())
    text = f"RayS breaks {broken} of {counted(str(len(rows)), 'image')} that survived the evaluation"
    return Finding(name, broken <= _LET_PASS, text, remedy)
