"""``idc certify``."""

from dataclasses import fields
from typing import Any

import typer

from idc.cli.common import AsJson, Out, check_paths, note, out, print_json, resumable, table
from idc.cli.flags import REQUIRED, of_fields, option, with_flags
from idc.commands.request import ATTACK, Request
from idc.text import flops_text, seconds_text, share


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(certify)


@with_flags(
    option("sigma", float, REQUIRED, "standard deviation of the noise on [0, 1], such as 0.25"),
    option("n0", int, 100, "samples that pick an image's class"),
    option("n", int, 10_000, "samples that prove its radius", flag="--n --samples"),
    option("alpha", float, 0.001, "probability that an image's certificate is wrong"),
    *of_fields(Request, [f.name for f in fields(Request) if f.metadata.get("panel") != ATTACK]),
)
def certify(out_folder: Out, as_json: AsJson = False, **asked: Any) -> None:
    """Prove L2 radii by randomised smoothing: the model's vote under Gaussian noise; an interrupted run goes on.

    What is proved holds for the smoothed model, which answers by vote over noisy copies of an image, and for each image
    with probability 1 - alpha.
    """
    check_paths(asked["model"], asked["data"])
    from idc.commands.certify import certify as run
    from idc.evaluation.smoothing import Smoothing

    smoothing = Smoothing(**{name: asked.pop(name) for name in ("sigma", "n0", "n", "alpha")})
    request = Request(**asked)
    with resumable():
        summary = run(request, smoothing, out_folder, say=note.print)
    if not summary:
        return
    if as_json:
        print_json(summary)
        return
    _print_summary(summary)
    out.print(f"written: {out_folder / 'certify.json'}   (a page: idc report {out_folder} --out report.html)")


def _print_summary(summary: dict[str, Any]) -> None:
    settings, smoothing, cost = summary["settings"], summary["settings"]["smoothing"], summary["cost"]
    data = f"{settings['data']['source']} {settings['data']['split']}, n = {summary['images']}"
    table(
        f"certified accuracy: {data}, sigma {smoothing['sigma']:g}; 95% intervals",
        [{"L2 radius": point["radius"], "right and certified": share(point)} for point in summary["curve"]],
    )
    out.print(f"smoothed classifier: {share(summary['accuracy'])} right, abstains on {share(summary['abstained'])}")
    out.print(f"mean radius: {summary['mean_radius']:.4g} (at most {summary['largest_radius']:.4g} can be proved)")
    out.print(
        f"per image: {cost['samples']:,} samples, {cost['network_evaluations']:,} network evaluations, "
        f"{flops_text(cost['flops'])}, {seconds_text(cost['seconds'])}"
    )
