"""The adaptive protocol beside AutoAttack's library on a deterministic model: the same images, verdict by verdict.

    python benchmarks/parity.py idc-digits-robust --data digits --eps 0.1 --limit 128
    python benchmarks/parity.py models/cifar10-thin-pgd-at --data CIFAR --data-name "CIFAR-10 (JPEG-75)" --eps 8/255

Both are timed as a whole, sanity checks included, one after the other on the same machine. Resumable; a time is kept
only of an evaluation that ran in one go. Rows go to benchmarks/results/parity.json.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from common import RESULTS, cpu_name, read

from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.compute.memory import keep_freed_memory
from idc.evaluation.summary import LINES
from idc.storage import records
from idc.storage.files import write_json
from idc.text import eps_name, fraction

BOTH = ("adaptive", "autoattack")


def judged(request: Request, out: Path) -> dict[str, Any]:
    """An evaluation: the images that survive it, its passes of the model an image, and its seconds."""
    fresh, began = not out.exists(), time.perf_counter()
    found = evaluate(request, out)
    file = out / "wall.json"
    if fresh:
        write_json(file, {"seconds": time.perf_counter() - began})
    lines = records.finished(out, LINES)
    cost = found["cost"]
    return {
        "survive": sorted(image for image, line in lines.items() if line["robust"][1] == line["class"]),
        "clean": found["clean"]["mean"], "images": len(lines), "reliable": found["reliable"],
        "forward": sum(cost["forward"].values()), "backward": sum(cost["backward"].values()),
        "attack_seconds": sum(cost["seconds_by_attack"].values()) * len(lines),
        "seconds": read(file)["seconds"] if file.exists() else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-name")
    parser.add_argument("--eps", required=True)
    parser.add_argument("--limit", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("runs/parity"))
    given = parser.parse_args()
    name = Path(given.model).name
    found = {}
    for protocol in BOTH:
        request = Request(
            model=given.model, data=given.data, data_name=given.data_name, limit=given.limit, eps=fraction(given.eps),
            protocol=protocol,
        )  # fmt: skip
        found[protocol] = judged(request, given.out / f"{name}-{eps_name(fraction(given.eps))}" / protocol)
    ours, library = (set(found[protocol].pop("survive")) for protocol in BOTH)
    row = {
        "model": name, "data": given.data_name or given.data, "eps": given.eps, "cpu": cpu_name(),
        "survive_both": len(ours & library), "survive_adaptive_alone": len(ours - library),
        "survive_autoattack_alone": len(library - ours), **found,
    }  # fmt: skip
    print(row, flush=True)
    file = RESULTS / "parity.json"
    rows = [r for r in read(file)["rows"] if (r["model"], r["eps"]) != (name, given.eps)] if file.exists() else []
    write_json(file, {"command": "python benchmarks/parity.py MODEL --data D --eps E", "rows": [*rows, row]})


if __name__ == "__main__":
    keep_freed_memory()
    main()
