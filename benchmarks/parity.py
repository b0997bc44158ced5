"""Our adaptive ensemble beside AutoAttack standard on a deterministic model: the same images, one run.

    python benchmarks/parity.py digits_cnn --data digits --eps 0.05 0.1 0.15
    python benchmarks/parity.py resnet18 --data CIFAR --data-name "CIFAR-10 (JPEG-75)" --eps 1/255 0.5/255 --limit 200

Resumable; figures go to benchmarks/results/parity-MODEL.json.
"""

import argparse
from pathlib import Path

from common import write

from idc.attacks.adaptive import AdaptiveAttack
from idc.attacks.third_party import AutoAttack
from idc.attacks.threat import Threat
from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.compute.memory import keep_freed_memory
from idc.evaluation.protocol import Protocol
from idc.text import eps_name, fraction

MODELS = {"digits_cnn": "benchmarks.models:digits_cnn", "resnet18": "pyautoattack-resnet18"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-name")
    parser.add_argument("--eps", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=512)
    given = parser.parse_args()
    rows = []
    for eps in given.eps:
        threat = Threat("linf", fraction(eps))
        attacks = (("ours", AdaptiveAttack(threat=threat)), ("autoattack", AutoAttack(threat=threat)))
        request = Request(model=MODELS[given.model], data=given.data, data_name=given.data_name, limit=given.limit)
        out = Path("runs/parity") / f"{given.model}-{eps_name(threat.eps)}"
        found = evaluate(request, out, protocol=Protocol("parity", threat, attacks))
        if not found:  # a process other than the first
            continue
        n = found["images"]
        standing = {k: round(found["attacks"][k]["mean"]["mean"] * n) for k in ("ours", "autoattack")}
        seconds = {k: found["cost"]["seconds_by_attack"][k] * n for k in standing}
        rows.append({"eps": eps, "images": n, "clean": found["clean"]["mean"], "standing": standing, "seconds": seconds}
                    | {k: found[k] for k in ("attacks", "flags", "settings")})  # fmt: skip
        print(eps, standing, {k: f"{v:.0f} s" for k, v in seconds.items()}, flush=True)
        command = f"python benchmarks/parity.py {given.model} --data {given.data_name or given.data}"
        write(f"parity-{given.model}", f"{command} --limit {given.limit} --eps {' '.join(given.eps)}", {"rows": rows})


if __name__ == "__main__":
    keep_freed_memory()
    main()
