"""Which flaw of the published evaluation accounts for what: PGD-20 as published, its flaws removed one at a time, alone
and on top of each other.

    python benchmarks/pitfalls.py MODEL --name NAME --data D --eps 0.1 [--limit 512] [--alone] [--draws 20]

`--alone` leaves out those on top of each other: a hundred steps of four draws each take an hour of a core for a network
like `nano`. Resumable; figures go to benchmarks/results/pitfalls-NAME.json, of the images that have finished.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import model_arguments, read, summary_so_far, write

from idc.attacks.adaptive import AdaptiveAttack
from idc.attacks.gradient import Attack, apgd, pgd
from idc.attacks.objective import Margin
from idc.attacks.target import ANSWER
from idc.attacks.threat import Threat
from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.compute.memory import keep_freed_memory
from idc.evaluation.protocol import PUBLISHED, Protocol
from idc.text import eps_name, eps_text, fraction


def variants(threat: Threat) -> tuple[tuple[str, Attack], ...]:
    """Name -> attack: as published, each flaw removed alone, then all removed one after the other."""
    base = pgd(threat, step=threat.eps / 4, surrogate=PUBLISHED, fixed_noise=True)
    long = apgd(threat, surrogate="chain-inner", objective=Margin(), eot=4)
    return (
        ("as published", base),
        ("alone: logits", replace(base, surrogate=ANSWER)),
        ("alone: fresh noise in each step", replace(base, fixed_noise=False)),
        ("alone: mean of 4 draws", replace(base, fixed_noise=False, eot=4)),
        ("alone: no clamp, inner product (fixed noise)", replace(base, surrogate="chain-inner")),
        ("alone: one-step answer, inner product", replace(base, surrogate="one-step-inner")),
        ("then: logits", replace(base, surrogate=ANSWER)),
        ("then: and fresh noise, mean of 4 draws", replace(base, surrogate=ANSWER, fixed_noise=False, eot=4)),
        ("then: and no clamp, inner product", replace(base, surrogate="chain-inner", fixed_noise=False, eot=4)),
        ("then: and 100 adaptive steps on the margin", long),
        ("then: and the search over all of these", AdaptiveAttack(threat=threat)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """With ``arguments`` in place of the command line's."""
    parser = model_arguments(__doc__)
    parser.add_argument("--alone", action="store_true", help="each flaw alone, none on top of another")
    parser.add_argument("--draws", type=int, help="of the noise, by which an image is judged")
    given = parser.parse_args(arguments)
    (eps,) = given.eps
    threat = Threat("linf", fraction(eps))
    request = Request(
        model=given.model, data=given.data, data_name=given.data_name, limit=given.limit, draws=given.draws
    )
    out = folder(given.name, threat.eps)
    wanted = tuple(v for v in variants(threat) if not given.alone or not v[0].startswith("then: "))
    found = evaluate(request, out, protocol=Protocol("pitfalls", threat, wanted))
    if found:  # in the first process
        for name, verdict in found["attacks"].items():
            print(f"{name:50} {verdict['mean']['mean']:.1%} {verdict['worst_of_n']['mean']:.1%}", flush=True)
        data = given.data_name or given.data
        command = f"python benchmarks/pitfalls.py {given.model} --name {given.name} --data {data}"
        command += f" --eps {eps}" + " --alone" * given.alone + (f" --draws {given.draws}" if given.draws else "")
        keep(given.name, threat.eps, command)


def folder(name: str, eps: float) -> Path:
    """Of the evaluation."""
    return Path("runs/pitfalls") / f"{name}-{eps_name(eps)}"


def keep(name: str, eps: float, command: str) -> None:
    """Write what has been measured so far: all of it, or the images that have finished; nothing if there are none."""
    out = folder(name, eps)
    found = summary_so_far(out)
    if not found:
        return
    if "settings" not in found:
        found |= {"settings": read(out / "settings.json")}
    kept = {k: found[k] for k in ("clean", "noise", "attacks", "images", "draws", "single_draw", "settings")}
    write(f"pitfalls-{name}", command, {"eps_text": eps_text(eps)} | kept)


if __name__ == "__main__":
    keep_freed_memory()
    main()
