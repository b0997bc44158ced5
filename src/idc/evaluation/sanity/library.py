"""AutoAttack as its own library runs it, beside an evaluation by attacks of ours."""

from dataclasses import replace

import torch

from idc.attacks.target import Tally
from idc.attacks.third_party import AutoAttack
from idc.evaluation.sanity.bench import Bench, Finding, not_made

IMAGES = 4
_SURELY = 0.9  # share of right draws: what is closer to half may change sides by itself
_RANDOM = "randomized defense"
_ALARMS = ("zero gradient", "Square Attack has decreased", _RANDOM, "dynamic defense", "probability")


def autoattack_finds_no_more(bench: Bench) -> Finding:
    """It breaks none, but for one perhaps, of a few images that survived all attacks of the evaluation, and raises no
    flag."""
    name = "AutoAttack's library finds no more"
    if bench.threat.norm == "l1":
        return not_made(name, "the library knows no L1")
    survived = [row for row, i in enumerate(bench.streams.ids.tolist()) if (bench.robust or {}).get(i, 0) >= _SURELY]
    rows = torch.tensor(survived[:IMAGES], dtype=torch.int64, device=bench.images.device)
    if not len(rows):
        return not_made(name, "no image survived the evaluation")
    target = replace(bench.target, tally=Tally())
    images, classes, streams = bench.images[rows], bench.classes[rows], bench.streams.of("library").take(rows)
    found = AutoAttack(threat=bench.threat)(target, images, classes, streams)
    right, _ = target.judge(found, classes, streams.of("judge"), draws=bench.draws)
    broken = int((right.double().mean(0) <= 0.5).sum())
    alarms = [word for word in _ALARMS if not (bench.classifier.stochastic and word == _RANDOM)]  # it says so itself
    raised = [flag.split(".")[0] for flag in target.tally.flags if any(word in flag for word in alarms)]
    text = f"it broke {broken} of {len(rows)} images that survived the evaluation; {'; '.join(raised) or 'no flag'}"
    remedy = "gradients that vanish or mislead need a surrogate; report --protocol autoattack beside this"
    return Finding(name, broken <= 1 and not raised, text, remedy)
