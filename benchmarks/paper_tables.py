"""The tables beside the figures of docs/paper.md, from benchmarks/results; see paper.py and pages.py."""

from collections.abc import Sequence
from typing import Any

from common import CIFAR, RESULTS, article, read, share_of
from paper_figures import LINES, STEPS, over_eps, part, points, search_of

from idc.text import count_text, duration_text, eps_text, flops_text, gflops_text, share, table_head, table_row

ON_GPU = {"`paper`": "base-paper-8", "`adaptive`": "base-adaptive-8"}
NETWORK = {"network-2": "2/255", "network-4": "4/255", "network-8": "8/255"}  # parts of paper.py: the paper's network
ATTACKS = {
    "fgsm": "FGSM", "mi-fgsm": "MI-FGSM", "pgd-20": "PGD-20", "eot-pgd-50": "BPDA+EOT (PGD-50)",
    "autoattack-10": "AutoAttack of 10 steps", "cw-l2": "C&W, L2", "adaptive": "search and long runs",
    "square": "Square",
}  # fmt: skip
CHANGED = {
    "inter-class": "the paper's losses (inter-class 0.2, T = 4)", "no-inter-class": "without the inter-class loss",
    "timesteps-2": "T = 2", "timesteps-8": "T = 8",
    "published": "the published recipe", "fast": "the recipe `fast`, the same losses",
}  # fmt: skip
NOTHING = ["Not measured yet."]


def _machine(found: dict[str, Any], *, timed: bool = True) -> str:
    own = found["hardware"]
    state = "" if found["state"] == "done" else "; further rows are not finished"
    spent = f", {duration_text(found['seconds'])}" if timed else ""
    return f"one thread of {own['cpu']}{spent}, float32, torch {own['torch']}{state}"


def paper_attacks() -> list[str]:
    """Every attack on the paper's network and on nano, under both protocols."""
    jobs = {row["job"]: row for row in read(RESULTS / "gpu.json")["rows"]}
    nano = [row for row in read(RESULTS / "robustness-nano.json")["rows"] if row["eps_text"] == "8/255"]
    lines = table_head("protocol", "attack", "the paper's network", "n", "`nano`", "n")
    for protocol, job in ON_GPU.items():
        pair = (jobs[job], next(row for row in nano if row["protocol"] == protocol.strip("`")))
        kinds = {"none": "clean"} | {title: name for name, title in ATTACKS.items() if name in pair[0]["attacks"]}
        for title, name in (kinds | {"**worst of them, image by image**": "robust"}).items():
            own = [(row["attacks"].get(name) or row[name])["mean"] for row in pair]
            lines.append(table_row(protocol, title, *(cell for one in own for cell in (share(one), one["n"]))))
    failed = "; ".join(jobs["base-adaptive-8"].get("failed", [])) or "none"
    plain = jobs["smoke"]["robust"]["mean"]
    return [
        *lines,
        "",
        f"L-inf 8/255, test images of {CIFAR}, mean of 20 draws, one model each, 95% intervals over images. "
        "`models/idc-base-cifar10`: one H100, bf16; its sanity checks that failed: "
        f"{failed}. `nano`: `idc-nano-cifar10` before its weights were rounded to bf16, on a CPU in float32; 19 "
        "checks passed. Under `adaptive` an attack is made on what those before it left, and judged by draws of its "
        "own. PGD-20 on the logits of the paper's network, with fresh noise in each step (protocol `pgd`): "
        f"{share(plain)}, n {plain['n']}.",
    ]


def paper_network() -> list[str]:
    """The paper's network under the adaptive protocol on a CPU."""
    rows = {eps: own for name, eps in NETWORK.items() if (own := part(name)).get("robust")}
    if not rows:
        return NOTHING
    lines = table_head("L-inf eps", "clean", "robust", "n", "sanity checks", "of")
    for eps, own in rows.items():
        of = f"{duration_text(own['core_seconds'])} of a core of {article(own['hardware']['cpu'])}"
        made = own["checks"]["made"]
        checks = f"{own['checks']['passed']} of {made} passed" if made else "not made yet"
        lines.append(table_row(eps, share(own["clean"]["mean"]), share_of(own), own["images"], checks, of))
    return [
        *lines,
        "",
        f"`models/idc-base-cifar10`, first test images of {CIFAR}, protocol `adaptive`, mean of 20 "
        "draws, bf16; time by the clock, beside other work.",
    ]


