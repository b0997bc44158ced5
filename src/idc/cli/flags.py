"""Flags made of the fields of dataclasses: their types, choices, defaults and help are the fields' own."""

import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

from idc.storage.fields import Rule, rules

REQUIRED = Parameter.empty
_TYPES = {int: "int", float: "number", str: "text"}
_WIDE = 12  # characters of a type, more than which cut the flags' names on a narrow screen


def option(name: str, hint: Any, default: Any, help: str, *, least: float | None = None, **about: Any) -> Parameter:
    """One flag, as ``of_fields`` makes them.

    Args:
        hint, help, least: see ``Rule``.
        default: or ``REQUIRED``.
        about: what ``of_fields`` takes from a field's metadata.
    """
    return _flag(name, Rule(hint, help, least=least), default, about)


def of_fields(
    kind: type[Any], names: Collection[str] | None = None, *, recipe: str = "", **defaults: Any
) -> list[Parameter]:
    """A flag for each field of a dataclass.

    A field's metadata say besides what ``setting`` says: ``flag``, other names for it; ``unset``, what its default None
    stands for; ``panel``, its section of the help, of a recipe that of the fields after it too; ``argument``, it is an
    argument and no flag.

    Args:
        names: of these fields only.
        recipe: the flag that names a recipe, if the fields' defaults are those of a recipe.
        defaults: instead of the fields' own.
    """
    own, found, panel = rules(kind), [], None
    for f in fields(kind):
        if names is not None and f.name not in names:
            continue
        about: dict[str, Any] = dict(f.metadata)
        if recipe:
            panel = about.get("panel", panel)
            about |= {"panel": panel, "unset": _unset(f)}
        found.append(_flag(f.name, own[f.name], None if recipe else defaults.get(f.name, f.default), about))
    return found


def _unset(field: Field[Any]) -> str | bool:
    """What a recipe's flag that is not given stands for, False: its recipe's; no named recipe has another value of what
    is left out of files at its default."""
    if not field.metadata.get("omit_default") or field.default in (None, False, "none"):
        return False
    value = field.default
    if isinstance(value, tuple):
        value = ",".join(f"{v:g}" for v in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_flags(*flags: Parameter) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with these flags before those of its own signature; its ``**asked`` takes what it does not name."""

    def change(command: Callable[..., None]) -> Callable[..., None]:
        made = {p.name for p in flags} | {"asked"}
        plain = [p for name, p in signature(command).parameters.items() if name not in made]
        every = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in (*flags, *plain)]
        command.__signature__ = Signature(every)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in every}
        return command

    return change


def _flag(name: str, rule: Rule, default: Any, about: Mapping[str, Any]) -> Parameter:
    long = (about.get("flag") or f"--{name.replace('_', '-')}").split()
    more: dict[str, Any] = {"help": rule.help, "rich_help_panel": about.get("panel")}
    kind: Any = bool if rule.kind is bool else str
    if about.get("argument"):
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[str, typer.Argument(**more)])
    if kind is str:
        metavar, help = _shown(rule)
        more |= {"metavar": metavar, "help": help, "parser": _reader(rule, long[0])}
    if default not in (REQUIRED, MISSING):
        unset = about.get("unset", "")
        more["show_default"] = True if unset == "" else unset
    names = [f"{long[0]}/--no-{long[0][2:]}"] if kind is bool else long
    annotation: Any = Annotated[kind | None if default is None else kind, typer.Option(*names, **more)]
    default = REQUIRED if default is MISSING else default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _reader(rule: Rule, flag: str) -> Callable[[Any], Any]:
    """What reads a flag's text, at once: so one that took the next flag for its value says so."""

    def read(text: Any) -> Any:
        found = rule.read(flag, text, remedy=f"correct {flag} (see --help)") if isinstance(text, str) else text
        return "none" if found is None else found  # None is a flag that is not given

    return read


def _shown(rule: Rule) -> tuple[str, str]:
    """A flag's type, and its help with the choices that the type has no room for."""
    parts = rule.choices or [_TYPES[k] for k in typing.get_args(rule.kind)[:1]] or [_TYPES[rule.kind]]
    shown = f"<{'|'.join(parts)}{',...' if typing.get_origin(rule.kind) is tuple else ''}>"
    if rule.choices and len(shown) > _WIDE:
        return "<name>", f"{' | '.join(rule.choices)}: {rule.help}"
    return shown, rule.help
