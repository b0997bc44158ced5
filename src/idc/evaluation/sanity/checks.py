"""Checks that an evaluation can be believed: findings as data, each with what to do about it.

After fra31/auto-attack's checks, "On evaluating adversarial robustness" (Carlini et al., 2019), "Indicators of attack
failure" (Pintor et al., NeurIPS 2022) and the pitfalls of the published evaluation
(probabilities as logits, a seed inside the model, clamps without gradient).
"""

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from idc.attacks.gradient import apgd, fgsm, pgd
from idc.attacks.objective import CrossEntropy, Margin
from idc.attacks.target import ANSWER
from idc.errors import IDCError
from idc.evaluation.sanity.behaviour import same_as_before, same_in_any_batch, same_with_gradients
from idc.evaluation.sanity.bench import Bench, Check, Finding, not_made
from idc.evaluation.sanity.decisions import decisions_hurt_no_more
from idc.evaluation.sanity.discontinuity import margin_continuous, whole_levels_hurt_no_more
from idc.evaluation.sanity.gradients import answer_follows_gradient, gradients_useful
from idc.evaluation.sanity.library import autoattack_finds_no_more
from idc.evaluation.sanity.slopes import gradient_is_the_answers
from idc.evaluation.sanity.substitutes import transfer_is_weaker
from idc.evaluation.verdict import plurality
from idc.text import percent
from idc.types import answered

_REACHED = 0.05  # right under an unbounded attack: as good as none

# -- the interface -----------------------------------------------------------------------------------------------------


def images_used_as_given(bench: Bench) -> Finding:
    """Images lie in [0, 1], and the model is neither more accurate nor surer of the true class on another scaling.

    Compared image by image. More accurate: by more than two standard errors. Surer: the margin in units of the logits'
    spread, which no scale of the logits moves, is positive and has grown by a fifth of that spread and more than three
    standard errors (four, of 24 images), and no answer is lost on the whole. Twenty images then tell what an accuracy
    of 95% against 100% does not. Not of a model with noise, which a larger scale makes surer for being less noise.
    """
    x, n = bench.images, len(bench.images)
    low, high = (v.item() for v in torch.aminmax(x))
    others = {
        "x * 255": x * 255, "x / 255": x / 255, "2x - 1": 2 * x - 1, "(x + 1) / 2": (x + 1) / 2, "1 - x": 1 - x,
        "normalised per channel": (x - x.mean((0, 2, 3), True)) / x.std((0, 2, 3), keepdim=True).clamp(min=1e-6),
    }  # fmt: skip
    given, own = _right_and_sure(bench, x, "given")
    found, better = {"none taken": 0.0}, list[str]()
    for name, images in others.items():
        try:
            right, sure = _right_and_sure(bench, images, name)
        except (IDCError, RuntimeError, ValueError):  # a model that refuses what is out of range
            continue
        found[name] = right.mean().item()
        more, surer = right - given, sure - own
        accurate = more.mean() > max(bench.margin / 2, 2 * _error(more))
        grown = surer.mean() > max(0.2, (3 + 24 / n) * _error(surer)) and not bench.classifier.stochastic
        if accurate or (grown and more.mean() >= 0 < sure.mean()):
            better.append(name)
    best = max(found, key=lambda k: found[k])
    passed = low >= 0 and high <= 1 and high > 1 / 16 and not better
    text = f"pixels in [{low:.3g}, {high:.3g}], {percent(given.mean().item())} of {n} images right; best other: {best} "
    chance = ", within chance" if not better and found[best] > given.mean() else ""
    text += percent(found[best]) + (f"; more accurate or surer on {', '.join(better)}" if better else chance)
    remedy = "put the normalisation inside the model, once"
    if bench.classifier.stochastic:
        remedy += "; or its noise is too large for it: another scaling makes that smaller"
    return Finding("images in [0, 1] and used so", passed, text, remedy)


