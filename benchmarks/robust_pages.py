"""The tables of evaluations in README.md, docs/robustness.md and docs/peers.md; see pages.py."""

from pathlib import Path
from typing import cast

import torch
from common import CIFAR, RESULTS, ROUNDED, read, row

from idc import IDC
from idc.commands.compare import read_comparison
from idc.commands.opening import open_model
from idc.cost import answer_cost
from idc.evaluation.pairing import paired, withstood
from idc.evaluation.summary import read_lines, summarise_lines
from idc.evaluation.verdict import wilson
from idc.report.comparison import HALF, markdown, published
from idc.text import share
from idc.types import Classifier

SHIPPED = "idc-nano-cifar10-robust"
FULL_SIZE = {  # runs of full_size.py: name, where the weights lie
    "idc-base-cifar10-robust": ("IDC, `base-encoder`", "models/idc-base-cifar10-robust"),
    "pgd-at": ("PreActResNet-18, PGD-AT", "models/cifar10-preact-pgd-at"),
}
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
    lines = [row(*head), row(*["---"] * len(head))]
    for name, own, paper in _pairs():
        cells = (f"{own['clean']['mean']['mean']:.1%}", _alone(paper), share(own["robust"]["mean"]))
        lines.append(
            row(NAMES[name][0], own["eps_text"], *cells, share(own["robust"]["worst_of_n"]), own["images"]),
        )
    draws = ", ".join(map(str, sorted({own["draws"] for _, own, _ in _pairs()})))
    return [
        *lines,
        "",
        f"L-inf, test images, {draws} draws of the noise, one seed and one training each; "
        f"[docs/robustness.md](docs/robustness.md) has the rest.{_rounded()}",
    ]


def robustness() -> list[str]:
    """docs/robustness.md: every evaluation, and the paper's attacks one by one."""
    if not _evaluations():
        return ["Not measured yet."]
    head = ("model", "eps", "protocol", "clean, mean", "clean, worst of n", "random noise", "robust, mean", "majority",
            "worst of n", "sanity checks")  # fmt: skip
    lines = [row(*head), row(*["---"] * len(head))]
    rows = _evaluations()
    for name, r in rows:
        failed = [f["name"] for f in r["sanity"] if not f["passed"]]
        checks = f"failed: {', '.join(failed)}" if failed else f"{len(r['sanity'])} passed" if r["sanity"] else "none"
        points = (r["clean"]["mean"], r["clean"]["worst_of_n"], r["noise"]["mean"], r["robust"]["mean"],
                  r["robust"]["majority"], r["robust"]["worst_of_n"])  # fmt: skip
        lines.append(row(NAMES[name][0], r["eps_text"], r["protocol"], *map(share, points), checks))
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
    lines += [row("model", "eps", *names, "one draw, right clean and attacked", "adaptive")]
    lines += [row(*["---"] * (len(names) + 4))]
    for name, own, paper in _pairs():
        values = [paper["attacks"][n]["mean"] for n in names]
        cells = map(share, (*values, paper["single_draw"], own["robust"]["mean"]))
        lines.append(row(NAMES[name][0], own["eps_text"], *cells))
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
        lines += [
            f"PGD-20 on {NAMES[name][0]} at eps {found['eps_text']}, its flaws removed one at a time, *alone*, or one "
            "after the other, *then*:",
            "",
            row("attack", "mean of draws", "change", "majority", "worst of n"),
            row(*["---"] * 5),
        ]
        for attack, v in found["attacks"].items():
            change = f"{100 * (v['mean']['mean'] - first):+.1f}" if attack != "as published" else ""
            lines.append(row(attack, share(v["mean"]), change, share(v["majority"]), share(v["worst_of_n"])))
        alone = {a: v["mean"]["mean"] - first for a, v in found["attacks"].items() if a.startswith("alone: ")}
        most = min(alone, key=lambda a: alone[a])
        lines += [
            "",
            f"Alone, *{most.removeprefix('alone: ')}* accounts for most: {100 * alone[most]:+.1f} points.",
        ]
        lines += ["", f"{found['images']} images of {NAMES[name][1]}, {found['draws']} draws, one seed.", ""]
    return lines


def parity() -> list[str]:
    """docs/robustness.md: ours beside AutoAttack standard."""
    head = ("model", "eps", "n", "clean", "stand under ours", "stand under AutoAttack", "time, ours : AutoAttack")
    lines = [row(*head), row(*["---"] * len(head))]
    titles = {"digits_cnn": "small CNN, PGD-AT on digits", "resnet18": f"pyautoattack's ResNet-18, {CIFAR}"}
    for model, title in titles.items():
        file = RESULTS / f"parity-{model}.json"
        for r in read(file)["rows"] if file.exists() else ():
            ratio = r["seconds"]["autoattack"] / r["seconds"]["ours"]
            counts = (f"{r['clean']['mean']:.1%}", r["standing"]["ours"], r["standing"]["autoattack"])
            lines.append(row(title, r["eps"], r["images"], *counts, f"1 : {ratio:.1f}"))
    return lines


