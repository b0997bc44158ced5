"""What ``--help`` looks like: a flag and what it does side by side or, where the flag is long, one below the other."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_ARGUMENTS, _OPTIONS = "Arguments", "Options"
_WHOLE = 500  # characters of a command's line: its first sentence, which wraps


class Command(TyperCommand):
    """A command whose help has its flags whole, in sections named as their panels are."""

    def sections(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """By title: each flag, as it is written, and what it does."""
        found: dict[str, list[tuple[str, str]]] = {_ARGUMENTS: [], _OPTIONS: []}
        for one in self.get_params(ctx):
            if record := one.get_help_record(ctx):
                usual = _ARGUMENTS if one.param_type_name == "argument" else _OPTIONS
                found.setdefault(getattr(one, "rich_help_panel", None) or usual, []).append(record)
        return {title: records for title, records in found.items() if records}

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, records in self.sections(ctx).items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=28)


class Group(TyperGroup):
    """Commands, each with its first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        every = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        records = [(name, one.get_short_help_str(limit=_WHOLE)) for name, one in every if one and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(records)


class App(typer.Typer):
    """Commands whose help looks so."""

    def __init__(self, **settings: Any) -> None:
        wide = {"max_content_width": 120}
        super().__init__(cls=Group, context_settings=wide, rich_markup_mode=None, no_args_is_help=True, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=Command, **settings)
