"""The tables of docs/paper.md, and of the photos in docs/photos.md; see pages.py."""

from collections.abc import Sequence
from typing import Any

from common import CIFAR, RESULTS, article, read, share_of, survivors
from paper_figures import part, search_of
from robust_pages import MIRRORED, OF_PART

from idc.evaluation.pairing import paired
from idc.storage.fields import recorded
from idc.text import count_text, flops_text, percent, share, table_head, table_row

WAYS = {"defaults": "`idc train --data photos`", "cnn": "`idc train-peer cnn --method standard --width 16`",
        "cnn-64": "the same CNN with `--image-size 64`, four times the FLOPs",
        "from": "with `--from idc-nano-cifar10`", "64": "with `--image-size 64`"}  # fmt: skip


def _jobs() -> dict[str, dict[str, Any]]:
    return {row["job"]: row for row in read(RESULTS / "gpu.json")["rows"]}


FULL = {"all-nano": "`idc-nano-cifar10`, one step"} | {
    name: f"`{model}`{', mirrored' if name in MIRRORED else ''}" for name, model in OF_PART.items()
}
BESIDE = (
    ("all-robust-v2", "all-thin-muon"), ("all-small-robust", "all-robust-v2"), ("all-distilled", "all-robust-v2"),
    ("all-thin-distilled", "all-thin-muon"), ("all-distilled", "all-thin-distilled"),
    ("all-nano-mixed", "all-distilled"), ("all-thin-mixed", "all-thin-distilled"),
    ("all-nano-mixed", "all-thin-mixed"), ("all-small-mixed", "all-small-robust"),
    ("all-small-mixed", "all-nano-mixed"), ("all-nano-mirrored", "all-nano-mixed"),
)  # fmt: skip


def _checks(made: dict[str, int], *, passed: bool) -> str:
    return "passed" if passed else f"{made.get('passed', 0)} of {made.get('made', 0)} passed"


def full_evaluation() -> list[str]:
    """All test images under the adaptive protocol."""
    lines = table_head("model", "clean", "robust, 8/255", "n", "seconds", "of", "sanity checks")
    gpu = "one H100, bf16, several side by side"
    for row in _jobs().values():
        if row["images"] == 10_000 and "robust" in row:
            cost = row.get("cost", {})
            seconds = row["seconds"] if "seconds" in row else cost["seconds"] * row["images"]
            checks = _checks(row.get("checks", {}), passed=row.get("reliable", False))
            checks += "" if row["state"] == "done" else ", the rest not made"
            pair = [share(row[kind]["mean"]) for kind in ("clean", "robust")]
            lines.append(table_row(f"`{row['model']}`", *pair, row["images"], f"{seconds:.0f}", gpu, checks))
    for name, title in FULL.items():
        if (own := part(name)).get("robust"):
            pair = [share(own[kind]["mean"]) for kind in ("clean", "robust")]
            numbers = {"fp32": "float32"}.get(own.get("precision", "fp32"), "bf16")
            of = f"one core of {article(own['hardware']['cpu'])}, {numbers}"
            checks = _checks(own["checks"], passed=own["checks"]["passed"] == own["checks"]["made"])
            lines.append(table_row(title, *pair, own["images"], f"{own['core_seconds']:.0f}", of, checks))
    said = [
        f"Of the same {p['images']:,} images the IDC alone survives {p['ahead_first']} and the CNN alone "
        f"{p['ahead_second']}; the difference is {_points(p)}."
        for p in read(RESULTS / "gpu.json").get("pairs", [])
    ]
    said += [_beside(*pair) for pair in BESIDE if all("survived" in part(name) for name in pair)]
    return [*lines, "", f"{CIFAR}, one model each. " + " ".join(said)]


def _beside(first: str, second: str) -> str:
    """How far one part's model is ahead of the other's on the same images."""
    found = recorded(paired(*(survivors(part(name)) for name in (first, second))))
    return f"{FULL[first]} beside {FULL[second]}, robust on {found['images']:,} images: {_points(found)}."


def _points(pair: dict[str, Any]) -> str:
    """A recorded ``Paired`` in points."""
    ahead, low, high = (f"{100 * pair[name]:+.1f}" for name in ("difference", "low", "high"))
    return f"{ahead} points [{low}, {high}], p = {pair['p']:.2g} (McNemar)"