def _right_and_sure(bench: Bench, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """(B,) share of right draws, and (B,) margins of the true class in units of the spread of all logits."""
    logits = bench.target.logits(ANSWER, x, bench.streams.of("judge", "range", name), draws=bench.answers)
    right = (answered(logits) == bench.classes).float().mean(0)
    mean = torch.nan_to_num(logits.mean(0))
    spread = (mean - mean.mean(1, keepdim=True)).square().mean().sqrt().clamp(min=1e-30)
    return right, -Margin()(mean, bench.classes) / spread


def _error(values: Tensor) -> float:
    """Of their mean, one standard error; of a single one nothing is known."""
    return values.std().item() / len(values) ** 0.5 if len(values) > 1 else float("inf")


def logits_not_probabilities(bench: Bench) -> Finding:
    logits = bench.target.logits(ANSWER, bench.images, bench.streams.of("logits"))[0]
    sums = (logits.sum(1) - 1).abs().max().item()
    is_probability = bool(logits.min() >= -1e-6 and logits.max() <= 1 + 1e-6 and sums < 1e-3)
    text = f"outputs in [{logits.min():.3g}, {logits.max():.3g}], row sums off 1 by up to {sums:.3g}"
    finite = bool(torch.isfinite(logits).all())
    return Finding(
        "logits, not probabilities", finite and not is_probability, text, "return what goes into the softmax"
    )


def evaluation_mode(bench: Bench) -> Finding:
    """Modules stay in evaluation mode and their state stays as it was, through a forward and an attack."""
    model = bench.classifier
    if not isinstance(model, nn.Module):
        return not_made("evaluation mode kept", "no module")
    before = [v.clone() for v in model.state_dict().values()]
    training_before = any(m.training for m in model.modules())
    bench.after(bench.pgd(steps=2, surrogate=ANSWER), "mode")
    training = any(m.training for m in model.modules())
    same = all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    mode = "training" if training_before or training else "evaluation"
    text = f"{mode} mode; weights and statistics {'as found' if same else 'changed'}"
    passed = same and not training and not training_before
    return Finding("evaluation mode kept", passed, text, "call model.eval() and keep statistics fixed")


def _direct(bench: Bench, x: Tensor) -> Tensor:
    """The answer's logits with noise from the global generator, as any caller gets them."""
    with torch.no_grad():
        return bench.classifier(x.clone())


def global_generator_left_alone(bench: Bench) -> Finding:
    x = bench.images[:4]
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        after = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            _direct(bench, x)
            after.append(torch.rand(1).item())
    text = "the global generator's state after a call " + (
        "is always the same" if after[0] == after[1] else "is its own"
    )
    remedy = "do not seed inside the model: the attack then sees one noise and the user another"
    return Finding("global random state left alone", after[0] != after[1], text, remedy)


def noise_as_declared(bench: Bench) -> Finding:
    """Two calls differ if and only if the model says that it is stochastic; its noise is not tied to the batch."""
    x = bench.images[: min(16, len(bench.images))]
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        first, second = _direct(bench, x), _direct(bench, x)
        order = torch.arange(len(x)).flip(0).to(x.device)
        moved = _direct(bench, x[order])[order]
    scale = first.std().item() + 1e-12
    differ, place = ((a - first).abs().max().item() / scale for a in (second, moved))
    stochastic = bench.classifier.stochastic
    # Noise may be small: it only has to be more than what threads that add in another order change in float32.
    seen = 8 * torch.finfo(torch.float32).eps * (1 + first.abs().max().item() / scale)
    passed = (differ > seen) if stochastic else (differ < 1e-3 and place < 1e-2)
    text = f"declared {'stochastic' if stochastic else 'deterministic'}; repeated calls differ by {differ:.2g}, "
    text += f"another order of the batch by {place:.2g} standard deviations of the logits"
    remedy = "set stochastic = True for a model that draws noise; never fix its seed or tie noise to the batch"
    return Finding("noise as declared", passed, text, remedy)


def stable_predictions(bench: Bench) -> Finding:
    logits = bench.target.logits(ANSWER, bench.images, bench.streams.of("stable"), draws=bench.draws)
    each = answered(logits)
    agree = (each == plurality(each, logits.shape[2])).float().mean().item()
    text = f"{percent(agree)} of clean draws answer as the majority"
    remedy = "average several draws in the answer: most of what the attack breaks is noise's work"
    return Finding("clean predictions stable", agree >= 0.75, text, remedy)


# -- attacks behave as attacks do --------------------------------------------------------------------------------------


def zero_radius_changes_nothing(bench: Bench) -> Finding:
    nothing = replace(bench.threat, eps=0.0)
    found = pgd(nothing, steps=5, eot=bench.eot)(bench.target, bench.images, bench.classes, bench.streams.of("zero"))
    changed = (found - bench.images).abs().max().item()
    return Finding(
        "eps 0 changes nothing", changed == 0, f"largest change {changed:g}", "report this as a defect of idc"
    )


def unbounded_attack_succeeds(bench: Bench) -> Finding:
    pixels = float(bench.images[0].numel())
    threat = replace(bench.threat, eps={"linf": 1.0, "l2": pixels**0.5, "l1": pixels}[bench.threat.norm])
    left = 1.0
    for name in dict.fromkeys([bench.weak_spot, ANSWER]):
        if left > _REACHED:
            attack = apgd(threat, steps=40, objective=Margin(), surrogate=name, eot=bench.eot)
            left = min(left, bench.after(attack, "whole", name))
    text = f"{percent(left)} right when every pixel may take any value"
    remedy = "gradients are masked: find a surrogate that an unbounded attack can follow to 0%"
    return Finding("an unbounded attack reaches 0%", left <= _REACHED, text, remedy)


def more_never_helps_the_defender(bench: Bench) -> Finding:
    half, twice = (replace(bench.threat, eps=min(f * bench.threat.eps, 1.0) if bench.threat.norm == "linf"
                           else f * bench.threat.eps) for f in (0.5, 2.0))  # fmt: skip
    weak = {"objective": Margin(), "eot": bench.eot, "surrogate": bench.weak_spot}
    by_eps = [bench.after(pgd(half, **weak), "half"), bench.plain, bench.after(pgd(twice, **weak), "twice")]
    by_steps = [bench.after(bench.pgd(surrogate=bench.weak_spot, steps=5), "5"), bench.plain,
                bench.long]  # fmt: skip
    passed = all(b <= a + bench.margin / 2 for row in (by_eps, by_steps) for a, b in pairwise(row))
    text = f"eps x 1/2, 1, 2: {', '.join(map(percent, by_eps))}; steps 5, 20, 40: {', '.join(map(percent, by_steps))}"
    return Finding("larger eps and more steps never help", passed, text, "the attack is lost in masked gradients")


def converged(bench: Bench) -> Finding:
    """Doubling the steps, and going from 10 to 20 restarts, moves the accuracy by less than chance may."""
    steps = [bench.plain, bench.long]
    short = bench.pgd(surrogate=bench.weak_spot, steps=10, restarts=10, judge_draws=bench.eot)
    ten = bench.right_after(short, "restarts", 1)
    left, twenty = ten.nonzero()[:, 0], ten.clone()
    if len(left):
        twenty[left] = torch.minimum(ten[left], bench.right_after(short, "restarts", 2, rows=left))
    restarts = [ten.mean().item(), twenty.mean().item()]
    moved = [steps[0] - steps[1], restarts[0] - restarts[1]]
    text = f"steps 20 to 40: {percent(steps[0])} to {percent(steps[1])}; restarts 10 to 20: {percent(restarts[0])} to "
    text += percent(restarts[1])
    passed = max(moved) < bench.margin
    return Finding("more steps and restarts change little", passed, text, "attack for longer before you quote a figure")


def iterating_beats_one_step(bench: Bench) -> Finding:
    one = bench.after(fgsm(bench.threat, objective=Margin(), surrogate=bench.weak_spot, eot=bench.eot), "fgsm")
    text = f"FGSM leaves {percent(one)}, PGD-20 {percent(bench.plain)}"
    return Finding("one step is no stronger than many", bench.plain <= one + bench.margin / 2, text,
                   "gradients are masked near the image: use restarts and surrogates")  # fmt: skip


def random_noise_is_weak(bench: Bench) -> Finding:
    noise = bench.accuracy(bench.threat.random(bench.images, bench.streams.of("random")), "random")
    text = f"{percent(noise)} right under random noise of the size, {percent(bench.white)} under attack"
    passed = noise >= bench.white - bench.margin / 2 and noise >= bench.clean - max(0.2, bench.margin)
    return Finding("random noise is weak", passed, text, "compare with noise: the model fails without an attacker")


def fixed_noise_then_free(bench: Bench) -> Finding:
    """Attacked with its noise held fixed and judged with that noise, then attacked and judged with fresh noise."""
    if not bench.classifier.stochastic:
        return not_made("noise fixed, then free", "deterministic")
    attack = bench.pgd(surrogate=ANSWER, eot=1)
    streams = bench.streams.of("attack", "fixed")
    held = replace(attack, fixed_noise=True)(bench.target, bench.images, bench.classes, streams)
    on_fixed = bench.target.judge(held, bench.classes, streams.of(0, 0).of("noise"), draws=1)[0].float().mean().item()
    on_free = bench.accuracy(held, "fixed judged free")
    text = f"fixed noise: {percent(on_fixed)} right under that noise, {percent(on_free)} under fresh noise; attacked "
    text += f"with {bench.eot} fresh draws a gradient: {percent(bench.averaged)}"
    passed = bench.averaged <= on_free + bench.margin / 2 and on_fixed <= on_free + bench.margin / 2
    return Finding("noise fixed, then free", passed, text, "raise --eot: the gradient is lost in the noise")


def plain_pgd_of_equal_cost(bench: Bench) -> Finding:
    """As many gradient calls without averaging (Gao et al., NeurIPS 2022): the evaluation must not be the weaker."""
    if not bench.classifier.stochastic:
        return not_made("plain PGD of equal cost", "deterministic")
    plain = bench.after(bench.pgd(surrogate=ANSWER, steps=20 * bench.eot, eot=1), "equal")
    text = f"{20 * bench.eot} plain steps leave {percent(plain)}, 20 with {bench.eot} draws each "
    text += f"{percent(bench.averaged)}; the evaluation {percent(bench.white)}"
    passed = bench.white <= min(plain, bench.averaged) + bench.margin / 2
    return Finding("plain PGD of equal cost", passed, text, "the averaged attack is too short: raise --steps")


def plain_pgd_hurts_no_more(bench: Bench) -> Finding:
    """PGD-20 along the weak spot, on either loss: where it does, the evaluation has searched in the wrong place."""
    if bench.robust is None:
        return not_made("plain PGD hurts no more", "no evaluation to compare with")
    usual = bench.pgd(surrogate=bench.weak_spot, objective=CrossEntropy())
    passed, text = bench.no_weaker_than([bench.plain_each, bench.right_after(usual, "cross-entropy")])
    text = f"PGD-20 leaves {text}"
    return Finding("plain PGD hurts no more", passed, text, "quote what plain PGD leaves, or raise --steps and --draws")


# Of every attack: few passes each.
CHEAP: tuple[Check, ...] = (
    images_used_as_given, logits_not_probabilities, evaluation_mode, same_in_any_batch, same_with_gradients,
    same_as_before,
)  # fmt: skip
CHECKS: tuple[Check, ...] = (
    *CHEAP, global_generator_left_alone, noise_as_declared, stable_predictions, gradients_useful, margin_continuous,
    answer_follows_gradient, gradient_is_the_answers, zero_radius_changes_nothing,
    unbounded_attack_succeeds, more_never_helps_the_defender, converged, iterating_beats_one_step,
    random_noise_is_weak, fixed_noise_then_free, plain_pgd_of_equal_cost, plain_pgd_hurts_no_more,
    transfer_is_weaker,
    decisions_hurt_no_more, whole_levels_hurt_no_more, autoattack_finds_no_more,
)  # fmt: skip
