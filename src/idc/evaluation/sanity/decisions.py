"""A check by an attack that is told nothing but the answer's class."""

from idc.attacks.rays import RayS
from idc.evaluation.sanity.bench import Bench, Finding
from idc.text import counted

_IMAGES, _QUERIES, _OF_NOISE = 8, 2000, 4000  # the last of a stochastic model, for which draws are averaged
_SURE, _LET_PASS = 0.9, 1  # share of right draws of an image that survived the evaluation; how many of these may fall
_LUCK = 0.1  # no more right draws than that are a fall of a stochastic model, whose images may have survived by luck


def decisions_hurt_no_more(bench: Bench) -> Finding:
    """RayS, which is told the class alone, misleads no image that survived the evaluation.

    Scores and gradients may be those of another network than the one that decides, and that network unlike any which
    is trained to answer alike; whether an answer is wrong cannot be hidden.
    """
    name, remedy = "an attack on the class alone hurts no more", "give a surrogate of what decides, and no decoy"
    if bench.threat.norm != "linf":
        return Finding(name, True, "not asked: of L-inf alone", remedy)
    rows = (bench.white_each >= _SURE).nonzero().flatten()[:_IMAGES]
    if len(rows) <= _LET_PASS:
        return Finding(name, True, f"not asked: {counted(str(len(rows)), 'image')} survived the evaluation", remedy)
    images, classes, streams = bench.images[rows], bench.classes[rows], bench.streams.of("class alone").take(rows)
    queries, most = (_OF_NOISE, _LUCK) if bench.target.stochastic else (_QUERIES, 0.0)
    found = RayS(threat=bench.threat, queries=queries)(bench.target, images, classes, streams)
    right, _ = bench.target.judge(found, classes, streams.of("judge"), draws=bench.draws)
    broken = int((right.float().mean(0) <= most).sum())
    text = f"RayS breaks {broken} of {counted(str(len(rows)), 'image')} that survived the evaluation"
    return Finding(name, broken <= _LET_PASS, text, remedy)
