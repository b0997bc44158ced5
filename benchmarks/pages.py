"""The figures of README.md and docs/, from benchmarks/results/*.json.

    python benchmarks/pages.py --collect   copy the newest records of runs/ into benchmarks/results/
    python benchmarks/pages.py             write the tables into the pages
    python benchmarks/pages.py --check     fail if a page differs

The records come from

    idc demo --out runs/demo --limit 539
    idc train --data CIFAR --preset nano --recipe fast --epochs 36 --compile --out runs/nano
    idc evaluate runs/nano --data CIFAR --draws 10 --out runs/nano-test
    python benchmarks/robustness.py models/digits --name digits --data digits --eps 0.1 0.2
    python benchmarks/robustness.py idc-nano-cifar10 --name nano --data CIFAR --eps 8/255 2/255
    python benchmarks/pitfalls.py models/digits --name digits --data digits --eps 0.1
    python benchmarks/parity.py idc-digits-robust --data digits --eps 0.15 --limit 64
    python benchmarks/passes.py BEFORE AFTER --name TEXT --kind robust
    make peers
    idc train --recipe recipes/idc-nano-cifar10-robust.yaml --data CIFAR --out runs/idc-nano-cifar10-robust
    idc train --recipe recipes/idc-nano-cifar10-robust-v2.yaml --data CIFAR --out runs/idc-nano-cifar10-robust-v2
    idc train --recipe recipes/idc-small-cifar10-robust.yaml --data CIFAR --out runs/idc-small-cifar10-robust
    idc train ... --out runs/small-mixed (training_pages.py has its flags)
    python benchmarks/peers.py robust --stage train (makes models/cifar10-thin-pgd-at, where that is not)
    idc train --recipe benchmarks/unet.yaml --visits 3,1,0 --data CIFAR --out runs/nano-robust
    python benchmarks/answers.py runs/nano --data CIFAR --limit 2000
    make bench
    python benchmarks/precision.py --data CIFAR
    python benchmarks/peers.py digits-robust
    python benchmarks/peers.py cifar
    python benchmarks/peers.py robust
    python benchmarks/ablations.py digits
    python benchmarks/ablations.py nano --data CIFAR
    python benchmarks/export.py --cifar CIFAR
    python benchmarks/doubt.py --data CIFAR --photos FOLDER
    python benchmarks/image_labels.py --data digits --limit 300
    python benchmarks/image_labels.py --data CIFAR
    python benchmarks/paper.py run --data CIFAR; python benchmarks/paper.py draw
    python benchmarks/gpu.py run --data CIFAR; python benchmarks/gpu.py collect
    python benchmarks/photos.py run --data PHOTOS --heldout HELDOUT; python benchmarks/photos.py collect
    idc train --data CIFAR --preset nano --epochs 4 --compile [see SHORT] --out runs/short-NAME

with CIFAR the CIFAR-10 (JPEG-75) parquet folder. What was written while the weights of nano still lay in the
repository as float32 says so in the pages (ROUNDED).
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from ablation_pages import ablation, ingredients
from answer_pages import SHORT, answers, learning, short, timesteps
from common import CIFAR, MODELS, RESULTS, ROOT, ROUNDED, article, read, write
from doubt_pages import doubt
from label_pages import image_labels
from paper_pages import claims, full_evaluation, own_photos
from paper_tables import (
    paper_attacks,
    paper_flaws,
    paper_network,
    paper_points,
    paper_pruning,
    paper_recipes,
    paper_steps,
    paper_trainings,
    paper_visits,
)
from peer_pages import at_a_glance, compared, field, full_size, peers, published_table, transfer
from robust_pages import costs, parity, passes, pitfalls, robust, robustness
from speed_pages import bf16, loss_memory, plan, precision, profiled, scaling, speed
from training_pages import (
    BY_MUON,
    SHIPPED,
    THIN,
    distilled_learning,
    mixed_learning,
    muon_learning,
    overfitting,
    robust_learning,
    small_learning,
)

from idc.storage import records
from idc.storage.locate import HOME
from idc.text import percent, share, table_head, table_row

RUNS = Path("runs")
UNET = "benchmarks/unet.yaml"
ANSWERS = {"one-step": "one_step", "multi-step": "multi_step"}  # the demo's sweeps
CNN = "python benchmarks/peers.py robust --stage train, without models/cifar10-thin-pgd-at"


# -- from runs/ to results/ --------------------------------------------------------------------------------------------


def collect() -> None:
    """Copy what is there; records of runs that are not stay as they are."""
    if all((RUNS / "demo" / answer / "sweep.json").exists() for answer in ANSWERS):
        write("demo", "idc demo --out runs/demo --limit 539", _demo(RUNS / "demo"))
    train = "idc train --data CIFAR --preset nano --recipe fast"
    if (RUNS / "nano-test" / "summary.json").exists():
        summary, test = _summary("nano"), read(RUNS / "nano-test" / "summary.json")
        command = f"{train} --epochs 36 --compile --out runs/nano"
        write("nano-train", command, {"summary": summary, "curve": _curve(RUNS / "nano", "one_step", "multi_step")})
        test["settings"]["data"]["source"] = CIFAR
        write("nano-test", "idc evaluate runs/nano --data CIFAR --draws 10 --out runs/nano-test", test)
    if (RUNS / "nano-robust" / "summary.json").exists():
        summary = _summary("nano-robust")
        curve = _curve(RUNS / "nano-robust", "one_step", "attacked_one_step", "attacked_multi_step", "images")
        command = f"idc train --recipe {UNET} --visits 3,1,0 --data CIFAR --out runs/nano-robust"
        write("nano-robust-train", command, {"summary": summary, "curve": curve})
    for name, (run, flags) in BY_MUON.items():
        if (RUNS / run / "summary.json").exists():
            curve = _curve(RUNS / run, "one_step", "attacked_one_step", "images")
            command = f"idc train {flags} --data CIFAR --out runs/{run}"
            write(name, command, {"summary": _summary(run), "curve": curve, "fit": _fit(RUNS / run)})
    if all((RUNS / run / "summary.json").exists() for run in (SHIPPED, THIN)):
        both = {SHIPPED: _curve(RUNS / SHIPPED, "one_step", "attacked_one_step", "images"),
                THIN: _curve(RUNS / THIN, "clean", "robust", "images")}  # fmt: skip
        runs = {run: {"summary": _summary(run), "curve": curve} for run, curve in both.items()}
        command = f"idc train --recipe recipes/{SHIPPED}.yaml --data CIFAR --out runs/{SHIPPED}; {CNN}"
        write("robust-train", command, {"runs": runs})
    if all((RUNS / f"short-{name}" / "summary.json").exists() for name in SHORT):
        short = {name: _summary(f"short-{name}") for name in SHORT}
        write("nano-short", f"{train} --epochs 4 --compile ... --out runs/short-NAME", {"runs": short})


def _demo(folder: Path) -> dict:
    """Both answers of the demo's model, clean and over eps: shares of draws that are right."""
    sweeps = {key: read(folder / answer / "sweep.json")["rows"] for answer, key in ANSWERS.items()}
    first = read(folder / "multi-step" / f"eps-{sweeps['multi_step'][0]['text']}" / "summary.json")

    def both(index: int, kind: str) -> dict:
        return {key: rows[index][kind]["mean"] for key, rows in sweeps.items()}

    return {
        "draws": first["draws"],
        "data": {"test": first["images"]},
        "training": read(folder / "run" / "summary.json"),
        "ran_on": {"threads": first["settings"]["threads"]},
        "clean": both(0, "clean"),
        "attack": {"curve": [{"eps": row["value"], "attacked": both(i, "robust"), "noise": both(i, "noise")}
                             for i, row in enumerate(sweeps["one_step"])]},
    }  # fmt: skip


