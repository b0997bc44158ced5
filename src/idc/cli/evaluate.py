"""``idc evaluate``, ``rejudge``, ``sweep`` and ``report``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idc.cli.common import AsJson, Out, check_paths, end_unless, note, out, print_json, resumable, table
from idc.cli.flags import REQUIRED, of_fields, option, with_flags
from idc.commands.request import Request
from idc.errors import IDCError
from idc.text import eps_text, flops_text, gflops_text, percent, seconds_text, share

if TYPE_CHECKING:
    from idc.report.rows import Points


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (evaluate, rejudge, sweep, compare, report):
        app.command()(command)


@with_flags(*of_fields(Request))
def evaluate(out_folder: Out, as_json: AsJson = False, **asked: Any) -> None:
    """Measure accuracy, clean and under attack, with intervals; an interrupted evaluation goes on.

    clean: no attack. quick: a short adaptive attack, minutes on a CPU. adaptive: the one to quote: search for the
    model's weak spots, FAB, Square, sanity checks. autoattack: as its own library runs it. curve: the smallest
    change for each image, hence accuracy over every radius. paper: the published evaluation with its flaws, for
    comparison. pgd, apgd: a basic attack, for sweeps. corruptions: fifteen kinds, five severities. shifts: the worst of
    a grid of rotations and shifts.
    """
    check_paths(asked["model"], asked["data"])
    from idc.commands.evaluate import evaluate as run

    request = Request(**asked)
    if request.protocol == "clean" and request.eps is not None and not request.attacks:
        remedy = "leave --eps out, or give another --protocol, such as adaptive"
        raise IDCError(f"--eps {eps_text(request.eps)} with protocol clean", "a protocol that attacks", remedy)
    with resumable():
        summary = run(request, out_folder, say=note.print)
    if not summary:
        return
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)
        out.print(f"written: {out_folder / 'summary.json'}   (a page: idc report {out_folder} --out report.html)")
    end_unless(summary["reliable"])


def _row(name: str, verdict: Mapping[str, Any]) -> dict[str, str]:
    return {"images": name} | _shares(verdict)


def _shares(verdict: Mapping[str, Any]) -> dict[str, str]:
    row = {"mean of draws" if verdict["draws"] > 1 else "accuracy": share(verdict["mean"])}
    if verdict["draws"] > 1:
        row |= {"majority": share(verdict["majority"]), f"worst of {verdict['draws']}": share(verdict["worst_of_n"])}
    return row


def _attacked(found: "Points", images: int) -> str:
    """What was judged; of an attack, on how many images it was run if not on all: those that were still right."""
    if found.kind != "attack":
        return f"robust: {found.name}" if found.kind == "robust" else found.name
    run = found.verdict["attacked"]
    return f"attack: {found.name}" + (f" (on {run} of {images}, still right)" if run < images else "")


def _swept(setting: str, row: dict[str, Any]) -> str:
    """A value of a sweep's setting."""
    radius, text = eps_text(row["eps"]), str(row["text"])
    return {"eps": radius, "norm": f"{text} {radius}"}.get(setting, text)


def _clean_rows(summary: dict[str, Any]) -> list[dict[str, str]]:
    """The model's own answer, then what else may be called accuracy."""
    from idc.report.results import other_shares

    own = summary["own"]
    shares = {f"the model's own answer ({own['answer']})": own["accuracy"]} | other_shares(summary)
    return [{"answer": name, "accuracy": share(value)} for name, value in shares.items()]


