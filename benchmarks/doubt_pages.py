"""The table of docs/doubt.md; see pages.py."""

from common import CIFAR, RESULTS, article, read

from idc.text import percent, table_head, table_row

_SETS = ("noise", "digits", "photos", "PGD", "adaptive")


def doubt() -> list[str]:
    """docs/doubt.md: how well doubt tells what is none of the classes, or attacked, by model and kind of doubt."""
    if not (RESULTS / "doubt.json").exists():
        return ["Not measured yet."]
    found = read(RESULTS / "doubt.json")
    rows, settings, hardware = found["rows"], found["settings"], found["hardware"]
    cases = dict.fromkeys((r["model"], r["score"]) for r in rows)
    lines = table_head("model", "doubt", "test: refused", "area", *(f"{kind}: AUROC" for kind in _SETS),
                       *(f"{kind}: wrong and accepted" for kind in _SETS))  # fmt: skip
    for model, score in cases:
        own = {r["set"]: r for r in rows if (r["model"], r["score"]) == (model, score)}
        told = [f"{own[kind]['auroc']:.2f}" for kind in _SETS]
        accepted = [percent(own[kind]["wrong_accepted"], 0) for kind in _SETS]
        test = own["test"]
        lines.append(table_row(f"`{model}`", score, percent(test["refused"]), f"{test['area']:.3f}", *told, *accepted))
    mixed = table_head("model", "doubt", *_SETS)
    for model, score in cases:
        own = {r["set"]: r for r in rows if (r["model"], r["score"]) == (model, score)}
        mixed.append(table_row(f"`{model}`", score, *(f"{own[kind]['area']:.3f}" for kind in _SETS)))
    count, few = (next(r["n"] for r in rows if r["set"] == kind) for kind in ("test", "PGD"))
    return [
        *lines,
        "",
        "Area under risk over coverage (less is better) of test images together with those of a column, of which every "
        "answer is an error unless they are attacked:",
        "",
        *mixed,
        "",
        f"{count} images each of {CIFAR} test, uniform noise, digits and photos of eight other kinds (one of them, "
        f"sports cars, is near a class); {few} attacked, L-inf {settings['eps_text']}, {settings['steps']} steps. One "
        f"model each, one seed, {article(hardware['cpu'])}. The threshold refuses {percent(settings['share'], 0)} of "
        "the rightly answered validation images. AUROC: 0.5 is chance, 1 tells all apart, below 0.5 the strange image "
        "is the less doubted one.",
    ]
