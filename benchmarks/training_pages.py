"""The tables of docs/training.md on trainings against attacks; see pages.py."""

from common import CIFAR, RESULTS, article, read
from robust_pages import DISTILLED, LATEST, NANO_MIXED, SHIPPED, SMALL_MIXED

from idc.accuracy import ON_CROSS_ENTROPY
from idc.text import eps_text, table_head, table_row

THIN = "peers/thin"
LARGER, MIXED = "idc-small-cifar10-robust", "small-mixed"
TAUGHT = {name: model.removeprefix("models/") for name, model in (("nano", NANO_MIXED), ("small", SMALL_MIXED))}
BY_MUON = {  # files of results: the runs that they are of, and how these are trained but for data and folder
    "muon-train": (LATEST, f"--recipe recipes/{LATEST}.yaml"),
    "distilled-train": (DISTILLED, f"--recipe recipes/{DISTILLED}.yaml"),
    "small-train": (LARGER, f"--recipe recipes/{LARGER}.yaml"),
    "small-mixed-train": (MIXED, f"--recipe recipes/{LARGER}.yaml --from runs/{LARGER}/best --epochs 8 --lr 0.004 "
                          "--mix cutmix --mix-rate 0.5 --validate-every 2 --eps-warmup 0"),
    **{f"{name}-mixed-taught-train": (run, f"--recipe recipes/{run}.yaml") for name, run in TAUGHT.items()},
}  # fmt: skip


def robust_learning() -> list[str]:
    """docs/training.md: clean and robust accuracy while idc-nano-cifar10-robust was trained, and a CNN beside it."""
    if not (RESULTS / "robust-train.json").exists():
        return ["Not measured yet."]
    found = read(RESULTS / "robust-train.json")
    runs = [found["runs"][run] for run in (SHIPPED, THIN)]
    under = [f"under {run['summary']['validation'].get('attacked_by', ON_CROSS_ENTROPY)}" for run in runs]
    lines = table_head("epoch", "IDC: clean", under[0], "CNN: clean", under[1])
    keys = (("one_step", "attacked_one_step"), ("clean", "robust"))
    curves = [{r["epoch"]: [r[k] for k in own] for r in run["curve"]} for run, own in zip(runs, keys, strict=True)]
    for epoch in sorted({epoch for curve in curves for epoch in curve}):
        pairs = [[f"{v:.1%}" for v in curve.get(epoch, ())] or ["", ""] for curve in curves]
        lines.append(table_row(f"{epoch:g}", *pairs[0], *pairs[1]))
    idc, cnn = (run["summary"] for run in runs)
    own, other = idc["validation"], cnn["validation"]
    return [
        *lines,
        "",
        f"{runs[0]['curve'][0]['images']:,} validation images of {CIFAR}, eps {eps_text(own['eps'])}, one seed; IDC "
        f"{idc['seconds']:,.0f} s, CNN {cnn['seconds']:,.0f} s, one thread each on two cores of "
        f"{article(found['hardware']['cpu'])}. On {own['images']:,} validation images the kept weights reach "
        f"{own['one_step']:.1%} clean and {own['attacked_one_step']:.1%} {under[0]} (IDC), {other['clean']:.1%} and "
        f"{other['robust']:.1%} (CNN).",
    ]


def muon_learning() -> list[str]:
    """docs/training.md: the same of idc-nano-cifar10-robust-v2."""
    return _learning("muon-train")


def distilled_learning() -> list[str]:
    """docs/training.md: the same of idc-nano-cifar10-distilled."""
    return _learning("distilled-train")


def mixed_learning() -> list[str]:
    """docs/training.md: the same of idc-nano-cifar10-mixed and idc-small-cifar10-mixed."""
    return [
        *_learning("nano-mixed-taught-train"),
        "",
        f"And `{TAUGHT['small']}`:",
        "",
        *_learning("small-mixed-taught-train"),
    ]


def small_learning() -> list[str]:
    """docs/training.md: the same of idc-small-cifar10-robust, and of what was trained from it with mixed images."""
    lines = _learning("small-train")
    if (RESULTS / "small-mixed-train.json").exists():
        found = read(RESULTS / "small-mixed-train.json")
        own, recipe = found["summary"]["validation"], found["summary"]["recipe"]
        lines += [
            "",
            f"Trained on from there for {recipe['epochs']:g} epochs with {recipe['mix_rate']:.0%} of the images mixed "
            f"by CutMix, its best weights reach {own['one_step']:.1%} clean and {own['attacked_one_step']:.1%} "
            f"under the same attack, on the same {own['images']:,} images, {_fit(found)}.",
        ]
    return lines


def _learning(name: str) -> list[str]:
    """The validations of one run."""
    if not (RESULTS / f"{name}.json").exists():
        return ["Not measured yet."]
    found = read(RESULTS / f"{name}.json")
    summary, own = found["summary"], found["summary"]["validation"]
    under, many = f"under {own['attacked_by']}", list(summary["seconds_on"]) == ["2 x CPU"]
    lines = table_head("epoch", "clean", under)
    lines += [
        table_row(f"{r['epoch']:g}", f"{r['one_step']:.1%}", f"{r['attacked_one_step']:.1%}") for r in found["curve"]
    ]
    return [
        *lines,
        "",
        f"{found['curve'][0]['images']:,} validation images of {CIFAR}, eps {eps_text(own['eps'])}, one seed; "
        f"{summary['seconds']:,.0f} s, {summary['images_seen']:,} images, {'both' if many else 'one of two'} "
        f"cores of {article(found['hardware']['cpu'])}. On {own['images']:,} validation images the kept weights reach "
        f"{own['one_step']:.1%} clean and {own['attacked_one_step']:.1%} {under}, {_fit(found)}.",
    ]


def _fit(found: dict) -> str:
    fit = found["fit"]
    return f"on {fit['images']:,} of their own training images {fit['attacked_one_step']:.1%}"


def overfitting() -> list[str]:
    """docs/training.md: clean and robust accuracy in a longer training, of a U-Net."""
    found = read(RESULTS / "nano-robust-train.json")
    curve, summary = found["curve"], found["summary"]
    under = f"under {summary['validation'].get('attacked_by', ON_CROSS_ENTROPY)}"
    lines = table_head("epoch", "clean", f"one-step {under}", f"multi-step {under}")
    names = ("one_step", "attacked_one_step", "attacked_multi_step")
    shown = [r for r in curve if r["epoch"] % 10 == 0 and r["epoch"] < summary["recipe"]["epochs"]]
    lines += [table_row(f"{r['epoch']:g}", *(f"{r[name]:.1%}" for name in names)) for r in shown]
    best = max(curve[:-1], key=lambda r: r["attacked_one_step"] + r["attacked_multi_step"])
    last, own = curve[-1], summary["validation"]
    hours = f"{summary['seconds'] / 3600:.1f} hours, nearly all on two cores of {article(found['hardware']['cpu'])}"
    return [
        *lines,
        "",
        f"{best['images']:,} validation images of {CIFAR}, one draw, eps {eps_text(own['eps'])}, one seed; {hours}. "
        f"The best validation is kept, here that of epoch {best['epoch']:g}. On {own['images']:,} validation "
        f"images its weights reach {own['one_step']:.1%} clean and {own['attacked_one_step']:.1%} {under} in one "
        f"step, the last weights {last['one_step']:.1%} and {last['attacked_one_step']:.1%} (on {last['images']:,}).",
    ]
