"""The paper's protocol and the adaptive one side by side, for several sizes of attack, on one model.

    python benchmarks/robustness.py MODEL --name NAME --data D --eps 0.05 0.1 [--limit 512]

Under `torchrun --nproc_per_node 4` (one thread each) the images are shared out. Each evaluation is resumable and lies
in runs/robustness/NAME/PROTOCOL-EPS; the figures go to benchmarks/results/robustness-NAME.json.
"""

from pathlib import Path

from common import model_arguments, write

from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.compute.memory import keep_freed_memory
from idc.text import eps_name, eps_text, fraction

KEPT = ("clean", "noise", "robust", "attacks", "single_draw", "images", "draws", "adaptive", "reliable", "sanity",
        "cost", "answer", "flags", "worst", "settings")  # fmt: skip


def main() -> None:
    parser = model_arguments(__doc__)
    parser.add_argument("--protocols", nargs="+", default=["adaptive", "paper"])
    given = parser.parse_args()
    rows = []
    for eps in given.eps:
        for protocol in given.protocols:
            value = fraction(eps)
            text = eps_text(value)
            out = Path("runs/robustness") / given.name / f"{protocol}-{eps_name(value)}"
            print(f"{given.name}: {protocol}, eps {text}", flush=True)
            request = Request(
                model=given.model, data=given.data, data_name=given.data_name, protocol=protocol, eps=value,
                limit=given.limit, keep=True,
            )  # fmt: skip
            summary = evaluate(request, out)
            if not summary:  # a process other than the first
                continue
            robust = {k: f"{summary['robust'][k]['mean']:.1%}" for k in ("mean", "majority", "worst_of_n")}
            print({k: f"{v['mean']['mean']:.1%}" for k, v in summary["attacks"].items()}, robust, flush=True)
            rows.append({"protocol": protocol, "eps": value, "eps_text": text} | {k: summary[k] for k in KEPT})
            data = given.data_name or given.data
            command = f"python benchmarks/robustness.py {given.model} --name {given.name} --data {data}"
            write(f"robustness-{given.name}", f"{command} --eps {' '.join(given.eps)}", {"rows": rows})


if __name__ == "__main__":
    keep_freed_memory()
    main()
