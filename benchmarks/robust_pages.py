"""The tables of docs/robustness.md, and of README.md in short; see pages.py."""

from common import CIFAR, RESULTS, ROUNDED, read

from idc.report.rows import made_checks
from idc.text import share, table_head, table_row

SHIPPED, LATEST = "idc-nano-cifar10-robust", "idc-nano-cifar10-robust-v2"
SMALL, THIN_MUON = "models/idc-small-cifar10-robust", "models/cifar10-thin-muon-pgd-at"
DISTILLED, THIN_DISTILLED = "idc-nano-cifar10-distilled", "models/cifar10-thin-distilled"
NANO_MIXED, SMALL_MIXED = "models/idc-nano-cifar10-mixed", "models/idc-small-cifar10-mixed"
THIN_MIXED = "models/cifar10-thin-mixed"
CNNS = (THIN_MUON, THIN_DISTILLED, THIN_MIXED)  # of the models below
OF_PART = {  # of paper.py: models trained against attacks, under the adaptive protocol
    "all-robust-v2": LATEST, "all-thin-muon": THIN_MUON, "all-small-robust": SMALL, "all-distilled": DISTILLED,
    "all-thin-distilled": THIN_DISTILLED, "all-nano-mixed": NANO_MIXED, "all-thin-mixed": THIN_MIXED,
    "all-small-mixed": SMALL_MIXED, "all-nano-mirrored": NANO_MIXED,
}  # fmt: skip
MIRRORED = ("all-nano-mirrored",)  # parts whose model answers for an image and its mirror image
CHECKED = 64  # images on which the sanity checks are made, at most
NAMES = {"digits": ("`digits`", "digits test"), "nano": ("`nano`", f"{CIFAR} test")}


def _evaluations() -> list[tuple[str, dict]]:
    """(model, row) of every side-by-side evaluation, by model, eps, protocol."""
    found = []
    for name in NAMES:
        file = RESULTS / f"robustness-{name}.json"
        if file.exists():
            found += [(name, r) for r in sorted(read(file)["rows"], key=lambda r: (r["eps"], r["protocol"]))]
    return found


def _pairs() -> list[tuple[str, dict, dict]]:
    """(model, adaptive, paper) for every eps that has both."""
    rows = _evaluations()
    adaptive = {(n, r["eps"]): r for n, r in rows if r["protocol"] == "adaptive"}
    return [(n, adaptive[n, r["eps"]], r) for n, r in rows if r["protocol"] == "paper" and (n, r["eps"]) in adaptive]


def _rounded() -> str:
    """What to add if figures are of nano's weights as they were before they came into the package."""
    then = any(r["settings"]["classifier"]["name"] == "models/nano" for name, r in _evaluations())
    return f" {ROUNDED}" if then else ""


def _alone(r: dict) -> str:
    """The paper's attacks, each alone, from the weakest to the strongest."""
    inside = sorted(v["mean"]["mean"] for n, v in r["attacks"].items() if n != "cw-l2")
    return f"{inside[-1]:.1%} to {inside[0]:.1%}"


def robust() -> list[str]:
    """README: both protocols, in short."""
    if not _pairs():
        return ["Not measured yet."]
    head = ("model", "eps", "clean", "paper's attacks, each alone", "adaptive: mean of draws", "worst of n", "n")
    lines = table_head(*head)
    for name, own, paper in _pairs():
        cells = (f"{own['clean']['mean']['mean']:.1%}", _alone(paper), share(own["robust"]["mean"]))
        lines.append(
            table_row(NAMES[name][0], own["eps_text"], *cells, share(own["robust"]["worst_of_n"]), own["images"]),
        )
    draws = ", ".join(map(str, sorted({own["draws"] for _, own, _ in _pairs()})))
    return [
        *lines,
        "",
        f"L-inf, test images, {draws} draws of the noise, one seed and one training each; "
        f"[robustness](robustness.md) has the rest.{_rounded()}",
    ]


