"""A report as Markdown, and as one JSON document."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from idc.report.content import Content
from idc.report.results import Result, other_shares
from idc.report.rows import KINDS, bound, lines, means, outcome, points
from idc.storage.fields import recorded
from idc.text import eps_text, gflops_text, in_markdown, percent, share, table_head, table_row

_CLEAN = ("model", "accuracy", "answer", "calibration error", "data", "n", "GFLOPs an answer")
_ATTACKED = ("model", "norm", "eps", "robust, mean of draws", "clean", "protocol", "worst of n", "random noise", "data",
             "n")  # fmt: skip
_CERTIFIED = ("model", "sigma", "smoothed model right", "abstains", "mean radius (L2)", "data", "n")


def json_text(content: Content, stem: str) -> str:
    """``title``, ``author``, ``date``, ``statements``; ``rows``, an accuracy each with its ``interval`` (a pair); and
    ``results``, for each its sanity ``checks``, cost and settings."""
    rows = []
    for row in lines(content.results, content.certificates, content.unions):
        low, high = row.pop("low"), row.pop("high")
        rows.append(row | {"interval": [low, high]})
    results = [
        {"folder": str(r.folder), "model": r.name, "protocol": r.protocol, "reliable": r.summary["reliable"],
         "adaptive": r.summary["adaptive"], "checks": r.summary["sanity"], "flags": r.summary["flags"],
         "cost": r.summary["cost"], "settings": r.summary["settings"]}
        for r in content.results
    ]  # fmt: skip
    found = {"title": content.title, "author": content.heading.author, "date": content.heading.date,
             "statements": content.readings, "rows": rows, "results": results}  # fmt: skip
    return json.dumps(recorded(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def markdown(content: Content, stem: str) -> str:
    """The statements, tables and checks of the page; its figures, as files ``STEM-NAME.png`` beside it, are linked, its
    other pictures left out."""
    about = [text for text in (content.heading.author, content.heading.date) if text]
    found = [f"# {in_markdown(content.title)}", *([in_markdown(", ".join(about))] if about else [])]
    found += [in_markdown(text) for text in content.readings]
    if clean := [r for r in content.results if "own" in r.summary]:
        found.append(_table(_CLEAN, [_clean(r) for r in clean]))
    if attacked := [r for r in content.results if "own" not in r.summary]:
        found.append(_table(_ATTACKED, [*map(_attacked, attacked), *map(_union, content.unions)]))
    if content.certificates:
        found += [
            "## Certified by randomised smoothing",
            _table(_CERTIFIED, [_certified(c) for c in content.certificates]),
        ]
    for name, (title, _) in content.figures.items():
        found.append(f"![{in_markdown(title)}]({quote(f'{stem}-{name}.png')})")
    for r in content.results:
        found += _one(r)
    return "\n\n".join(found) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    return "\n".join([*table_head(*head), *(table_row(*map(in_markdown, row)) for row in rows)])


def _data(settings: dict[str, Any]) -> str:
    return f"{settings['data']['source']} {settings['data']['split']}"


def _clean(r: Result) -> tuple[Any, ...]:
    s, own = r.summary, r.summary["own"]
    fitted = "" if own["calibration"]["calibrated"] else " (not calibrated)"
    error = percent(own["calibration"]["ece"]) + fitted
    flops = gflops_text(s["answer"]["flops"])
    return r.name, share(own["accuracy"]), own["answer"], error, _data(s["settings"]), s["images"], flops


def _attacked(r: Result) -> tuple[Any, ...]:
    s = r.summary
    final = s["adaptive"] or r.protocol == "clean" or r.within
    mark = " (unreliable)" if not s["reliable"] else "" if final else " (not adaptive)"
    worst = share(s["robust"]["worst_of_n"]) if s["draws"] > 1 else "one draw"
    shares = (share(s["robust"]["mean"]), share(s["clean"]["mean"]), r.protocol + mark, worst)
    ball, noise = (r.threat["norm"], eps_text(r.eps)), share(s["noise"]["mean"])
    if r.within:
        ball, noise = ("", ""), ""
    return (r.name, *ball, *shares, noise, _data(s["settings"]), s["images"])


def _union(sweep: dict[str, Any]) -> tuple[Any, ...]:
    own, clean = sweep["union"], sweep["rows"][0]["clean"]["mean"]
    worst = share(own["worst_of_n"]) if own["draws"] > 1 else "one draw"
    return (sweep["name"], "union", "", share(own["mean"]), share(clean), sweep["protocol"], worst, "", "",
            own["mean"]["n"])  # fmt: skip


def _certified(c: dict[str, Any]) -> tuple[Any, ...]:
    radius = f"{c['mean_radius']:.3f} ± {c['standard_error']:.3f}"
    sigma = f"{c['settings']['smoothing']['sigma']:g}"
    return c["name"], sigma, share(c["accuracy"]), share(c["abstained"]), radius, _data(c["settings"]), c["images"]


def _one(r: Result) -> Iterator[str]:
    """A result's own part: its points, its checks, what it cost."""
    s, cost = r.summary, r.summary["cost"]
    if "own" in s:
        yield in_markdown(f"## {r.name}: {_data(s['settings'])}")
        others = {f"the model's own ({s['own']['answer']})": s["own"]["accuracy"]} | other_shares(s)
        yield _table(("answer", "accuracy"), [(name, share(value)) for name, value in others.items()])
    else:
        yield in_markdown(f"## {r.name}: {s['protocol']}, {bound(s)}")
        kinds = KINDS if s["draws"] > 1 else {"mean": "accuracy"}
        rows = [(p.name, *(share(p.verdict[kind]) for kind in kinds), p.verdict.get("attacked", "")) for p in points(s)]
        yield _table(("points", *kinds.values(), "images attacked"), rows)
    if averaged := means(s):
        yield _table(("mean over severities", "accuracy"), [(kind, share(own)) for kind, own in averaged.items()])
    if s["sanity"]:
        checks = [(c["name"], outcome(c), c["figure"], "" if c["passed"] else c["remedy"])
                  for c in s["sanity"]]  # fmt: skip
        yield _table(("sanity check", "", "figure", "remedy"), checks)
    forward, backward = (sum(cost[way].values()) for way in ("forward", "backward"))
    machine = f"{s['settings']['device']}, {s['settings']['threads']} threads, seed {s['settings']['seed']}"
    each = f"{forward:,.0f} forward, {backward:,.0f} backward, {cost['seconds']:.3g} s"
    yield in_markdown(f"Per image: {each}. {machine}. Records: {r.folder}")
