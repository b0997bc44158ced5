"""The tables of docs/training.md: what carries the robustness; see pages.py."""

from collections.abc import Iterator
from itertools import groupby

from ablations import BASE
from ablations import rows as all_rows
from common import RESULTS, read, survivors
from label_pages import differences, points

from idc.evaluation.pairing import paired
from idc.report.comparison import HALF
from idc.text import share, table_head, table_row

TITLES = {"digits": "The digits", "nano": "CIFAR-10, `nano-patch4`"}


def _verdicts(entries: list[dict]) -> Iterator[str]:
    """Clean and robust accuracy of one answer, over its seeds."""
    for part in ("clean", "robust"):
        found = [e[part]["majority"] for e in entries]
        if len(found) == 1:
            yield share(found[0])
        else:
            means = [v["mean"] for v in found]
            yield f"{sum(means) / len(means):.1%} ({min(means):.1%} to {max(means):.1%})"


def _beside_base(entries: list[dict], base: list[dict]) -> str:
    """A row's one step beside that of the row which the others change."""
    own = [r for r in base if r["answer_name"] == "one step"]
    return _ahead(entries, own) if own and entries[0]["row"] != BASE else ""


def _ahead(entries: list[dict], others: list[dict]) -> str:
    """How far the first are ahead of the others on the same images, in points: of one seed with p, of several with the
    intervals over them and over images."""
    if len({e["seed"] for e in entries} & {e["seed"] for e in others}) > 1:
        common = set.intersection(*(set(survivors(e)) for e in (*entries, *others)))
        return points(differences(*([_on(common, e) for e in side] for side in (entries, others))))
    first, second = ({(e["seed"], i): s for e in side for i, s in survivors(e).items()} for side in (entries, others))
    found = paired(first, second)
    return f"{100 * found.difference:+.1f}, p = {found.p:.1g}"


def _on(images: set[int], entry: dict) -> dict:
    """What was measured of an answer, on these images alone, in the order of their ids."""
    own, order = survivors(entry), sorted(images)
    return entry | {"ids": " ".join(map(str, order)), "survived": "".join("01"[own[i]] for i in order)}


def ablation() -> list[str]:
    """What carries the robustness, row by row."""
    return _tables("digits", "nano")


def ingredients() -> list[str]:
    """What may be added, row by row."""
    return _tables("robust")


def _tables(*names: str) -> list[str]:
    """Every row of these ablations, by its answers."""
    lines: list[str] = []
    for name in names:
        file = RESULTS / f"ablation-{name}.json"
        if not file.exists():
            continue
        found = read(file)
        chained = any(r["answer_name"] == "chain" for r in found["rows"])
        chain_head = ("chain: clean", "robust", "beside its one step") if chained else ()
        several = any(r["seed"] for r in found["rows"])
        head = (
            "trained with",
            *["seeds"] * several,
            "one step: clean",
            "robust",
            f"beside `{BASE}`",
            *chain_head,
            "seconds",
        )
        base = [r for r in found["rows"] if r["row"] == BASE]
        done, wanted = {r["row"] for r in found["rows"]}, list(all_rows(name))
        lines += [f"### {TITLES[name]}", ""] if len(names) > 1 else []
        if lacking := [r for r in wanted if r not in done]:
            lines += [f"{len(done)} of {len(wanted)} rows; not measured yet: {', '.join(lacking)}.", ""]
        lines += table_head(*head)
        others: list[str] = []
        for name_of_row, group in groupby(found["rows"], key=lambda r: r["row"]):
            rows = list(group)
            answers = {a: list(g) for a, g in groupby(sorted(rows, key=_answer), key=_answer)}
            one_step, chain = answers.pop("one step"), answers.pop("chain", None)
            cells = [*_verdicts(one_step), _beside_base(one_step, base)]
            cells += [*_verdicts(chain), _ahead(chain, one_step)] if chain else []
            seconds = sum(r["seconds"] for r in rows) / len(rows)
            lines.append(
                table_row(
                    f"`{name_of_row}`: {rows[0]['meaning']}", *[len(one_step)] * several, *cells, f"{seconds:.0f}"
                )
            )
            others += [
                table_row(answer, entries[0]["draws"], *_verdicts(entries), _ahead(entries, one_step))
                for answer, entries in answers.items()
            ]
        if others:
            lines += ["", f"Other answers of the weights of `{BASE}`:", ""]
            lines += [*table_head("answer", "draws", "clean", "robust", "beside the one step"), *others]
        draws = max(r["draws"] for r in found["rows"])
        half = f" {HALF}" if found["precision"] == "bf16" else ""
        judged = {r["answer_name"]: r["images"] for r in found["rows"]}
        of_chain = f" (one step) and {judged['chain']} (chain)" if chained else ""
        cpus = " or ".join(sorted({r["cpu"] for r in found["rows"]}))
        spread = "one or several seeds" if several else "1 seed"
        spread += "; brackets: 95% Wilson intervals" + ", or, of several seeds, their mean and range" * several
        pairs = (
            "; of several seeds, both rows' common ones, 95% intervals over seeds (Student) and over images" * several
        )
        lines += [
            "",
            f"One step: a single answer{f'; chain: majority of {draws} draws' * chained}. Protocol `quick` at eps "
            f"{found['eps']}, {judged['one step']}"
            f"{of_chain} {found['split']} images of "
            f"{found['data']}, {spread}. *Beside*: the difference of what is robust, in points, on the images that "
            f"both were given, and p of McNemar's exact test{pairs}. "
            f"Seconds of training are those of one core of {cpus} among others at work.{half}",
            "",
        ]
    return lines or ["Not measured yet."]


def _answer(entry: dict) -> str:
    return str(entry["answer_name"])