def costs() -> list[str]:
    """docs/robustness.md: passes and seconds by protocol."""
    head = ("model", "protocol", "eps", "forward", "backward", "GFLOPs", "seconds", "floor, s", "ratio")
    lines = [row(*head), row(*["---"] * len(head))]
    for name, r in _evaluations():
        c = r["cost"]
        counts = [f"{sum(c[k].values()):,.0f}" for k in ("forward", "backward")]
        times = (f"{c['flops'] / 1e9:,.0f}", f"{c['seconds']:.2f}", f"{c['floor_seconds']:.3f}", f"{c['ratio']:.0f}")
        lines.append(row(NAMES[name][0], r["protocol"], r["eps_text"], *counts, *times))
    threads = ", ".join(map(str, sorted({r["settings"]["threads"] for _, r in _evaluations()})))
    unshared = any("spared" not in r["cost"] for _, r in _evaluations())
    before = (
        " Measured before draws shared an evaluation, and with the matrix product alone as floor." if unshared else ""
    )
    return [
        *lines,
        "",
        "Per image; calls of the model's functions (an answer of the chain is one call, three passes of the network). "
        f"Seconds of one process with {threads} thread(s), on a machine that ran several of them and other work."
        + before,
    ]


def _comparisons() -> list[tuple[str, dict, str]]:
    """The comparisons that there are: their names, results, and what they are of."""
    digits, cifar = NAMES["digits"][1], NAMES["nano"][1]
    about = {"digits": digits, "digits-robust": f"{digits}, trained against attacks", "cifar": cifar,
             "robust": f"{cifar}, trained against attacks"}  # fmt: skip
    files = {name: RESULTS / f"peers-{name}.json" for name in about}
    return [(name, read(file), about[name]) for name, file in files.items() if file.exists()]


def peers() -> list[str]:
    """docs/peers.md: every system, the same images."""
    lines = []
    for name, found, about in _comparisons():
        picture = f"![robust accuracy over the FLOPs of an answer, {about}](peers-{name}.png)"
        lines += [*_compared(found, about), *_lacking(found), "", picture, ""]
    return lines or ["Not measured yet."]


def compared() -> list[str]:
    """README: every system in short, what it withstands of the adaptive protocol as the mean of draws."""
    lines = []
    for _, found, about in _comparisons():
        rows = [r for r in found["rows"] if "adaptive" in r["protocols"]]
        sizes = {r["eps"]: f"adaptive, eps {r['eps_text']}" for r in sorted(rows, key=lambda r: float(r["eps"]))}
        head = (about, "GFLOPs", "NFE", "clean", *sizes.values(), "n")
        lines += [row(*head), row(*["---"] * len(head))]
        for name in dict.fromkeys(r["name"] for r in rows):
            own = {r["eps"]: r for r in rows if r["name"] == name}
            first = next(iter(own.values()))
            cells = [share(own[eps]["protocols"]["adaptive"]["robust"]["mean"]) if eps in own else "" for eps in sizes]
            cost = (f"{first['flops'] / 1e9:.3g}", f"{first['network_evaluations']:,}")
            lines.append(row(name, *cost, f"{first['clean']['mean']['mean']:.1%}", *cells, first["images"]))
        lines.append("")
        notes = [HALF] if any(r.get("answer", {}).get("precision") == "bf16" for r in rows) else []
        if found.get("lacking"):
            notes.append("The rest is not measured yet ([docs/peers.md](docs/peers.md)).")
        lines += [" ".join(notes), ""] if notes else []
    return lines or ["Not measured yet."]


def _lacking(found: dict) -> list[str]:
    """What of a comparison has not been measured."""
    return ["", f"Not measured yet: {'; '.join(found['lacking'])}."] if found.get("lacking") else []


def _compared(found: dict, about: str) -> list[str]:
    rows, hardware = found["rows"], found["hardware"]
    draws = ", ".join(map(str, sorted({own["draws"] for r in rows for own in r["protocols"].values()})))
    return [
        *markdown(rows, found.get("pairs", ())).splitlines(),
        "",
        f"{about}, L-inf, {draws} draw{'s' * (draws != '1')}, one seed and one training each; `{hardware['command']}` "
        f"on {hardware['cores']} cores of {hardware['cpu']}, seconds on a machine that ran several of them.",
    ]


