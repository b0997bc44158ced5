"""The report of `idc report` as a page (templates/results.html), Markdown or JSON, and the files beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from jinja2 import UndefinedError
from markupsafe import Markup

from idc.errors import IDCError
from idc.report import curves, documents, figures
from idc.report.content import Content, Heading, read_content
from idc.report.html import environment
from idc.report.pictures import of_the_method, own_answers, panel
from idc.report.rows import bound, lines, means, points
from idc.storage.files import make_folder, whole_file, write_text
from idc.text import csv_text, eps_text

Format = Literal["html", "md", "json"]
_ENDINGS = {"html": (".html", ".htm"), "md": (".md", ".markdown"), "json": (".json",)}
_COLUMNS = ("folder", "model", "protocol", "norm", "eps", "n", "draws", "points", "verdict", "accuracy", "low", "high")


def _html(content: Content, stem: str) -> str:
    results = content.results
    confusions = [curves.confusion(r) if r.summary["attacks"] or "own" in r.summary else None for r in results]
    return environment().get_template("results.html").render(
        title=content.title,
        heading=content.heading,
        readings=content.readings,
        method=of_the_method(results),
        certificates=content.certificates,
        unions=content.unions,
        figures=[(title, Markup(figures.svg(figure))) for title, figure in content.figures.values()],
        results=[
            {
                "r": r, "s": r.summary, "eps": eps_text(r.eps), "own": own_answers(r) if "own" in r.summary else None,
                "points": points(r.summary), "bound": bound(r.summary), "means": means(r.summary),
                "panel": panel(r) if r.panel and r.summary["attacks"] else None,
                "confusion": None if c is None else Markup(figures.svg(c)),
            }
            for r, c in zip(results, confusions, strict=True)
        ],
    )  # fmt: skip


_MADE: dict[str, Callable[[Content, str], str]] = {
    "html": _html, "md": documents.markdown, "json": documents.json_text,
}  # fmt: skip


def _made(folders: Sequence[Path], heading: Heading, form: Format, stem: str) -> tuple[Content, str, str]:
    """Content, text and CSV of the report. A folder whose records lack something is named, and what they lack."""
    try:
        content = read_content(folders, heading)
        rows = lines(content.results, content.certificates, content.unions)
        table = csv_text([_COLUMNS, *([row[name] for name in _COLUMNS] for row in rows)])
        return content, _MADE[form](content, stem), table
    except (KeyError, TypeError, ValueError, IndexError, UndefinedError) as error:
        for folder in folders if len(folders) > 1 else ():
            _made([folder], heading, form, stem)  # raises for the one that is to blame
        told = f"{error} is missing" if isinstance(error, KeyError) else error
        raise IDCError(
            ", ".join(map(str, folders)), f"a whole result ({told})", "make it again with this version of idc"
        ) from error


@figures.as_written()
def write_report(
    folders: Sequence[Path], page: Path, heading: Heading | None = None, *, form: Format = "html"
) -> list[Path]:
    """Write ``page``, and beside a page or Markdown ``NAME.csv`` and each figure as ``NAME-figure.png`` and ``.svg``.

    Args:
        folders: of ``idc evaluate``, ``idc compare``, ``idc sweep``, ``idc certify`` or a training.
        page: the file.
        heading: its title and the line below.
        form: a self-contained page; Markdown, which shows the PNG figures; or one JSON document of the same rows.

    Returns:
        The files written.

    Raises:
        IDCError: if a result is missing or malformed, or the file's ending is of another form or it cannot be written.
    """
    if form not in get_args(Format):
        raise IDCError(f"format {form!r}", f"one of {', '.join(get_args(Format))}", "correct --format")
    if page.suffix.lower() not in _ENDINGS[form]:
        remedy = f"give another --out, or --format {' or '.join(f for f in _ENDINGS if f != form)}"
        raise IDCError(page, f"the name of a page, such as report.{form}", remedy)
    content, text, table = _made(folders, heading or Heading(), form, page.stem)
    make_folder(page.parent)
    written, beside = [page], page.with_suffix(".csv")
    if form != "json":
        if beside.exists() and not beside.read_bytes().startswith(",".join(_COLUMNS[:2]).encode()):
            raise IDCError(beside, "the table of an earlier report, or no such file", "give another --out")
        write_text(beside, table)
        written.append(beside)
        for name, (_, figure) in content.figures.items():
            files = [page.with_name(f"{page.stem}-{name}.{kind}") for kind in ("png", "svg")]
            with whole_file(files[0]) as part:
                part.write_bytes(figures.png(figure, dpi=150))
            write_text(files[1], figures.svg(figure))
            written += files
    write_text(page, text)
    return written