def _print_summary(summary: dict[str, Any]) -> None:
    from idc.report.results import named
    from idc.report.rows import bound, left_out, means, outcome, points
    from idc.report.statement import doubts, seen

    settings, threat = summary["settings"], summary["settings"]["protocol"]["threat"]
    attacked = bool(summary["attacks"])
    rows = [_row(_attacked(found, summary["images"]), found.verdict) for found in points(summary)]
    rows = _clean_rows(summary) if "own" in summary else rows
    where = f"{settings['data']['source']} {settings['data']['split']}, n = {summary['images']}"
    within = settings["protocol"].get("within")
    ball = f", {bound(summary)}" if attacked else ""
    table(f"{summary['protocol']} of {named(settings)}: {where}{ball}; 95% intervals", rows)
    for name, own in summary.get("accuracy", {}).items() if "own" not in summary else ():
        out.print(f"{name}: {share(own, digits=2)}")
    if far := summary.get("distances"):
        middle = "more than half survive all that was found" if far["median"] is None else f"{far['median']:.4g}"
        best = ", ".join(f"{name} {percent(own['best'], 0)}" for name, own in far["attacks"].items())
        out.print(f"smallest change that misleads: median {middle} ({threat['norm']}); nearest by {best} of images")
    if summary["sanity"]:
        table("sanity checks", [{"check": f["name"], "": outcome(f), "figure": f["figure"]}
                                for f in summary["sanity"]])  # fmt: skip
        for finding in summary["sanity"]:
            if not finding["passed"]:
                out.print(f"UNRELIABLE: {finding['name']}: {finding['remedy']}")
    if attacked and summary["draws"] > 1:
        out.print("Robust: each image's worst adversarial example, judged afresh; it may exceed an attack's own line.")
    if kinds := means(summary):
        table("mean over severities", [{"corruption": kind, "accuracy": share(v)} for kind, v in kinds.items()])
    if attacked and not summary["adaptive"] and not within:
        out.print("Not adaptive: an upper bound, which a stronger attack can only lower (--protocol adaptive).")
    if absent := left_out(summary):
        out.print(absent)
    if summary["protocol"] == "quick":
        out.print("A first look, by a short form of the adaptive attack; a figure to quote takes --protocol adaptive.")
    for told in filter(None, (doubts(summary), seen(summary))):
        out.print(told.strip())
    for flag in summary["flags"]:
        out.print(f"AutoAttack says: {flag}")
    cost = summary["cost"]
    passes = sum(cost["forward"].values())
    out.print(
        f"per image: {passes:,.0f} forward and {sum(cost['backward'].values()):,.0f} backward, "
        f"{flops_text(cost['flops'])}, {seconds_text(cost['seconds'])}"
    )


@with_flags(
    option("draws", int, 100, "noise draws for each image", least=1),
    option("seed", int, 1, "seed of the noise", least=0),
    option("model", str, None, "another model", unset="the one attacked"),
)
def rejudge(
    result: Annotated[Path, typer.Argument(help="a result of idc evaluate --keep")],
    as_json: AsJson = False,
    **asked: Any,
) -> None:
    """Judge kept adversarial images again, with fresh noise, more draws or another model."""
    from idc.commands.rejudge import rejudge as run

    found = run(result, **asked)
    if as_json:
        print_json(found)
    else:
        table(f"kept images of {result}, judged again (seed {asked['seed']})", [_row("adversarial", found["robust"])])
        if not found["same_model"]:
            out.print(f"{found['model']} is not the model that was attacked: its weights or its answers are others.")
        if found["not_finite"]:
            out.print(f"UNRELIABLE: NaN or infinite logits for {found['not_finite']} images, counted as wrong.")
        out.print(f"written: {result / 'rejudged.json'}")
    end_unless(not found["not_finite"])


@with_flags(
    option(
        "over", str, REQUIRED,
        "steps=5,10,20 | eps=2/255,4/255 | eot=1,4 | restarts= | draws= | loss=margin,dlr | visits='3;3,0;3,1,0' | "
        "eta=0,0.5,1 | norm=linf:8/255,l2,l1",
    ),
    *of_fields(Request, protocol="pgd"),
)  # fmt: skip
def sweep(over: str, out_folder: Out, as_json: AsJson = False, **asked: Any) -> None:
    """Evaluate once for each value of one setting; a folder each, resumable, and one table and figure of all."""
    check_paths(asked["model"], asked["data"])
    from idc.commands.sweep import run_sweep

    request = Request(**asked)
    with resumable():
        found = run_sweep(request, over, out_folder, say=note.print)
    if not found["rows"]:
        return
    if as_json:
        print_json(found)
    else:
        _print_sweep(found, request.norm, out_folder)
    end_unless(all(r["reliable"] for r in found["rows"]))