def full_size() -> list[str]:
    """docs/training.md: the trainings on a GPU, as their validations found them."""
    file = RESULTS / "full-size.json"
    rows = [r for r in read(file)["rows"] if r["name"] in FULL_SIZE] if file.exists() else []
    if not rows:
        return ["Not measured yet."]
    head = (
        "model",
        "GFLOPs an answer",
        "epochs",
        "images a second",
        "seconds",
        "validation: clean",
        "under PGD-10",
        "n",
    )
    lines = [row(*head), row(*["---"] * len(head))]
    for r in rows:
        name, folder = FULL_SIZE[r["name"]]
        gflops = answer_cost(cast(Classifier, open_model(folder)), torch.device("cpu"))["flops"] / 1e9
        own = r["chosen"]
        clean, robust = (own[k] if k in own else own[other]
                         for k, other in (("clean", "one_step"), ("robust", "attacked_one_step")))  # fmt: skip
        shares = (share(wilson(value, own["images"]).to_dict()) for value in (clean, robust))
        cells = (
            f"{gflops:.3g}",
            f"{r['epochs']:g}",
            f"{r['images_seen'] / r['seconds_of_training']:,.0f}",
            f"{r['seconds']:.0f}",
        )
        lines.append(row(name, *cells, *shares, f"{own['images']:,}"))
    devices = ", ".join(dict.fromkeys(r["device"].removeprefix("1 x ") for r in rows))
    versions = ", ".join(dict.fromkeys(r["torch"] for r in rows))
    return [
        *lines,
        "",
        f"Validation images of {CIFAR}, L-inf 8/255, the weights of the best validation (the IDC's "
        f"among these images); one {devices}, bf16, compiled, batches of {rows[0]['batch_size']}, torch {versions}; "
        "seconds of all, compiling, the steps that set the number of epochs, and validations included; "
        "images a second of the training alone. One training, one seed.",
        *_full_size_attacked(),
    ]


def _full_size_attacked() -> list[str]:
    """The same models under `adaptive`, on the images that all have been given until now."""
    entries = {e.request.model: e for e in read_comparison(Path(__file__).parent / "peers-full-size.yaml").entries}
    asked = [entries[weights] for _, weights in FULL_SIZE.values()]
    folders = [RESULTS / "peers-full-size" / entry.folder / "adaptive-8-255" for entry in asked]
    found = [read_lines(folder) if any(folder.glob("images-*.jsonl")) else [] for folder in folders]
    common = set[int].intersection(*({line["id"] for line in lines} for lines in found))
    if not common:
        return []
    known = [[line for line in lines if line["id"] in common] for lines in found]
    lines = ["", row("model", "test: clean", "adaptive, 8/255", "n"), row(*["---"] * 4)]
    for (name, _), own in zip(FULL_SIZE.values(), known, strict=True):
        verdicts = summarise_lines(own, [""] * 10)
        lines.append(row(name, *(share(verdicts[kind]["mean"]) for kind in ("clean", "robust")), len(own)))
    pair = paired(*map(withstood, known))
    ended = [read(folder / "summary.json") for folder in folders if (folder / "summary.json").exists()]
    failed = sorted({f["name"] for s in ended for f in s["sanity"] if not f["passed"]})
    checks = f"failed: {', '.join(failed)}" if failed else "passed" if len(ended) == len(folders) else "not run yet"
    wanted = asked[0].request.limit or 0
    part = f"the first {len(common)} of {wanted}" if len(common) < wanted else str(wanted)
    return [
        *lines,
        "",
        f"Test images of {CIFAR}, {part}, networks in bf16, on a CPU (`python benchmarks/peers.py full-size`). "
        f"The IDC beside the CNN: {100 * pair.difference:+.1f} points [{100 * pair.low:.1f}, {100 * pair.high:.1f}], "
        f"{pair.only_first} images against {pair.only_second}, p = {pair.p:.1g} (McNemar's exact test). "
        f"Sanity checks: {checks}.",
    ]


def published_table() -> list[str]:
    """docs/peers.md: what others published, apart from what is measured here."""
    head = ("system (published, not measured here)", "extra data", "clean", "robust", "GFLOPs", "setting", "source")
    lines = [row(*head), row(*["---"] * len(head))]
    for p in published():
        cost = p["gflops"] or ""
        lines.append(
            row(p["system"], p["extra"] or "", f"{p['clean']}%", f"{p['robust']}%", cost, p["setting"], p["source"])
        )
    return [*lines, "", "CIFAR-10 test, original images, L-inf 8/255."]


def field() -> list[str]:
    """docs/peers.md: where the shipped robust model, by its card, stands beside published networks, in a sentence."""
    model = IDC.from_pretrained(SHIPPED)
    own = next((r for r in model.card["measured"] if r["attack"] == "adaptive, L-inf 8/255"), None)
    if own is None:
        return ["Not measured yet."]
    gflops = answer_cost(model, torch.device("cpu"))["flops"] / 1e9
    wanted = ("PreActResNet-18", "WRN-28-10", "WRN-82-8")
    others = [p for name in wanted for p in published() if p["system"].startswith(f"{name} (")]
    told = [f"{p['system'].split(' (')[0]} {p['robust']}% at {p['gflops']:.3g} ({p['extra']})" for p in others]
    return [
        f"`{SHIPPED}`, measured here: {own['accuracy']} at 8/255 under `adaptive`, {gflops:.3g} GFLOPs an "
        f"answer, {own['n']:,} test images of {CIFAR}, no images but the training split (its card). Published, under "
        f"AutoAttack: {'; '.join(told)}. The smallest of these costs {others[0]['gflops'] / gflops:.0f} times as much "
        "an answer."
    ]
