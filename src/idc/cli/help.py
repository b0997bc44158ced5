"""What ``--help`` looks like: a flag and what it does side by side or, where the flag is long, one below the other."""

from typing import Any

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