def own_photos() -> list[str]:
    """docs/photos.md: the defaults beside a CNN on a folder of photos."""
    if not (RESULTS / "photos.json").exists():
        return ["Not measured yet."]
    rows = read(RESULTS / "photos.json")["rows"]
    told: list[str] = []
    for machine in {tuple(r["machine"].values()): r["machine"] for r in rows}.values():
        beside = [r for r in rows if r["machine"] == machine]
        lines = table_head("training", "seeds", "held-out accuracy, each", "mean", "images seen")
        for way, title in WAYS.items():
            own = [r for r in beside if r["way"] == way]
            if own:
                each = ", ".join(percent(r["clean"]["mean"]) for r in own)
                seen = sum(r["images_seen"] for r in own) / len(own)
                mean = sum(r["clean"]["mean"] for r in own) / len(own)
                lines.append(table_row(title, len(own), each, percent(mean), f"{seen:,.0f}"))
        half = (rows[0]["clean"]["high"] - rows[0]["clean"]["low"]) / 2
        cores = f"{machine['cores']} core{'s' * (machine['cores'] > 1)}"
        told += [
            *([""] if told else []), *lines, "",
            f"`--minutes {machine['minutes']:g}` on {cores} of {article(machine['cpu'])}, others beside it; "
            f"{rows[0]['clean']['n']} held-out photos of 8 classes (an interval of {100 * half:.0f} points to each "
            "side, of one model).",
        ]  # fmt: skip
    return told


def claims() -> list[str]:
    """docs/paper.md: each claim of the abstract, and what was measured."""
    jobs = _jobs()
    paper, adaptive, thin = (jobs[name] for name in ("base-paper-8", "base-adaptive-8", "thin-adaptive-8"))
    published = {name: share(paper["attacks"][name]["mean"]) for name in paper["attacks"]}
    left, seconds = share_of(adaptive), adaptive["cost"]["seconds"] * adaptive["images"]
    pair = next(iter(read(RESULTS / "gpu.json").get("pairs", [])), None)
    trained = (
        f"trained against attacks, an IDC and a CNN of about its FLOPs (7% more) differ by "
        f"{100 * pair['difference']:+.1f} points [{100 * pair['low']:+.1f}, {100 * pair['high']:+.1f}] of "
        f"{pair['images']:,} images"
        if pair
        else ""
    )
    full = "the paper's network, CIFAR-10"
    less = part("network-4")
    smaller = f"; at 4/255 on {less['images']}: {share_of(less)}" if less.get("robust") else ""
    smaller += ", its sanity checks not finished" if smaller and less["state"] != "done" else ""
    rows = [
        (
            "robust under PGD, AutoAttack and BPDA+EOT",
            full,
            f"at 8/255, by the published protocol on 128 images: {published['pgd-20']} under PGD-20, "
            f"{published['eot-pgd-50']} under BPDA+EOT, {published['autoattack-10']} under AutoAttack of 10 steps; by "
            f"the adaptive protocol on 512: {left}{smaller}",
            "does not hold",
            "the published attacks follow a function that is hard to differentiate; others of the same network are not"
            " ([the flaws one by one](#the-published-evaluation-flaw-by-flaw))",
        ),
        (
            "robust however many steps PGD takes",
            "`nano`, CIFAR-10",
            _over_steps(),
            "does not hold",
            "along the published function more steps find little more; along another ten are enough "
            "([figure 4a](#figure-4a))",
        ),
        (
            "more robust than CNN-based defences",
            f"{full}; small networks",
            f"{left} against {share(thin['robust']['mean'])} of a PGD-AT CNN with a three-hundredth of its FLOPs, "
            f"`adaptive`, 8/255; {trained}",
            "does not hold",
            "training against attacks is what counts, in an IDC as in a CNN",
        ),
        (
            "more robust than diffusion-based defences",
            "small networks: CIFAR-10 at 16x16; digits",
            f"{_diffusion_based()}on the digits at 0.1: [figure 1](#figure-1), [the peers](peers.md)",
            "not testable here at full size",
            "no large diffusion model could be trained; at these radii DiffPure keeps more than an IDC that was not "
            "trained against attacks, ZDC and RDC no more",
        ),
        (
            "a fraction of their compute",
            f"{full}",
            "20.6 GFLOPs an answer with three evaluations (`idc profile models/idc-base-cifar10`), 27.4 with the "
            "published four; published: 27.09, and 14,260 for DiffPure",
            "holds for the FLOPs",
            "few timesteps and a small network; one of the published four evaluations repeats another",
        ),
        (
            "full evaluation is practical",
            f"{full}; small networks",
            f"`adaptive` on {adaptive['images']} images of the paper's network: {seconds:.0f} s of an H100 that did "
            "other work as well, sanity checks not counted; all 10,000 test images of small networks: minutes (below)",
            "holds for small networks; not done at full size",
            "an answer takes three passes of the network, its gradient about nine",
        ),
        ("a pruned U-Net is enough", "counted", _pruned(), "holds for the cost",
         "image labels are easy targets; whether a larger network would be more robust was not tested"),
        ("the inter-class loss makes it more robust", "digits; `nano-patch4`, CIFAR-10", _inter_class(), "not shown",
         "by its definition it is 0 for every image whose own label is already the nearest ([method](method.md))"),
    ]  # fmt: skip
    return [
        *table_head("the paper says", "measured at", "measured", "verdict", "why"),
        *(table_row(*row) for row in rows),
    ]