def _summary(run: str) -> dict:
    """What a run on CIFAR-10 came to, its data by name, not by its place on this machine."""
    summary = read(RUNS / run / "summary.json")
    summary["about"]["data"] = CIFAR
    if "from" in summary["about"]:
        summary["about"]["from"] = re.sub(r".*(?=runs/)", "", summary["about"]["from"])
    return summary


def _fit(run: Path) -> dict:
    """The accuracy of a run's best weights on some of the images that they were trained on."""
    last = max((run / "checkpoints").glob("step-*/progress.json"))
    fit: dict = read(last)["fit"]
    return fit


def _curve(run: Path, *wanted: str) -> list[dict[str, float]]:
    """What the validations of a run found."""
    return [
        {name: m[name] for name in ("epoch", "seconds")} | {name: m[f"validation/{name}"] for name in wanted}
        for m in records.read(run / "metrics.jsonl")
        if f"validation/{wanted[0]}" in m
    ]


# -- from results/ to pages --------------------------------------------------------------------------------------------


def _other_training(validation: dict) -> str:
    """What to add if the packaged model is not of the training that was recorded."""
    own = read(HOME / MODELS["nano"] / "config.json")["card"]["figures"]
    same = own == {f"validation {k}": v for k, v in validation.items()}
    return "" if same else f" The packaged `{MODELS['nano']}` is of another training by the same recipe."


