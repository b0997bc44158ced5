"""The rows of a result, made once for every form that it is shown in: terminal, notebook, page, Markdown, JSON, CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from idc.report.results import Result
from idc.text import NORMS, eps_text

KINDS = {"mean": "mean of draws", "majority": "majority", "worst_of_n": "worst of n"}
_WORDS = {"clean": "clean", "noise": "random noise", "robust": "the worst of each"}


@dataclass(frozen=True, slots=True)
class Points:
    """What was judged, and the verdict.

    Args:
        kind: the images as they are, random noise of the attacks' size, an attack, or each image's worst of them all.
        name: of the attack, or words for the others.
        verdict: ``mean``, ``majority``, ``worst_of_n``, each with ``mean``, ``low`` and ``high``.
    """

    kind: Literal["clean", "noise", "attack", "robust"]
    name: str
    verdict: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What a file calls it."""
        return f"attack {self.name}" if self.kind == "attack" else self.kind


def points(summary: Mapping[str, Any]) -> list[Points]:
    """The points of an evaluation's ``summary.json``, in the order in which they are shown."""
    attacks = [Points("attack", name, verdict) for name, verdict in summary["attacks"].items()]
    clean, noise, robust = (Points(kind, _WORDS[kind], summary[kind]) for kind in ("clean", "noise", "robust"))
    if summary["settings"]["protocol"].get("within"):
        return [clean, *attacks, robust]
    return [clean, noise, *attacks, robust] if attacks else [clean]


def bound(summary: Mapping[str, Any]) -> str:
    """What its attacks keep to: a ball, such as ``linf eps 8/255``, or words."""
    protocol = summary["settings"]["protocol"]
    threat = protocol["threat"]
    return str(protocol.get("within") or f"{threat['norm']} eps {eps_text(threat['eps'])}")


def made(check: Mapping[str, Any]) -> bool:
    """Whether a sanity check was made; records of before say it in words."""
    return bool(check.get("made", not check.get("figure", "").startswith("not asked")))


def outcome(check: Mapping[str, Any]) -> str:
    """Of a sanity check in a word."""
    return "not made" if not made(check) else "ok" if check["passed"] else "FAILED"


def made_checks(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sanity checks of an evaluation that were made."""
    return [check for check in summary["sanity"] if made(check)]


def passed_checks(summary: Mapping[str, Any]) -> str:
    """How many of the sanity checks that were made passed: 9 of 10 passed, 2 not made."""
    asked = made_checks(summary)
    absent = len(summary["sanity"]) - len(asked)
    text = f"{sum(check['passed'] for check in asked)} of {len(asked)} passed"
    return f"{text}, {absent} not made" if absent else text


def left_out(summary: Mapping[str, Any]) -> str:
    """A sentence on what the protocol lacks in this norm; empty where it lacks nothing."""
    protocol = summary["settings"]["protocol"]
    absent = ", ".join(protocol.get("left_out", ()))
    return f"Left out in {NORMS[protocol['threat']['norm']]} here: {absent}." if absent else ""


def means(summary: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Mean accuracy over corruptions: of ``all``, then of each kind; nothing under another protocol."""
    found = summary.get("averages")
    return {"all": found["all"]} | found["kind"] if found else {}


def lines(
    results: Sequence[Result], certificates: Sequence[dict[str, Any]], unions: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Every accuracy of these results, sweeps over norms and certificates, a mapping each: what it is of, then
    ``accuracy``, ``low`` and ``high``."""
    for r in results:
        s = r.summary
        norm, eps = (None, None) if r.within else (r.threat["norm"], r.eps)
        about = {"folder": str(r.folder), "model": r.name, "protocol": r.protocol, "norm": norm, "eps": eps,
                 "n": s["images"], "draws": s["draws"]}  # fmt: skip
        for one in points(s):
            for kind in KINDS:
                yield about | {"points": one.key, "verdict": kind} | _interval(one.verdict[kind])
        for v in s.get("distances", {}).get("curve", ()):
            yield about | {"eps": v["radius"], "points": "security curve", "verdict": "mean"} | _interval(v)
        for kind, v in means(s).items():
            name = f"mean of {'corruptions' if kind == 'all' else kind}"
            yield about | {"points": name, "verdict": "mean"} | _interval(v)
        if v := s.get("own", {}).get("accuracy"):
            own = {"norm": None, "eps": None, "draws": None, "points": "clean", "verdict": "own answer"}
            yield about | own | _interval(v)
    for u in unions:
        for kind in KINDS:
            share = u["union"][kind]
            yield {"folder": u["folder"], "model": u["name"], "protocol": u["protocol"], "norm": "union", "eps": None,
                   "n": share["n"], "draws": u["union"]["draws"], "points": "robust", "verdict": kind
                   } | _interval(share)  # fmt: skip
    for c in certificates:
        smoothing = c["settings"]["smoothing"]
        for v in c["curve"]:
            yield {"folder": c["folder"], "model": c["name"], "protocol": "certify", "norm": "l2", "eps": v["radius"],
                   "n": c["images"], "draws": smoothing["n"], "points": "certified",
                   "verdict": f"sigma {smoothing['sigma']:g}"} | _interval(v)  # fmt: skip


def _interval(share: Mapping[str, float]) -> dict[str, float]:
    return {"accuracy": share["mean"], "low": share["low"], "high": share["high"]}
