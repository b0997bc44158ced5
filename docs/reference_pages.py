"""The parts of docs/reference that are made from the program itself, before Sphinx reads the pages around them."""

import re
from dataclasses import MISSING, fields
from inspect import getdoc
from pathlib import Path
from typing import Any

from typer.main import get_command

from idc.cli import app
from idc.cli.help import Command
from idc.method.bridge import BridgeSpec
from idc.method.presets import PRESETS
from idc.method.unet import UNetSpec
from idc.storage.fields import rules
from idc.text import eps_text, table_head, table_row
from idc.training.recipe import CNN_RECIPES, NOISE_RECIPES, RECIPES

RECIPE_KINDS = {
    "IDC: `idc train`": RECIPES,
    "CNNs: `idc train-peer cnn`": CNN_RECIPES,
    "Diffusion models: `idc train-peer ddpm`": NOISE_RECIPES,
}


def write(folder: Path) -> None:
    """Write the generated Markdown into ``folder``; a file that would be the same is left alone."""
    folder.mkdir(exist_ok=True)
    for name, text in {"command-line.md": command_line(), "recipes.md": recipes()}.items():
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def command_line() -> str:
    """Every command with its arguments and flags, from the program's own declarations."""
    root = get_command(app)
    return "\n".join(_commands(root, root.context_class(root, info_name="idc"))) + "\n"


def _commands(command: Any, ctx: Any) -> list[str]:
    """A part for each command below this one, or for this one, if it is none of several."""
    if not isinstance(command, Command):
        names = command.list_commands(ctx)
        under = [(command.get_command(ctx, name), name) for name in names]
        return [line for one, name in under for line in _commands(one, one.context_class(one, ctx, name))]
    told = _flags(getdoc(command.callback) or "")
    lines = [
        f"## `{ctx.command_path}`",
        "",
        told,
        "",
        "```console",
        f"$ {command.get_usage(ctx).removeprefix('Usage: ')}",
        "```",
        "",
    ]
    for title, records in command.sections(ctx).items():
        lines += [f"**{title}**:", "", *(f"* `{name}`: {_flags(help)}" for name, help in records), ""]
    return lines


def recipes() -> str:
    """Every field of the recipes and of a network: what it takes, its default, its help; what each recipe sets."""
    lines: list[str] = []
    for title, named in RECIPE_KINDS.items():
        kind = type(next(iter(named.values())))
        lines += [f"## {title}", "", *_fields(kind, {}), ""]
        lines += ["What the recipes by name set, where it is not the default:", "", *_differences(kind, named), ""]
    lines += ["## A network", "", *_fields(UNetSpec, _described(UNetSpec)), ""]
    lines += ["## A bridge", "", *_fields(BridgeSpec, _described(BridgeSpec)), ""]
    lines += ["## Networks by name", "", *_differences(UNetSpec, PRESETS), ""]
    return "\n".join(lines)


def _fields(kind: type[Any], helps: dict[str, str]) -> list[str]:
    lines = table_head("field", "takes", "default", "what it is")
    for name, rule in rules(kind).items():
        told = _cell(rule.help or helps[name])
        lines.append(table_row(f"`{name}`", _cell(rule.words), _value(_default(kind, name)), told))
    return lines


def _differences(kind: type[Any], named: dict[str, Any]) -> list[str]:
    lines = table_head("field", *(f"`{name}`" for name in named))
    for name in rules(kind):
        values = [getattr(own, name) for own in named.values()]
        default = _default(kind, name)
        if any(value != default for value in values):
            lines.append(table_row(f"`{name}`", *("" if value == default else _value(value) for value in values)))
    return lines


def _default(kind: type[Any], name: str) -> Any:
    return next(f.default for f in fields(kind) if f.name == name)


def _value(value: Any) -> str:
    if value is MISSING:
        return "must be given"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return eps_text(value) if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return _flags(text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*"))


def _flags(text: str) -> str:
    """``text`` with its flags as code, where they are not yet."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"(?<![\w-])--[a-z][a-z0-9-]*", r"`\g<0>`", p) for p in parts)


def _described(kind: type[Any]) -> dict[str, str]:
    """What the docstring of a dataclass says of each field."""
    _, _, told = (getdoc(kind) or "").partition("Args:\n")
    told = told.partition("\nRaises:")[0]
    parts = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", told, re.MULTILINE)
    return {name: " ".join(text.split()).replace("``", "`") for name, text in parts}