def robustness() -> list[str]:
    """docs/robustness.md: every evaluation, and the paper's attacks one by one."""
    if not _evaluations():
        return ["Not measured yet."]
    head = ("model", "eps", "protocol", "clean, mean", "clean, worst of n", "random noise", "robust, mean", "majority",
            "worst of n", "sanity checks")  # fmt: skip
    lines = table_head(*head)
    rows = _evaluations()
    for name, r in rows:
        failed = [f["name"] for f in r["sanity"] if not f["passed"]]
        passed = f"{len(made_checks(r))} passed" if r["sanity"] else "none"
        checks = f"failed: {', '.join(failed)}" if failed else passed
        points = (r["clean"]["mean"], r["clean"]["worst_of_n"], r["noise"]["mean"], r["robust"]["mean"],
                  r["robust"]["majority"], r["robust"]["worst_of_n"])  # fmt: skip
        lines.append(table_row(NAMES[name][0], r["eps_text"], r["protocol"], *map(share, points), checks))
    last = dict(rows)
    about = "; ".join(
        f"{NAMES[n][0]}: {r['images']} images of {NAMES[n][1]}, {r['draws']} draws" for n, r in last.items()
    )
    versions = ", ".join(f"{k} {v}" for k, v in rows[0][1]["settings"]["versions"].items())
    lines += [
        "",
        f"L-inf. {about}. One seed, one training each.{_rounded()} {versions}.",
        "",
        "The paper's attacks, each alone:",
        "",
    ]
    names = list(_pairs()[0][2]["attacks"])
    lines += table_head("model", "eps", *names, "one draw, right clean and attacked", "adaptive")
    for name, own, paper in _pairs():
        values = [paper["attacks"][n]["mean"] for n in names]
        cells = map(share, (*values, paper["single_draw"], own["robust"]["mean"]))
        lines.append(table_row(NAMES[name][0], own["eps_text"], *cells))
    return [*lines, "", *map(_overstated, _pairs())]


def _overstated(pair: tuple[str, dict, dict]) -> str:
    """By how much the paper's protocol is above the adaptive one, one attack at a time and all together."""
    name, own, paper = pair
    robust = own["robust"]["mean"]["mean"]
    over = {n: 100 * (v["mean"]["mean"] - robust) for n, v in paper["attacks"].items() if n != "cw-l2"}
    worst, best = max(over, key=lambda n: over[n]), min(over, key=lambda n: over[n])
    together = 100 * (paper["robust"]["mean"]["mean"] - robust)
    return (
        f"- {NAMES[name][0]} at {own['eps_text']}: above the adaptive protocol by {over[worst]:.1f} points ({worst}) "
        f"to {over[best]:.1f} ({best}), one attack at a time, and by {together:.1f} if each image is judged "
        "at its worst over all of them."
    )


def pitfalls() -> list[str]:
    """docs/robustness.md: which flaw accounts for what."""
    lines = []
    for name in NAMES:
        file = RESULTS / f"pitfalls-{name}.json"
        if not file.exists():
            continue
        found = read(file)
        first = found["attacks"]["as published"]["mean"]["mean"]
        then = ", or one after the other, *then*" if any(a.startswith("then: ") for a in found["attacks"]) else ""
        lines += [
            f"PGD-20 on {NAMES[name][0]} at eps {found['eps_text']}, its flaws removed one at a time, *alone*{then}:",
            "",
            *table_head("attack", "mean of draws", "change", "majority", "worst of n"),
        ]
        for attack, v in found["attacks"].items():
            change = f"{100 * (v['mean']['mean'] - first):+.1f}" if attack != "as published" else ""
            lines.append(table_row(attack, share(v["mean"]), change, share(v["majority"]), share(v["worst_of_n"])))
        alone = {a: v["mean"]["mean"] - first for a, v in found["attacks"].items() if a.startswith("alone: ")}
        most = min(alone, key=lambda a: alone[a])
        lines += [
            "",
            f"Alone, *{most.removeprefix('alone: ')}* accounts for most: {100 * alone[most]:+.1f} points.",
        ]
        asked = found["settings"]["data"]["images"]
        part = f"The first {found['images']} of {asked}" if found["images"] < asked else str(asked)
        lines += ["", f"{part} images of {NAMES[name][1]}, {found['draws']} draws, one seed.", ""]
    return lines


