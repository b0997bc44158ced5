"""The figures of README.md and docs/, from benchmarks/results/*.json.

    python benchmarks/pages.py --collect   copy the newest records of runs/ into benchmarks/results/
    python benchmarks/pages.py             write the tables into the pages
    python benchmarks/pages.py --check     fail if a page differs

The records come from

    idc demo --out runs/demo
    idc train --data CIFAR --preset nano --recipe fast --epochs 36 --compile true --out runs/nano
    idc evaluate runs/nano --data CIFAR --draws 10 --out runs/nano-test
    python benchmarks/robustness.py models/digits --name digits --data digits --eps 0.1 0.2
    python benchmarks/robustness.py models/nano --name nano --data CIFAR --eps 8/255 2/255
    python benchmarks/pitfalls.py models/digits --name digits --data digits --eps 0.1
    python benchmarks/parity.py digits_cnn --data digits --eps 0.05 0.1 0.15
    python benchmarks/answers.py runs/nano --data CIFAR --limit 2000
    python benchmarks/loss_memory.py
    idc train --data CIFAR --preset nano --epochs 4 --compile true [see SHORT] --out runs/short-NAME

with CIFAR the CIFAR-10 (JPEG-75) parquet folder.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from common import RESULTS, write

from idc.training.trainer import read_metrics

ROOT = Path(__file__).parents[1]
RUNS = Path("runs")
CIFAR = "CIFAR-10 (JPEG-75)"
SHORT = {
    "paper": ("the paper's loss, t uniform", "--t-weights none --ce-weight 0"),
    "uniform": ("with the cross-entropy term, t uniform", "--t-weights none"),
    "fast": ("with the cross-entropy term, t as `fast` draws it", ""),
}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# -- from runs/ to results/ --------------------------------------------------------------------------------------------


def collect() -> None:
    """Copy what is there; records of runs that are not stay as they are."""
    if (RUNS / "demo" / "demo.json").exists():
        demo = read(RUNS / "demo" / "demo.json")
        write("demo", "idc demo --out runs/demo", demo | {"ran_on": demo.pop("hardware")})
    train = "idc train --data CIFAR --preset nano --recipe fast"
    if (RUNS / "nano-test" / "summary.json").exists():
        summary, test = read(RUNS / "nano" / "summary.json"), read(RUNS / "nano-test" / "summary.json")
        summary["about"]["data"] = CIFAR
        wanted = ("epoch", "seconds", "validation/one_step", "validation/multi_step")
        curve = [
            {name.removeprefix("validation/"): m[name] for name in wanted}
            for m in read_metrics(RUNS / "nano")
            if "validation/one_step" in m
        ]
        command = f"{train} --epochs 36 --compile true --out runs/nano"
        write("nano-train", command, {"summary": summary, "curve": curve})
        test["settings"]["data"]["source"] = CIFAR
        write("nano-test", "idc evaluate runs/nano --data CIFAR --draws 10 --out runs/nano-test", test)
    if all((RUNS / f"short-{name}" / "summary.json").exists() for name in SHORT):
        short = {name: read(RUNS / f"short-{name}" / "summary.json") for name in SHORT}
        for own in short.values():
            own["about"]["data"] = CIFAR
        write("nano-short", f"{train} --epochs 4 --compile true ... --out runs/short-NAME", {"runs": short})


# -- from results/ to pages --------------------------------------------------------------------------------------------


def share(value: dict) -> str:
    return f"{value['mean']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def article(name: str) -> str:
    return ("an " if name[:1] in "AEIOU" else "a ") + name


def measured() -> list[str]:
    """README: what is measured so far."""
    demo, train, test = (read(RESULTS / f"{name}.json") for name in ("demo", "nano-train", "nano-test"))
    memory = read(RESULTS / "loss_memory.json")["rows"][-1]
    one, many = test["accuracy"].values()
    validation, summary, hardware = train["summary"]["validation"], train["summary"], demo["hardware"]
    return [
        row("what", "data", "one-step", f"multi-step, mean of {demo['draws']} draws", "n"),
        row(*["---"] * 5),
        row("`digits`, clean", "digits test", share(demo["clean"]["one_step"]), share(demo["clean"]["multi_step"]),
            demo["data"]["test"]),
        *(row(f"`digits`, PGD-20, eps {p['eps']}", "digits test", share(p["attacked"]["one_step"]),
              share(p["attacked"]["multi_step"]), p["attacked"]["multi_step"]["n"]) for p in demo["attack"]["curve"]),
        row("`nano`, clean", f"{CIFAR} test", share(one), share(many), one["n"]),
        row("`nano`, clean", f"{CIFAR} validation", f"{validation['one_step']:.1%}", f"{validation['multi_step']:.1%}",
            validation["images"]),
        "",
        f"`digits` took {demo['training']['seconds']:.0f} s to train ({demo['ran_on']['threads']} threads of "
        f"{article(hardware['cpu'])}), `nano` {summary['seconds'] / 60:.0f} minutes ({summary['recipe']['epochs']:g} "
        f"epochs, {summary['images_seen']:,} images; {train['hardware']['threads']} threads of "
        f"{article(train['hardware']['cpu'])}), in bf16, on machines shared with other work; one seed each. Brackets: "
        "95% Wilson intervals over test images.",
        "",
        f"The loss step at K = {memory['classes']:,} classes, B = {memory['batch']}, 3x32x32 allocates "
        f"{memory['peak_bytes'] / 2**20:.1f} MiB, {memory['ratio']:.0f} times less than stacking (B, K, C, H, W) "
        "tensors (`python benchmarks/loss_memory.py`).",
    ]  # fmt: skip


def answers() -> list[str]:
    """docs/answers.md: accuracy by visit list, eta and draws."""
    found = read(RESULTS / "answers.json")
    lines = [row("visits", "passes", "eta", "mean of 10 draws", "one draw"), row(*["---"] * 5)]
    for r in found["rows"]:
        stochastic = r["draws"] > 1
        lines.append(
            row(
                ", ".join(map(str, r["visits"])),
                len(set(r["visits"])),
                f"{r['eta']:g}" if len(r["visits"]) > 1 else "any",
                share(r) if stochastic else "the same",
                f"{r['single_draw']:.1%}" if stochastic else share(r),
            )
        )
    return [*lines, "", f"`nano`, {found['settings']['images']:,} validation images of {CIFAR}, one seed."]


def timesteps() -> list[str]:
    """docs/answers.md: what the network can do from the true x_t."""
    rows = read(RESULTS / "answers.json")["true_x_t"]
    return [
        row("t", *(r["t"] for r in rows)),
        row(*["---"] * (len(rows) + 1)),
        row("nearest label right", *(f"{r['accuracy']:.1%}" for r in rows)),
    ]


def learning() -> list[str]:
    """docs/answers.md: accuracy over images seen."""
    curve = read(RESULTS / "nano-train.json")["curve"]
    summary = read(RESULTS / "nano-train.json")["summary"]
    each = summary["images_seen"] / summary["recipe"]["epochs"]
    lines = [row("epoch", "images seen", "one-step", "multi-step, one draw"), row(*["---"] * 4)]
    for r in [c for c in curve if c["epoch"] in (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 35)]:
        values = (f"{r[k]:.1%}" for k in ("one_step", "multi_step"))
        lines.append(row(f"{r['epoch']:g}", f"{r['epoch'] * each:,.0f}", *values))
    return lines


def short() -> list[str]:
    """docs/answers.md: what the loss and the choice of t do in four epochs."""
    runs = read(RESULTS / "nano-short.json")["runs"]
    lines = [row("training", "flags", "one-step", "multi-step, mean of 10 draws"), row(*["---"] * 4)]
    for name, (what, flags) in SHORT.items():
        found = runs[name]["validation"]
        cells = (f"{found[k]:.1%}" for k in ("one_step", "multi_step"))
        lines.append(row(what, f"`{flags}`" if flags else "", *cells))
    first = runs["fast"]
    return [
        *lines,
        "",
        f"`nano`, {first['recipe']['epochs']:g} epochs ({first['images_seen']:,} images), "
        f"{first['validation']['images']:,} validation images of {CIFAR}, one seed.",
    ]


# -- docs/robustness.md ------------------------------------------------------------------------------------------------

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
        "[docs/robustness.md](docs/robustness.md) has the rest.",
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
        f"L-inf. {about}. One seed, one training each. {versions}.",
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
    return lines


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
    return [
        *lines,
        "",
        "Per image; calls of the model's functions (an answer of the chain is one call, three passes of the network). "
        f"Seconds of one process with {threads} thread(s), on a machine that ran several of them and other work.",
    ]


BLOCKS: dict[str, Callable[[], list[str]]] = {
    f.__name__: f for f in (measured, answers, timesteps, learning, short, robust, robustness, pitfalls, parity, costs)
}
PLACE = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def main() -> None:
    if "--collect" in sys.argv:
        collect()
        return
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        new = PLACE.sub(lambda m: m[1] + "\n".join(BLOCKS[m[2]]()).rstrip() + "\n" + m[3], text)
        if "--check" not in sys.argv:
            page.write_text(new, encoding="utf-8")
        elif new != text:
            sys.exit(f"{page.name} differs from benchmarks/results: run python benchmarks/pages.py")


if __name__ == "__main__":
    main()