def _diffusion_based() -> str:
    """IDC's chain beside the peers that have a diffusion model, under either protocol."""
    rows = read(RESULTS / "peers-cifar-16.json")["rows"]
    asked = [r for r in rows if r["name"].startswith(("IDC, nano, ", "DiffPure", "ZDC", "RDC")) and r["stochastic"]]
    told = []
    for protocol in ("adaptive", "paper"):
        known = {r["name"]: r["protocols"][protocol] for r in asked if protocol in r["protocols"]}
        each = (f"{name} {share_of(own)} of {own['robust']['mean']['n']}" for name, own in known.items())
        told += [f"at 16x16, 8/255, `{protocol}`: {', '.join(each)}"] if known else []
    return "; ".join([*told, ""]) if told else ""


def _over_steps() -> str:
    """The first and the last point of both lines of figure 4a."""
    found = part("steps-nano")
    if not found.get("published"):
        return "not measured yet"
    told = []
    for line, words in (("published", "along the published probabilities"), ("smooth", "along the one-step answer")):
        points = {p["steps"]: p for p in found[line]["points"]} if line in found else {}
        if points:
            told.append(f"{share(points[20])} after 20 steps and {share(points[200])} after 200 {words}")
    return f"{'; '.join(told)}; n {found['published']['images']}"


def _pruned() -> str:
    rows = {r["preset"]: r for r in part("costs").get("pruning", []) if r["image_size"] == 32}
    if not rows:
        return "not measured yet"
    own, whole = rows["paper-cifar10"], rows["bbdm"]
    return (
        f"{count_text(own['parameters'])} parameters and {flops_text(own['flops_per_evaluation'])} a pass for "
        f"{count_text(whole['parameters'])} and {flops_text(whole['flops_per_evaluation'])} of BBDM's template at "
        "32x32; the template itself was not trained"
    )


WITH, WITHOUT = "inter-class", "no-inter-class"


def _inter_class() -> str:
    """Trainings with the inter-class loss and without, under PGD-20 and the search; the ablations beside them."""
    told = []
    for name, data in (("trainings-nano", "`nano`, CIFAR-10"), ("trainings-digits", "digits")):
        rows = part(name).get("rows", [])
        if not {WITH, WITHOUT} <= {r["training"] for r in rows}:
            continue
        search = search_of(rows[0])
        for attack in (search.replace("adaptive", "pgd-20"), search):
            words = attack.replace("adaptive", "the search at").replace("pgd-20", "PGD-20 at")
            told.append(f"{words}: {_each(rows, attack, WITH)} with it, {_each(rows, attack, WITHOUT)} without")
        told[-1] += f" ({data}, {_seeds(rows)}, n {rows[0]['images']})"
    found = {r["row"]: r for r in read(RESULTS / "ablation-nano.json")["rows"] if r["answer_name"] == "one step"}
    both = [share(found[name]["robust"]["majority"]) for name in ("adversarial", "inter-weight-0")]
    told.append(f"trained against attacks on CIFAR-10 (`nano-patch4`, one step, `quick` at 8/255): {both[0]} with it, "
                f"{both[1]} without (n {found['adversarial']['images']})")  # fmt: skip
    return "; ".join(told)


def _each(rows: Sequence[dict[str, Any]], attack: str, name: str) -> str:
    return ", ".join(share(r["attacks"][attack]) for r in rows if r["training"] == name)


def _seeds(rows: Sequence[dict[str, Any]]) -> str:
    count = len({r["seed"] for r in rows})
    return "one seed each" if count == 1 else f"{count} seeds each"