def paper_points() -> list[str]:
    """Every point of figure 1."""
    if not part("costs").get("models"):
        return NOTHING
    lines = table_head("data, L-inf eps", "system", "protocol", "GFLOPs", "parameters", "robust", "n")
    for panel, own in points().items():
        for p in sorted(own, key=lambda p: (p["flops"], p["system"], p["protocol"])):
            size = "" if p["parameters"] is None else count_text(p["parameters"])
            cells = (p["system"], f"`{p['protocol']}`", gflops_text(p["flops"]), size, share(p["robust"]) + p["mark"])
            lines.append(table_row(panel, *cells, f"{p['robust']['n']:,}"))
    return lines


def paper_pruning() -> list[str]:
    """From BBDM's network to the paper's, and to ours."""
    if not (rows := part("costs").get("pruning")):
        return NOTHING
    lines = table_head("network", "preset", "parameters", "one pass", "passes", "an answer")
    for r in rows:
        cost = (flops_text(r["flops_per_evaluation"]), r["network_evaluations"], flops_text(r["flops"]))
        lines.append(table_row(r["network"], f"`{r['preset']}`", count_text(r["parameters"]), *cost))
    return [*lines, "", "2 FLOPs a multiply-add, counted as the operations run (`idc profile --table`); images of "
            "32x32 but for the first."]  # fmt: skip


def paper_steps() -> list[str]:
    """Figure 4a in numbers."""
    done = {name: part(name) for name in STEPS if part(name).get("published")}
    if not done:
        return NOTHING
    first = next(iter(done.values()))["published"]["points"]
    lines = table_head("model", "gradient", *("clean" if not p["steps"] else p["steps"] for p in first), "n")
    for name, found in done.items():
        for line in (key for key in LINES if key in found):
            own = found[line]
            lines.append(table_row(STEPS[name], LINES[line], *map(share, own["points"]), own["images"]))
    told = "; ".join(f"{STEPS[name].split(',')[0]}: {_machine(found)}" for name, found in done.items())
    return [*lines, "", f"Test images of {CIFAR}, mean of 10 draws where the answer has noise. {told}."]


def paper_visits() -> list[str]:
    """Figure 4c, left, in numbers."""
    if not (rows := part("visits-nano").get("rows")):
        return NOTHING
    names = [name.replace("adaptive", "search") for name in rows[0]["attacks"]]
    lines = table_head("visits", "passes", "clean", *names)
    for r in rows:
        attacked = [share(value) for value in r["attacks"].values()]
        visits = ", ".join(map(str, r["visits"]))
        lines.append(table_row(visits, r["network_evaluations"], share(r["clean"]), *attacked))
    about = f"{rows[0]['images']} test images of {CIFAR}, mean of {max(r['draws'] for r in rows)} draws where "
    about += "the answer has noise"
    return [*lines, "", f"`idc-nano-cifar10`, {about}; {_machine(part('visits-nano'))}."]


def paper_trainings() -> list[str]:
    """Figures 4b and 4c, right, in numbers."""
    return _trained(("trainings-nano", f"{CIFAR} test"), ("trainings-digits", "digits test"))


def paper_recipes() -> list[str]:
    """The same network by either recipe, attacked; and its accuracy while it was trained."""
    rows = part("recipes-nano-16").get("rows")
    if not rows:
        return NOTHING
    curves = {r["training"]: {v["epoch"]: v for v in r["validation"]} for r in rows}
    epochs = [e for e in (5, 10, 20, 40, 60, 80, 100) if all(e in own for own in curves.values())]
    lines = _trained(("recipes-nano-16", f"{CIFAR} test at 16x16"))
    about = f"{rows[0]['validation'][0]['images']:,} validation images, one draw, weights of then"
    lines += table_head(f"accuracy on {about}, after", *(f"{e} epochs" for e in epochs))
    for name, own in curves.items():
        for answer, title in (("one_step", "one step"), ("multi_step", "chain")):
            lines.append(table_row(f"{CHANGED[name]}: {title}", *(f"{own[e][answer]:.1%}" for e in epochs)))
    return lines


