"""Passes of the network that the same evaluation takes by two versions of a protocol, and whether its verdicts are the
same: a row of benchmarks/results/passes.json.

    python benchmarks/passes.py BEFORE AFTER --name TEXT --kind robust

BEFORE and AFTER are folders of `idc evaluate` on the same images. BEFORE may also be a file of
benchmarks/robustness.py, of which the row of the same protocol and radius is taken; its verdicts are known as a share.
"""

import argparse
from pathlib import Path
from typing import Any

from common import RESULTS, read

from idc.evaluation.pairing import survived
from idc.evaluation.summary import read_lines
from idc.storage.files import write_json
from idc.text import eps_text

KINDS = ("robust", "non-robust", "stochastic")
FILE = RESULTS / "passes.json"


def summary(place: Path, like: dict[str, Any] | None = None) -> dict[str, Any]:
    """The summary of a result, or the row of a file that is ``like`` another in protocol and radius."""
    found = read(place / "summary.json" if place.is_dir() else place)
    if "rows" not in found:
        return found
    own = [_asked(row) for row in found["rows"]]
    return found["rows"][own.index(_asked(like or {}))]  # type: ignore[no-any-return]


def _asked(held: dict[str, Any]) -> tuple[str, float]:
    return held["protocol"], held["settings"]["protocol"]["threat"]["eps"]


def cost(held: dict[str, Any]) -> dict[str, Any]:
    """Forward and backward passes an image, and what is left."""
    passes = {kind: sum(held["cost"][kind].values()) for kind in ("forward", "backward")}
    return passes | {"robust": held["robust"]["mean"], "images": held["images"], "reliable": held["reliable"]}


def row(before: Path, after: Path) -> dict[str, Any]:
    """Both results, and on how many images their verdicts differ where the images' own are known.

    Raises:
        ValueError: if they are not of the same number of images.
    """
    newer = summary(after)
    older = summary(before, newer)
    if older["images"] != newer["images"]:
        raise ValueError(f"{older['images']} images before, {newer['images']} after")
    found = {
        "protocol": newer["protocol"],
        "eps": eps_text(_asked(newer)[1]),
        "before": cost(older),
        "after": cost(newer),
    }
    if before.is_dir():
        then, now = (survived(read_lines(folder)) for folder in (before, after))
        if then.keys() != now.keys():
            raise ValueError("the images are not the same")
        found["only_before"] = sum(then[i] and not now[i] for i in then)
        found["only_after"] = sum(now[i] and not then[i] for i in then)
    return found


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
