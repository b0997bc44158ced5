"""How the documentation site is built: ``make docs``."""

import re
import sys
from inspect import getdoc
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference_pages  # noqa: E402

from idc import __version__  # noqa: E402

project, author = "idc", "The idc authors"
copyright = "The idc authors, Apache-2.0"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 4  # as GitHub makes them
exclude_patterns = ["_build", "_generated"]
html_theme = "furo"
html_title = "idc"
html_extra_path = ["llms.txt"]
html_copy_source = False
html_show_search_summary = False  # a browser does not fetch pages for it where they are opened as files
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
smartquotes_action = "D"  # dashes alone: quotes stay as code has them
highlight_language = "none"

FOREIGN = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*")


def works_offline(app: Sphinx, error: Exception | None) -> None:
    """Refuse a page that would load a script, a style, a font or a picture from another machine.

    Raises:
        SphinxError: for the first such page.
    """
    for page in () if error else sorted(Path(app.outdir).rglob("*.html")):
        if found := FOREIGN.search(page.read_text(encoding="utf-8")):
            raise SphinxError(f"{page.name} is not for reading offline: {found[0]}")


def as_written(app: Sphinx, what: str, name: str, own: object, options: object, lines: list[str]) -> None:
    """A property's docstring: what stands before a colon in it napoleon takes for its type."""
    if what == "property" and any(line.startswith(":type:") for line in lines):
        lines[:] = [*(getdoc(own) or "").splitlines(), ""]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    reference_pages.write(HERE / "_generated")
    app.connect("autodoc-process-docstring", as_written, priority=600)  # after napoleon
    app.connect("build-finished", works_offline)