def parity() -> list[str]:
    """docs/robustness.md: the adaptive protocol beside AutoAttack's library."""
    file = RESULTS / "parity.json"
    rows = read(file)["rows"] if file.exists() else []
    lines = table_head(
        "model", "data", "eps", "n", "clean", "survive both", "only `adaptive`", "only AutoAttack", "passes",
        "time, attacks", "checks, s", "time, all", "of 512 images",
    )  # fmt: skip
    for r in rows:
        ours, library = r["adaptive"], r["autoattack"]
        passes = [found["forward"] + 2 * found["backward"] for found in (ours, library)]
        counts = (r["survive_both"], r["survive_adaptive_alone"], r["survive_autoattack_alone"])
        cells = (f"{ours['clean']['mean']:.1%}", *counts, f"{passes[0] / passes[1]:.2f}", *_times(ours, library))
        lines.append(table_row(f"`{r['model']}`", r["data"], r["eps"], ours["images"], *cells))
    return lines


def _times(ours: dict, library: dict) -> tuple[str, ...]:
    """Our time over the library's: of the attacks, of all that was measured, and of 512 images, on which the checks,
    made on at most 64, would take twice what they took on half as many. With the seconds of the checks themselves."""
    if not (ours["seconds"] and library["seconds"]):
        return "", "", "", ""
    attacks, theirs, checks = ours["attack_seconds"], library["seconds"], ours["seconds"] - ours["attack_seconds"]
    more = CHECKED / min(ours["images"], CHECKED) * checks
    whole = (512 / ours["images"] * attacks + more) / (512 / library["images"] * theirs)
    return f"{attacks / theirs:.2f}", f"{checks:.0f}", f"{ours['seconds'] / theirs:.2f}", f"{whole:.2f}"


def passes() -> list[str]:
    """docs/robustness.md: what the adaptive protocol costs beside what it did, on the same images."""
    file = RESULTS / "passes.json"
    head = ("model", "kind", "eps", "robust before", "n", "robust now", "n", "verdicts that differ", "passes before",
            "now")  # fmt: skip
    lines = table_head(*head)
    for r in read(file)["rows"] if file.exists() else []:
        both = (r["before"], r["after"])
        differing = r.get("only_before", 0) + r.get("only_after", 0)
        told = f"{differing} of {r['common']}" if "common" in r else "not kept"
        counts = [f"{found['forward']:,.0f} + {found['backward']:,.0f}" for found in both]
        robust = [cell for found in both for cell in (share(found["robust"]), found["images"])]
        lines.append(table_row(f"`{r['model']}`", r["kind"], r["eps"], *robust, told, *counts))
    return lines


def costs() -> list[str]:
    """docs/robustness.md: passes and seconds by protocol."""
    head = ("model", "protocol", "eps", "forward", "backward", "GFLOPs", "seconds", "floor, s", "ratio")
    lines = table_head(*head)
    for name, r in _evaluations():
        c = r["cost"]
        counts = [f"{sum(c[k].values()):,.0f}" for k in ("forward", "backward")]
        times = (f"{c['flops'] / 1e9:,.0f}", f"{c['seconds']:.2f}", f"{c['floor_seconds']:.3f}", f"{c['ratio']:.0f}")
        lines.append(table_row(NAMES[name][0], r["protocol"], r["eps_text"], *counts, *times))
    threads = ", ".join(map(str, sorted({r["settings"]["threads"] for _, r in _evaluations()})))
    unshared = [
        f"{NAMES[n][0]} {r['protocol']} {r['eps_text']}" for n, r in _evaluations() if "spared" not in r["cost"]
    ]
    before = " Measured before draws shared an evaluation, and with the matrix product alone as floor: "
    before = f"{before}{', '.join(unshared)}." if unshared else ""
    return [
        *lines,
        "",
        "Per image; calls of the model's functions (an answer of the chain is one call, three passes of the network). "
        f"Seconds of one process with {threads} thread(s), on a machine that ran several of them and other work."
        + before,
    ]
