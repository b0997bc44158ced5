"""``idc certify``."""

from typing import Annotated, Any

import typer

from idc.cli.common import (
    AsJson,
    Data,
    Eta,
    OneStep,
    SkipBad,
    Visits,
    note,
    out,
    parse_visits,
    print_json,
    resumable,
    share,
    table,
)
from idc.cli.evaluate import Compile, DataName, Limit, Model, Out, Precision, Seed, Split

Sigma = Annotated[float, typer.Option("--sigma", help="standard deviation of the noise on [0, 1], such as 0.25")]
Selecting = Annotated[int, typer.Option("--n0", help="samples that pick an image's class")]
Samples = Annotated[int, typer.Option("--n", "--samples", help="samples that prove its radius")]
Alpha = Annotated[float, typer.Option("--alpha", help="probability that an image's certificate is wrong")]
Chunk = Annotated[int, typer.Option("--batch-size", min=1, help="samples at once: memory, not results")]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(certify)


def certify(
    model: Model, data: Data, out_folder: Out, sigma: Sigma,
    n0: Selecting = 100, n: Samples = 10_000, alpha: Alpha = 0.001, split: Split = "test", limit: Limit = None,
    one_step: OneStep = False, visits: Visits = None, eta: Eta = None, precision: Precision = "fp32",
    seed: Seed = 0, chunk: Chunk = 512, compile_: Compile = False, skip_bad: SkipBad = False,
    data_name: DataName = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Prove L2 radii by randomised smoothing: the model's vote under Gaussian noise; an interrupted run goes on.

    What is proved holds for the smoothed model, which answers by vote over noisy copies of an image, and for each image
    with probability 1 - alpha.
    """
    from idc.commands.certify import certify as run
    from idc.commands.request import Request
    from idc.evaluation.smoothing import Smoothing

    smoothing = Smoothing(sigma=sigma, n0=n0, n=n, alpha=alpha)
    request = Request(
        model=model, data=data, split=split, limit=limit, seed=seed, one_step=one_step, visits=parse_visits(visits),
        eta=eta, precision=precision, chunk=chunk, compile=compile_, skip_bad=skip_bad, data_name=data_name,
    )  # fmt: skip
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
        f"{cost['flops'] / 1e9:,.2f} GFLOPs, {cost['seconds']:.3g} s"
    )
