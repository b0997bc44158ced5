"""Passes of the network that an evaluation takes by two versions of a protocol, and whether the verdicts on the images
that both have been given are the same: a row of benchmarks/results/passes.json.

    python benchmarks/passes.py BEFORE AFTER --name TEXT --kind robust

BEFORE and AFTER are folders of `idc evaluate` with images that are done. BEFORE may also be a file of
benchmarks/robustness.py, of which the row of the same protocol and radius is taken; its verdicts are known as a share.
"""

import argparse
from pathlib import Path
from typing import Any

from common import RESULTS, read

from idc.evaluation.pairing import paired, survived
from idc.evaluation.summary import read_costs, read_lines
from idc.evaluation.verdict import wilson
from idc.storage.fields import recorded
from idc.storage.files import write_json
from idc.text import eps_text

PASSES = ("forward", "backward")
KINDS = ("robust", "non-robust", "stochastic")
FILE = RESULTS / "passes.json"


def found_in(folder: Path) -> dict[str, Any]:
    """Of an evaluation's records, finished or not: passes an image, and the share of images that are left."""
    lines, total = read_lines(folder), read_costs(folder)
    passes = {kind: sum(total[kind].values()) / total["images"] for kind in PASSES}
    robust = recorded(wilson(sum(survived(lines).values()) / len(lines), len(lines)))
    return passes | {"robust": robust, "images": len(lines)}


def found_for(file: Path, protocol: str, eps: float) -> dict[str, Any]:
    """The same of the row of that protocol and radius."""
    asked = [(row["protocol"], row["settings"]["protocol"]["threat"]["eps"]) for row in read(file)["rows"]]
    held = read(file)["rows"][asked.index((protocol, eps))]
    passes = {kind: sum(held["cost"][kind].values()) for kind in PASSES}
    return passes | {"robust": held["robust"]["majority"], "images": held["images"]}


def row(before: Path, after: Path) -> dict[str, Any]:
    """Both, and on how many of the images that both have their verdicts differ, where the images' own are known.

    Raises:
        ValueError: if they have no image in common.
    """
    asked = read(after / "settings.json")["protocol"]
    eps = asked["threat"]["eps"]
    older = found_in(before) if before.is_dir() else found_for(before, asked["name"], eps)
    found = {"protocol": asked["name"], "eps": eps_text(eps), "before": older, "after": found_in(after)}
    if not before.is_dir():
        return found
    pair = paired(*(survived(read_lines(folder)) for folder in (before, after)))
    return found | {"common": pair.images, "only_before": pair.ahead_first, "only_after": pair.ahead_second}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    given = parser.parse_args()
    own = {"model": given.name, "kind": given.kind} | row(given.before, given.after)
    held = read(FILE)["rows"] if FILE.exists() else []
    others = [r for r in held if (r["model"], r["eps"]) != (own["model"], own["eps"])]
    rows = sorted([*others, own], key=lambda r: (KINDS.index(r["kind"]), r["model"], r["eps"]))
    write_json(FILE, {"command": "python benchmarks/passes.py BEFORE AFTER", "rows": rows})
    print(own)


if __name__ == "__main__":
    main()
