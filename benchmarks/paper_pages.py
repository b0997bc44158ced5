"""The tables of docs/paper.md, and of the photos in docs/photos.md; see pages.py."""

from typing import Any

from common import CIFAR, RESULTS, article, read

from idc.text import percent, share, table_head, table_row

NETWORK = ("base-paper-8", "smoke", "base-adaptive-8")
ATTACKS = {
    "fgsm": "FGSM", "mi-fgsm": "MI-FGSM", "pgd-20": "PGD-20", "eot-pgd-50": "BPDA+EOT (PGD-50)",
    "autoattack-10": "AutoAttack of 10 steps", "cw-l2": "C&W, L2", "adaptive": "search and long runs", "fab": "FAB",
    "square": "Square",
}  # fmt: skip
WAYS = {"defaults": "`idc train --data photos`", "cnn": "`idc train-peer cnn --method standard --width 16`",
        "cnn-64": "the same CNN with `--image-size 64`, four times the FLOPs",
        "from": "with `--from idc-nano-cifar10`", "64": "with `--image-size 64`"}  # fmt: skip


def _jobs() -> dict[str, dict[str, Any]]:
    return {row["job"]: row for row in read(RESULTS / "gpu.json")["rows"]}


def paper_network() -> list[str]:
    """The paper's network under both protocols, attack by attack."""
    lines = table_head("protocol", "attack", "right draws, mean", "n")
    for name in NETWORK:
        if (row := _jobs().get(name)) is None:
            continue
        protocol = f"`{row['protocol']}`"
        lines.append(table_row(protocol, "none", share(row["clean"]["mean"]), row["clean"]["mean"]["n"]))
        for attack, found in row["attacks"].items():
            if attack == "fab":  # which does nothing to an answer with noise
                continue
            lines.append(table_row(protocol, ATTACKS[attack], share(found["mean"]), found["mean"]["n"]))
        robust = row["robust"]["mean"]
        lines.append(table_row(protocol, "**worst of them, image by image**", share(robust), robust["n"]))
    failed = _jobs()["base-adaptive-8"].get("failed", [])
    return [
        *lines,
        "",
        f"`models/idc-base-cifar10`, L-inf 8/255, test images of {CIFAR}, 20 draws, one model, one H100, bf16; a line "
        "of `adaptive` is what is left after it and those before it. Sanity checks that failed: "
        + ("; ".join(failed) or "none") + ".",
    ]  # fmt: skip


def full_evaluation() -> list[str]:
    """All test images under the adaptive protocol."""
    lines = table_head("model", "clean", "robust, 8/255", "n", "seconds, one H100", "sanity checks")
    for row in _jobs().values():
        if row["images"] == 10_000 and "robust" in row:
            cost = row.get("cost", {})
            seconds = row["seconds"] if "seconds" in row else cost["seconds"] * row["images"]
            made = row.get("checks", {})
            checks = "passed" if row.get("reliable") else f"{made.get('passed', 0)} of {made.get('made', 0)} passed"
            checks += "" if row["state"] == "done" else ", the rest not made"
            pair = [share(row[kind]["mean"]) for kind in ("clean", "robust")]
            lines.append(table_row(f"`{row['model']}`", *pair, row["images"], f"{seconds:.0f}", checks))
    said = [
        f"Of the same {p['images']:,} images the IDC alone survives {p['only_first']} and the CNN alone "
        f"{p['only_second']}; the difference is {100 * p['difference']:+.1f} points "
        f"[{100 * p['low']:+.1f}, {100 * p['high']:+.1f}], p = {p['p']:.2g} (McNemar)."
        for p in read(RESULTS / "gpu.json").get("pairs", [])
    ]
    return [
        *lines,
        "",
        f"{CIFAR}, bf16, one model each; several of these ran side by side, so that each alone would take less. "
        + " ".join(said),
    ]  # fmt: skip


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
    """docs/paper.md: what the paper says, and what was measured."""
    jobs = _jobs()
    paper, adaptive, thin = (jobs[name] for name in ("base-paper-8", "base-adaptive-8", "thin-adaptive-8"))
    published = {name: share(paper["attacks"][name]["mean"]) for name in paper["attacks"]}
    left, seconds = share(adaptive["robust"]["mean"]), adaptive["cost"]["seconds"] * adaptive["images"]
    pair = next(iter(read(RESULTS / "gpu.json").get("pairs", [])), None)
    trained = (
        f"trained against attacks, an IDC and a CNN of about its FLOPs (7% more) differ by "
        f"{100 * pair['difference']:+.1f} points ["
        f"{100 * pair['low']:+.1f}, {100 * pair['high']:+.1f}] of {pair['images']:,} images"
        if pair
        else ""
    )  # fmt: skip
    rows = [
        (
            "robust under PGD, AutoAttack and BPDA+EOT",
            f"the paper's network at 8/255, by the published protocol on 128 images: "
            f"{published['pgd-20']} under PGD-20, "
            f"{published['eot-pgd-50']} under BPDA+EOT, {published['autoattack-10']} under AutoAttack of 10 steps; by "
            f"the adaptive protocol on 512 {left}",
            "does not hold: these attacks do not find what is there",
        ),
        (
            "more robust than CNN-based defences",
            f"{left} against {share(thin['robust']['mean'])} of a PGD-AT CNN with a three-hundredth of its FLOPs, "
            f"`adaptive`, 8/255; {trained}",
            "does not hold: without adversarial training far from it, with it a little worse than a CNN",
        ),
        (
            "more robust than diffusion-based defences",
            "DiffPure, ZDC and RDC on a small DDPM: [the peers](peers.md)",
            "not testable here at full size: no large diffusion model could be trained",
        ),
        (
            "a fraction of their compute",
            "20.6 GFLOPs an answer with three evaluations (`idc profile models/idc-base-cifar10`), 27.4 with the "
            "published four, of which one repeats another; published: 27.09, and 14,260 for DiffPure",
            "holds for the FLOPs",
        ),
        (
            "full evaluation is practical",
            f"`adaptive` on {adaptive['images']} images of the paper's network: {seconds:.0f} s of an H100 that did "
            "other work as well, sanity checks not counted; all 10,000 test images of small networks: minutes (below)",
            "holds",
        ),
        (
            "pruning and the inter-class loss help",
            "[ablations](training.md), at `nano` size and on digits",
            "see there",
        ),
    ]
    return [*table_head("claim", "measured", "verdict"), *(table_row(*row) for row in rows)]
