"""A check by an attack that is told nothing but the answer's class."""

from idc.attacks.rays import RayS
from idc.evaluation.sanity.bench import Bench, Finding
from idc.text import counted

_IMAGES, _QUERIES, _OF_NOISE = 8, 2000, 4000  # the last of a stochastic model, for which draws are averaged
_LET_PASS = 1  # so many of these may fall
_FALL, _DRAWS = 0.25, 40  # so much of its right draws left is a fall; of so many draws, as it may have survived by luck


def decisions_hurt_no_more(bench: Bench) -> Finding:
    """RayS, which is told the class alone, misleads no image that survived the evaluation: of those with more right
    draws than wrong ones, the surest. They are judged by draws enough to tell a fall from an answer that wavers.

    Scores and gradients may be those of another network than the one that decides, and that network unlike any which
    is trained to answer alike; whether an answer is wrong cannot be hidden.
    """
    name, remedy = "an attack on the class alone hurts no more", "give a surrogate of what decides, and no decoy"
    if bench.threat.norm != "linf":
        return Finding(name, True, "not asked: of L-inf alone", remedy)
    surest = bench.white_each.sort(descending=True, stable=True)
    rows = surest.indices[surest.values > 0.5][:_IMAGES]
    if len(rows) <= _LET_PASS:
        return Finding(name, True, f"not asked: {counted(str(len(rows)), 'image')} survived the evaluation", remedy)
    images, classes, streams = bench.images[rows], bench.classes[rows], bench.streams.of("class alone").take(rows)
    queries, draws = (_OF_NOISE, _DRAWS) if bench.target.stochastic else (_QUERIES, 1)
    found = RayS(threat=bench.threat, queries=queries)(bench.target, images, classes, streams)
    right, _ = bench.target.judge(found, classes, streams.of("judge"), draws=draws)
    broken = int((right.float().mean(0) <= _FALL * bench.white_each[rows]).sum())
    text = f"RayS breaks {broken} of {counted(str(len(rows)), 'image')} that survived the evaluation"
    return Finding(name, broken <= _LET_PASS, text, remedy)