def _print_sweep(found: dict[str, Any], norm: str, folder: Path) -> None:
    setting, own = found["setting"], found["rows"]
    rows = [
        {setting: _swept(setting, r) + ("" if r["reliable"] else " UNRELIABLE"),
         "clean": percent(r["clean"]["mean"]["mean"]), **_shares(r["robust"]),
         "cost an image": flops_text(r["cost"]["flops"])} for r in own
    ]  # fmt: skip
    if "union" in found:
        rows.append({"norm": "union"} | _shares(found["union"]))
    radii = {r["eps"] for r in own} if setting not in ("eps", "norm") and "noise" in own[0] else set()
    ball = "".join(f", {norm} eps {eps_text(eps)}" for eps in radii)
    where = f"{found['model']}: {found['data']}, n = {own[0]['images']}{ball}; 95% intervals"
    table(f"{found['protocol']} over {setting} of {where}", rows)
    if not all(r["reliable"] for r in own):
        note.print("UNRELIABLE, not to be quoted: idc report tells what its sanity checks found")
    if "union" in found:
        out.print("union: an image survives only where it survives the attacks in each of the norms")
    out.print(f"written: {folder / 'sweep.json'}   (a page: idc report {folder} --out report.html)")


def compare(
    file: Annotated[Path, typer.Argument(help="YAML: data, protocols, eps, models (see docs/comparing.md)")],
    out_folder: Out,
    published: Annotated[bool, typer.Option("--published", help="published figures in the figure, marked")] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate many models on the same images and put them into one table; resumable."""
    from idc.commands.compare import compare as run
    from idc.commands.compare import read_comparison

    with resumable():
        rows = run(read_comparison(file), out_folder, say=note.print)
    if not rows:
        return
    from idc.report.comparison import comparable, paired_texts, write_comparison
    from idc.report.results import read_pairs

    written = write_comparison(out_folder, with_published=published)
    if published and not any(comparable(rows, row["eps"]) for row in rows):
        note.print("none of the published figures is of this data, norm and eps; the figure has none")
    if as_json:
        print_json({"rows": rows, "pairs": read_pairs(out_folder)})
    else:
        table(str(file), [_compared(row) for row in rows])
        for text in paired_texts(out_folder):
            out.print(text)
        out.print(f"written: {', '.join(str(p) for p in written)}")
    end_unless(all(own["reliable"] for row in rows for own in row["protocols"].values()))


def _compared(row: dict[str, Any]) -> dict[str, Any]:
    found = {"model": row["name"], "eps": row["eps_text"], "GFLOPs": gflops_text(row["flops"]),
             "NFE": row["network_evaluations"], "n": row["images"], "clean": share(row["clean"]["mean"])}  # fmt: skip
    for name, own in row["protocols"].items():
        found[name] = share(own["robust"]["mean"]) + ("" if own["reliable"] else " UNRELIABLE")
    return found


def report(
    results: Annotated[list[Path], typer.Argument(help="folders of idc evaluate, compare, sweep, certify or train")],
    page: Annotated[Path, typer.Option("--out", help="the file; CSV, PNG and SVG go beside a page or Markdown")],
    form: Annotated[
        Literal["html", "md", "json"], typer.Option("--format", help="a page, Markdown, or JSON with the same rows")
    ] = "html",
    title: Annotated[str, typer.Option(help="of the page", metavar="<text>", show_default="what it holds")] = "",
    author: Annotated[str, typer.Option(help="below the title", metavar="<text>", show_default="none")] = "",
    date: Annotated[str, typer.Option(help="below the title", metavar="<text>", show_default="none")] = "",
) -> None:
    """One self-contained page from results: what holds in words, tables, figures, settings, sanity checks."""
    from idc.report.content import Heading
    from idc.report.results_page import write_report

    written = write_report(results, page, Heading(title, author, date), form=form)
    out.print(f"written: {', '.join(str(p) for p in written)}")