def _trained(*wanted: tuple[str, str]) -> list[str]:
    """A table for each of these parts that has something; a part and its data."""
    lines: list[str] = []
    for name, data in wanted:
        found = part(name)
        if not (rows := found.get("rows")):
            continue
        sizes, _ = over_eps(rows[0])
        search = search_of(rows[0])
        heads = [f"PGD-20, {eps_text(e)}" for e in sizes[1:]]
        lines += table_head("training", "seed", "clean", *heads, f"search, {search.split()[1]}")
        for r in sorted(rows, key=lambda r: (list(CHANGED).index(r["training"]), r["seed"])):
            cells = [share(value) for value in (*over_eps(r)[1], r["attacks"][search])]
            lines.append(table_row(CHANGED[r["training"]], r["seed"], *cells))
        trained = _from_to([r["seconds"] for r in rows])
        known = [r["attack_seconds"] for r in rows if "attack_seconds" in r]
        attacked = f" and {_from_to(known)} to attack" if known else ""
        about = f"{rows[0]['images']} images of {data}, mean of {rows[0]['draws']} draws"
        length = f"{rows[0]['epochs']:g} epochs ({rows[0]['images_seen']:,} images; {trained} each{attacked})"
        lines += ["", f"{about}; trained without attacks, {length}; {_machine(found, timed=not known)}.", ""]
    return lines or NOTHING


def _from_to(seconds: Sequence[float]) -> str:
    return f"{min(seconds):.0f} to {max(seconds):.0f} s"


def paper_flaws() -> list[str]:
    """What each flaw of the published PGD-20 is worth, in points; at the end both protocols, by robustness.py."""
    held = {name: RESULTS / f"pitfalls-{name}.json" for name in ("nano", "digits")}
    found = {name: read(file) for name, file in held.items() if file.exists()}
    names = dict.fromkeys(attack for own in found.values() for attack in own["attacks"])
    lines = table_head("PGD-20", *(cell for name in found for cell in (f"`{name}`", "points")))
    for attack in names:
        cells: list[str] = []
        for own in found.values():
            mean, first = (own["attacks"].get(a, {}).get("mean") for a in (attack, "as published"))
            cells += _beside(mean, first) if mean else ["", ""]
        lines.append(table_row(attack, *cells))
    cells = [cell for name, own in found.items() for cell in _both_protocols(name, own["eps_text"])]
    lines.append(table_row("the adaptive protocol, beside PGD-20 on the same 512 images", *cells))
    about = "; ".join(
        f"`{name}`: eps {own['eps_text']}, {_of(own)} images of {own['settings']['data']['source']} test, "
        f"{own['draws']} draws"
        for name, own in found.items()
    )
    return [*lines, "", f"Mean of draws, one model each. {about}."]


def _of(found: dict[str, Any]) -> str:
    """How many images have finished, of how many."""
    asked = found["settings"]["data"]["images"]
    return f"the first {found['images']} of {asked}" if found["images"] < asked else str(asked)


def _beside(mean: dict[str, float], first: dict[str, float]) -> list[str]:
    """An accuracy, and how many points it is from the first."""
    return [share(mean), "" if mean is first else f"{100 * (mean['mean'] - first['mean']):+.1f}"]


def _both_protocols(name: str, eps: str) -> list[str]:
    rows = {r["protocol"]: r for r in read(RESULTS / f"robustness-{name}.json")["rows"] if r["eps_text"] == eps}
    return _beside(rows["adaptive"]["robust"]["mean"], rows["paper"]["attacks"]["pgd-20"]["mean"])
