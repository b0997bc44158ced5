"""Numbers as people write them: a radius, shares, seconds, sizes, counts; tables of them; names as they are."""

import csv
import io
import re
from collections.abc import Iterable, Mapping

NORMS = {"linf": "L-inf", "l2": "L2", "l1": "L1"}
_UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", **{c: f"\\{c}" for c in "&%$#_{}"},
})  # fmt: skip
_MARKDOWN = re.compile(r"[\\`*<|]|\](?=[(\[:])|&(?=#?\w+;)")


def fraction(text: str) -> float:
    """0.1 or 8/255. Raises ValueError or ZeroDivisionError for what is no number."""
    over, slash, under = text.partition("/")
    return float(over) / float(under) if slash else float(over)


def default_eps(norm: str, channels: int) -> float:
    """8/255 (L-inf), 0.5 (L2) or 12 (L1) for colour images; 0.1, 1.0 or 4 for grey ones, whose strokes are coarse."""
    return {"linf": (8 / 255, 0.1), "l2": (0.5, 1.0), "l1": (12.0, 4.0)}[norm][channels == 1]


def eps_text(eps: float) -> str:
    """8/255 or 0.5/255 where it is a whole number of half 255ths, else the number."""
    halves = eps * 255 * 2
    whole = abs(halves - round(halves)) < 1e-6 * max(1, halves)
    return f"{round(halves) / 2:g}/255" if whole and len(f"{eps:g}") > 5 else f"{eps:g}"


def eps_name(eps: float) -> str:
    """``eps_text`` for the name of a file or folder: 8-255."""
    return eps_text(eps).replace("/", "-")


def percent(value: float, digits: int = 1) -> str:
    """0.9876 -> 98.8%."""
    return f"{value:.{digits}%}"


def share(value: Mapping[str, float], digits: int = 1) -> str:
    """A share with its interval, ``mean``, ``low`` and ``high``: 37.3% [34.4%, 40.3%]."""
    mean, low, high = (percent(value[part], digits) for part in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def counted(number: str, noun: str) -> str:
    """1 epoch, 3 epochs."""
    return f"{number} {noun}{'s' * (number != '1')}"


def epoch_text(epochs: float) -> str:
    """3, 0.11, or 0.004 below a hundredth."""
    return f"{epochs:.2f}".rstrip("0").rstrip(".") if epochs >= 0.01 or not epochs else f"{epochs:.1g}"


def seconds_text(seconds: float) -> str:
    """1.50 s, or 12.3 ms."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def duration_text(seconds: float) -> str:
    """45 s, 12 min, or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_text(count: float) -> str:
    """Bytes as 1.5 MiB."""
    return f"{count / 2**20:,.1f} MiB"


def count_text(count: int) -> str:
    """12,345, or 1.23 M, 1.23 G or 1.23 T."""
    unit, letter = next(((u, letter) for u, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if count >= u), (1, ""))
    return f"{count / unit:,.2f} {letter}" if letter else f"{count:,}"


def flops_text(flops: float) -> str:
    """1.23 GFLOPs, or 12.3 MFLOPs below a tenth of one."""
    return f"{flops / 1e9:,.2f} GFLOPs" if flops >= 1e8 else f"{flops / 1e6:,.3g} MFLOPs"


def gflops_text(flops: float) -> str:
    """FLOPs in units of 1e9, to three digits."""
    return f"{flops / 1e9:.3g}"


def visible(text: str) -> str:
    """Text with what a terminal would obey, and bytes that are no UTF-8, written out: an escape as \\x1b. Ends of lines
    are left."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def in_markdown(text: object) -> str:
    """A name, or another text that anybody wrote, as Markdown shows it as it is, in a table's cell too: on one line, no
    tag, link or code."""
    return _MARKDOWN.sub(r"\\\g<0>", visible(" ".join(str(text).split())))


def table_row(*cells: object) -> str:
    """A row of a Markdown table; ``in_markdown`` makes a cell of a name."""
    return f"| {' | '.join(map(str, cells))} |"


def table_head(*cells: object) -> list[str]:
    """The first two lines of a Markdown table: its columns, and the rule below them."""
    return [table_row(*cells), table_row(*["---"] * len(cells))]


def in_latex(text: object) -> str:
    """A name, or another text that anybody wrote, as LaTeX shows it as it is: on one line, no command, no dash made of
    two hyphens; a bracket or star at its beginning is no option of the line before."""
    found = re.sub("-(?=-)", "-{}", visible(" ".join(str(text).split())).translate(_LATEX))
    return f"{{}}{found}" if found[:1] in ("[", "*") else found


def latex_row(*cells: object) -> str:
    """A row of a LaTeX table, of any texts."""
    return " & ".join(map(in_latex, cells)) + r" \\"


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV, numbers as they are."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
