"""The tables of docs/peers.md and of the trainings of full size: IDC beside other systems; see pages.py."""

from pathlib import Path
from typing import cast

import torch
from common import CIFAR, RESULTS, read, records_of, share_of
from paper_figures import SMALL, part
from robust_pages import DISTILLED, MIRRORED, NAMES, OF_PART

from idc import IDC
from idc.accuracy import ON_CROSS_ENTROPY
from idc.commands.compare import read_comparison
from idc.commands.opening import open_model
from idc.cost import answer_cost
from idc.evaluation.pairing import paired, survived
from idc.evaluation.summary import read_lines, summarise_lines
from idc.evaluation.verdict import wilson
from idc.report.comparison import HALF, markdown, published
from idc.text import gflops_text, percent, share, table_head, table_row
from idc.types import Classifier

FULL_SIZE = {  # runs of full_size.py: name, where the weights lie
    "idc-base-cifar10-robust": ("IDC, `base-encoder`", "models/idc-base-cifar10-robust"),
    "pgd-at": ("PreActResNet-18, PGD-AT", "models/cifar10-preact-pgd-at"),
}


GLANCE = {  # jobs of gpu.py
    "base-adaptive-8": "IDC, the paper's network and losses",
    "thin-adaptive-8": "CNN, PGD-AT",
    "nano-robust-adaptive-8": "IDC, trained against attacks",
}


NEWER = {  # parts of paper.py
    "all-robust-v2": "IDC, trained against attacks by Muon, on patches",
    "all-thin-muon": "CNN, PGD-AT by Muon",
    "all-distilled": "IDC by Muon, taught by three trained models",
    "all-thin-distilled": "CNN by Muon, taught by the same",
    "all-nano-mixed": "IDC, the taught one, on with half of its images mixed",
    "all-thin-mixed": "CNN, the taught one, on with half of its images mixed",
    "all-small-mixed": "IDC, three times the FLOPs, trained as the last",
    "all-nano-mirrored": "IDC of 0.068 GFLOPs with mixed images, asked for an image and its mirror image",
}


def _comparisons() -> list[tuple[str, dict, str]]:
    """The comparisons that there are: their names, results, and what they are of."""
    digits, cifar = NAMES["digits"][1], NAMES["nano"][1]
    about = {"digits": digits, "digits-robust": f"{digits}, trained against attacks", "cifar": cifar,
             "cifar-16": SMALL, "robust": f"{cifar}, trained against attacks"}  # fmt: skip
    files = {name: RESULTS / f"peers-{name}.json" for name in about}
    return [(name, read(file), about[name]) for name, file in files.items() if file.exists()]


def peers() -> list[str]:
    """docs/peers.md: every system, the same images."""
    lines = []
    for name, found, about in _comparisons():
        picture = f"![robust accuracy over the FLOPs of an answer, {about}](peers-{name}.png)"
        lines += [*_compared(found, about), *_lacking(found), "", picture, ""]
    return lines or ["Not measured yet."]


def at_a_glance() -> list[str]:
    """README: what the adaptive protocol leaves of each kind of model."""
    lines = table_head("data, L-inf eps", "model", "GFLOPs", "clean", "robust (`adaptive`)", "n")
    for r in (r for r in read(RESULTS / "peers-cifar-16.json")["rows"] if "adaptive" in r["protocols"]):
        cells = (gflops_text(r["flops"]), percent(r["clean"]["mean"]["mean"]), share_of(r["protocols"]["adaptive"]))
        lines.append(table_row(f"{SMALL}, {r['eps_text']}", r["name"], *cells, r["images"]))
    rows = {row["job"]: row for row in read(RESULTS / "gpu.json")["rows"]}
    for job, title in GLANCE.items():
        clean, images = rows[job]["clean"]["mean"], rows[job]["robust"]["mean"]["n"]
        cost = answer_cost(cast(Classifier, open_model(rows[job]["model"])), torch.device("cpu"))["flops"]
        cells = (gflops_text(cost), percent(clean["mean"]), share_of(rows[job]), f"{images:,}")
        lines.append(table_row(f"{CIFAR} test, {rows[job]['eps']}", title, *cells))
    for name, title in NEWER.items():
        if robust := (own := part(name)).get("robust"):
            model = open_model(OF_PART[name])
            model = cast(IDC, model).with_answer(mirrored=True) if name in MIRRORED else model
            cost = answer_cost(cast(Classifier, model), torch.device("cpu"))["flops"]
            cells = (gflops_text(cost), percent(own["clean"]["mean"]["mean"]), share_of(own))
            lines.append(table_row(f"{CIFAR} test, 8/255", title, *cells, f"{robust['mean']['n']:,}"))
    note = "Mean over draws of the noise, 95% intervals over images; one training and one seed each. "
    note += "Unreliable: a sanity check failed, the figure is an upper bound."
    return [*lines, "", note]