def measured() -> list[str]:
    """README: what is measured so far."""
    demo, train, test = (read(RESULTS / f"{name}.json") for name in ("demo", "nano-train", "nano-test"))
    one = test["accuracy"]["one-step"]
    many = next(own for name, own in test["accuracy"].items() if name != "one-step")
    validation, summary, hardware = train["summary"]["validation"], train["summary"], demo["hardware"]
    return [
        *table_head("what", "data", "one-step", f"multi-step, mean of {demo['draws']} draws", "n"),
        table_row("`digits`, clean", "digits test", share(demo["clean"]["one_step"]),
                  share(demo["clean"]["multi_step"]), demo["data"]["test"]),
        *(table_row(f"`digits`, PGD-20, eps {p['eps']}", "digits test", share(p["attacked"]["one_step"]),
                    share(p["attacked"]["multi_step"]), p["attacked"]["multi_step"]["n"])
          for p in demo["attack"]["curve"]),
        table_row("`nano`, clean", f"{CIFAR} test", share(one), share(many), one["n"]),
        table_row("`nano`, clean", f"{CIFAR} validation", percent(validation["one_step"]),
                  percent(validation["multi_step"]), validation["images"]),
        "",
        f"`digits` took {demo['training']['seconds']:.0f} s to train ({demo['ran_on']['threads']} threads of "
        f"{article(hardware['cpu'])}), `nano` {summary['seconds'] / 60:.0f} minutes ({summary['recipe']['epochs']:g} "
        f"epochs, {summary['images_seen']:,} images; {train['hardware']['threads']} threads of "
        f"{article(train['hardware']['cpu'])}), in bf16, on machines shared with other work; one seed each. Brackets: "
        "95% Wilson intervals over test images." + _other_training(validation),
        "",
        loss_memory(),
    ]  # fmt: skip


def serving() -> list[str]:
    """docs/serving.md: latency, throughput and agreement of every engine."""
    if not (RESULTS / "export.json").exists():
        return ["Not measured yet."]
    found = read(RESULTS / "export.json")
    head = ("model", "visits", "engine", "file", "batch 1", "batch 64", "same class as PyTorch")
    lines = table_head(*head)
    for r in found["rows"]:
        size = "" if r["bytes"] is None else f"{r['bytes'] / 1e6:.1f} MB"
        same = "" if r["bytes"] is None else f"{r['agreement']:.1%} of {r['images']:,}"
        cells = (f"{r['latency_ms']:.1f} ms", f"{r['images_per_second']:,.0f} images/s", same)
        lines.append(table_row(f"`{r['model']}`", ", ".join(map(str, r["visits"])), r["engine"], size, *cells))
    settings, hardware = found["settings"], found["hardware"]
    return [
        *lines,
        "",
        f"One draw of the noise, the same for all; {hardware['threads']} thread(s) of {article(hardware['cpu'])}, on a "
        f"machine shared with other work; medians of {settings['rounds']} turns; torch {hardware['torch']}, "
        f"onnxruntime {settings['onnxruntime']}. Test images of digits and of {CIFAR}."
        + ("" if "nano" in settings else f" {ROUNDED}"),
    ]


BLOCKS: dict[str, Callable[[], list[str]]] = {
    f.__name__: f for f in (measured, answers, timesteps, learning, short, serving, robust, robustness, pitfalls,
                            parity, passes, costs, at_a_glance, compared, full_size, peers, published_table, field,
                            robust_learning, muon_learning, small_learning, distilled_learning, mixed_learning,
                            overfitting, speed, bf16, precision, profiled, scaling, plan, ablation, ingredients,
                            doubt, image_labels,
                            claims, full_evaluation, own_photos, paper_attacks, paper_network, paper_points,
                            paper_pruning, paper_steps, paper_visits, paper_trainings, paper_recipes, paper_flaws,
                            transfer)
}  # fmt: skip
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