def compared() -> list[str]:
    """docs/results.md: every system in short, its robust accuracy under the adaptive protocol as the mean of draws."""
    lines = []
    for _, found, about in _comparisons():
        rows = [r for r in found["rows"] if "adaptive" in r["protocols"]]
        sizes = {r["eps"]: f"adaptive, eps {r['eps_text']}" for r in sorted(rows, key=lambda r: float(r["eps"]))}
        head = (about, "GFLOPs", "NFE", "clean", *sizes.values(), "n")
        lines += table_head(*head)
        for name in dict.fromkeys(r["name"] for r in rows):
            own = {r["eps"]: r for r in rows if r["name"] == name}
            first = next(iter(own.values()))
            cells = [share_of(own[eps]["protocols"]["adaptive"]) if eps in own else "" for eps in sizes]
            cost = (gflops_text(first["flops"]), f"{first['network_evaluations']:,}")
            lines.append(table_row(name, *cost, f"{first['clean']['mean']['mean']:.1%}", *cells, first["images"]))
        lines.append("")
        notes = [HALF] if any(r.get("answer", {}).get("precision") == "bf16" for r in rows) else []
        if found.get("lacking"):
            notes.append("The rest is not measured yet ([peers](peers.md)).")
        lines += [" ".join(notes), ""] if notes else []
    return lines or ["Not measured yet."]


def _lacking(found: dict) -> list[str]:
    """What of a comparison has not been measured."""
    return ["", f"Not measured yet: {'; '.join(found['lacking'])}."] if found.get("lacking") else []


def _compared(found: dict, about: str) -> list[str]:
    rows, hardware = found["rows"], found["hardware"]
    each = sorted({own["draws"] for r in rows for own in r["protocols"].values()})
    draws = f"{each[0]} draw{'s' * (each[0] > 1)}"
    draws += f", {' or '.join(map(str, each[1:]))} of answers with noise" if len(each) > 1 else ""
    return [
        *markdown(rows, found.get("pairs", ())).splitlines(),
        "",
        f"{about}, L-inf, {draws}, one seed and one training each; `{hardware['command']}` "
        f"on {hardware['cores']} cores of {hardware['cpu']}, seconds on a machine that ran several of them.",
    ]


def full_size() -> list[str]:
    """docs/training.md: the trainings on a GPU, as their validations found them."""
    file = RESULTS / "full-size.json"
    rows = [r for r in read(file)["rows"] if r["name"] in FULL_SIZE] if file.exists() else []
    if not rows:
        return ["Not measured yet."]
    under = " or ".join(dict.fromkeys(f"under {r['chosen'].get('attacked_by', ON_CROSS_ENTROPY)}" for r in rows))
    head = ("model", "GFLOPs an answer", "epochs", "images a second", "seconds", "validation: clean", under, "n")
    lines = table_head(*head)
    for r in rows:
        name, folder = FULL_SIZE[r["name"]]
        gflops = answer_cost(cast(Classifier, open_model(folder)), torch.device("cpu"))["flops"] / 1e9
        own = r["chosen"]
        clean, robust = (own[k] if k in own else own[other]
                         for k, other in (("clean", "one_step"), ("robust", "attacked_one_step")))  # fmt: skip
        shares = (str(wilson(value, own["images"])) for value in (clean, robust))
        cells = (
            f"{gflops:.3g}",
            f"{r['epochs']:g}",
            f"{r['images_seen'] / r['seconds_of_training']:,.0f}",
            f"{r['seconds']:.0f}",
        )
        lines.append(table_row(name, *cells, *shares, f"{own['images']:,}"))
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
    folders = [records_of("peers-full-size") / entry.folder / "adaptive-8-255" for entry in asked]
    found = [read_lines(folder) if any(folder.glob("images-*.jsonl")) else [] for folder in folders]
    common = set[int].intersection(*({line["id"] for line in lines} for lines in found))
    if not common:
        return []
    known = [[line for line in lines if line["id"] in common] for lines in found]
    lines = ["", *table_head("model", "test: clean", "adaptive, 8/255", "n")]
    for (name, _), own in zip(FULL_SIZE.values(), known, strict=True):
        verdicts = summarise_lines(own, [""] * 10)
        lines.append(table_row(name, *(share(verdicts[kind]["mean"]) for kind in ("clean", "robust")), len(own)))
    pair = paired(*map(survived, known))
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
        f"{pair.ahead_first} images against {pair.ahead_second}, p = {pair.p:.1g} (McNemar's exact test). "
        f"Sanity checks: {checks}.",
    ]


def transfer() -> list[str]:
    """docs/peers.md: attacked images of one model, given to others."""
    if not (RESULTS / "transfer.json").exists():
        return ["Not measured yet."]
    found = read(RESULTS / "transfer.json")
    models = [name for name in found["rows"][0] if name != "source"]
    told = {"clean": "none: clean", "random": "none: moved at random"}
    return [
        *table_head("images made for", *(f"asked: `{name}`" for name in models)),
        *(table_row(told.get(r["source"], f"`{r['source']}`"), *(share(r[n]) for n in models)) for r in found["rows"]),
        "",
        f"What each model answers rightly. {found['images']:,} test images of {found['data']}, L-inf {found['eps']}, "
        f"PGD of {found['steps']} steps along the margin, its last iterate, on an IDC along a smooth surrogate; "
        "brackets: 95% Wilson intervals (`python benchmarks/transfer.py`).",
    ]


def published_table() -> list[str]:
    """docs/peers.md: what others published, apart from what is measured here."""
    head = ("system (published, not measured here)", "extra data", "clean", "robust", "GFLOPs", "setting", "source")
    lines = table_head(*head)
    for p in published():
        figures = (f"{p['clean']}%", f"{p['robust']}%", p["gflops"] or "")
        lines.append(table_row(p["system"], p["extra"] or "", *figures, p["setting"], p["source"]))
    return [*lines, "", "CIFAR-10 test, original images, L-inf 8/255."]


def field() -> list[str]:
    """docs/peers.md: where the shipped robust model, by its card, is set beside published networks, in a sentence."""
    model = IDC.from_pretrained(DISTILLED)
    own = next((r for r in model.card["measured"] if r["attack"] == "adaptive, L-inf 8/255"), None)
    if own is None:
        return ["Not measured yet."]
    gflops = answer_cost(model, torch.device("cpu"))["flops"] / 1e9
    wanted = ("PreActResNet-18", "WRN-28-10", "WRN-82-8")
    others = [p for name in wanted for p in published() if p["system"].startswith(f"{name} (")]
    told = [f"{p['system'].split(' (')[0]} {p['robust']}% at {p['gflops']:.3g} ({p['extra']})" for p in others]
    return [
        f"`{DISTILLED}`, measured here: {own['accuracy']} at 8/255 under `adaptive`, {gflops:.3g} GFLOPs an "
        f"answer, {own['n']:,} test images of {CIFAR}, no images but the training split (its card). Published, under "
        f"AutoAttack: {'; '.join(told)}. The smallest of these costs {others[0]['gflops'] / gflops:.0f} times as much "
        "an answer."
    ]
