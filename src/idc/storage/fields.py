"""The fields of settings: what each takes, one check for all of them, and how they are recorded.

A dataclass of settings declares its fields by ``setting``. Such a field is a flag of the command line, a key of a YAML
file and an argument in Python at once, and is refused in the same words in all three.
"""

import dataclasses
import math
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from reprlib import Repr
from types import NoneType
from typing import Any, Literal

from idc.errors import IDCError
from idc.text import fraction

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}
_PLURAL = {int: "whole numbers", float: "numbers", str: "texts"}
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def setting(default: Any = MISSING, help: str = "", **about: Any) -> Any:
    """A field of a dataclass of settings.

    Args:
        default: none for a field that must be given.
        help: what it is; the help of its flag.
        about: more that is known of it: a field of ``Rule``, ``omit_default`` (see ``recorded``), or what the command
            line shows (see ``idc.cli.flags``).
    """
    return dataclasses.field(default=default, metadata={"help": help} | about)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a field takes.

    Args:
        hint: its type: bool, int, float (finite), str, Literal, another class, a tuple of these; any of them or None.
        help: what it is.
        least, most: bounds of a number, or of each number of a tuple, that are allowed themselves.
        above, below: bounds that are not.
        filled: whether a tuple has to have a part.
        expected: instead of words made of the above.
        remedy: instead of the caller's.
    """

    hint: Any
    help: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    filled: bool = False
    expected: str = ""
    remedy: str = ""

    @property
    def optional(self) -> bool:
        """Whether None is a value."""
        return NoneType in typing.get_args(self.hint)

    @property
    def kind(self) -> Any:
        """The type but for None."""
        return next(o for o in typing.get_args(self.hint) if o is not NoneType) if self.optional else self.hint

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts of a Literal."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    def value(
        self, name: str, given: Any, *, where: str = "", remedy: str = "correct it", text: str | None = None
    ) -> Any:
        """``given`` as the field holds it: a list as a tuple, 8/255 as a number, "none" as None. ``text`` is how it was
        written.

        Raises:
            IDCError: if it is no value of the field; its text is short, whatever was given.
        """
        try:
            return self._fit(self.hint, given)
        except (ValueError, OverflowError, ZeroDivisionError) as error:
            given = given if text is None else text
            raise IDCError(f"{name} = {short(given)}{where}", self.words, self.remedy or remedy) from error

    def read(self, name: str, text: str, *, where: str = "", remedy: str = "correct it") -> Any:
        """The value that a text means, such as a flag's: 3,1,0 is a tuple.

        Raises:
            IDCError: see ``value``.
        """
        return self.value(name, self._parsed(self.kind, text), where=where, remedy=remedy, text=text)

    def _parsed(self, kind: Any, text: str) -> Any:
        """The value that ``text`` looks like; if it does not, itself."""
        if self.optional and not text and kind is not str:
            return None
        if typing.get_origin(kind) is tuple:
            parts = [] if text.lower() == "none" else [part.strip() for part in text.split(",") if part.strip()]
            return None if self.optional and not parts else [self._parsed(typing.get_args(kind)[0], p) for p in parts]
        if kind is int:
            try:
                return int(text)
            except ValueError:
                return text
        return _YES_NO.get(text.lower(), text) if kind is bool else text

    def _fit(self, hint: Any, given: Any) -> Any:
        """``given`` as a ``hint``; ValueError, OverflowError or ZeroDivisionError if it is none."""
        parts, origin = typing.get_args(hint), typing.get_origin(hint)
        found: Any = given
        if NoneType in parts:
            none = given is None or (self.kind is not str and isinstance(given, str) and given.lower() == "none")
            return None if none else self._fit(self.kind, given)
        if origin is tuple and isinstance(given, list | tuple):
            kinds = parts[:1] * len(given) if parts[-1] is Ellipsis else parts
            found = tuple(self._fit(kind, part) for kind, part in zip(kinds, given, strict=True))
            fits = bool(found) or not self.filled
        elif hint in (int, float):
            found = fraction(given) if hint is float and isinstance(given, str) else given
            fits = isinstance(found, Integral if hint is int else Real) and not isinstance(found, bool)
            found = hint(found) if fits else found
            fits = fits and self._holds(found)
        elif origin is Literal:
            fits = isinstance(given, str) and given in parts
        else:
            fits = isinstance(given, origin or hint)
        if not fits:
            raise ValueError
        return found

    def _holds(self, number: float) -> bool:
        low = (self.least is None or number >= self.least) and (self.above is None or number > self.above)
        high = (self.most is None or number <= self.most) and (self.below is None or number < self.below)
        return low and high and abs(number) < (2**64 if isinstance(number, int) else math.inf)

    @property
    def words(self) -> str:
        """What is expected, in words."""
        found = self.expected or self._words(self.kind)
        return f"{found}, or none" if self.optional else found

    def _words(self, kind: Any) -> str:
        parts, origin = typing.get_args(kind), typing.get_origin(kind)
        if origin is Literal:
            return " or ".join(parts) if len(parts) == 2 else f"one of {', '.join(parts)}"
        if origin is tuple:
            count = len(parts) if parts[-1] is not Ellipsis else "a list of 1 or more" if self.filled else "a list of"
            return f"{count} {_PLURAL.get(parts[0], parts[0])}{self._range()}"
        return _WORDS.get(origin or kind, f"a {getattr(kind, '__name__', kind)}") + self._range()

    def _range(self) -> str:
        low, high = (self.above if self.least is None else self.least), (self.below if self.most is None else self.most)
        if low is not None and high is not None:
            return f" in {'(' if self.least is None else '['}{low:g}, {high:g}{')' if self.most is None else ']'}"
        if low is not None:
            return f" above {low:g}" if self.least is None else f", at least {low:g}"
        return "" if high is None else f" below {high:g}" if self.most is None else f", at most {high:g}"


def rules(kind: type[Any]) -> dict[str, Rule]:
    """What each field of a dataclass takes."""
    hints, own = typing.get_type_hints(kind), {f.name for f in fields(Rule)}
    return {
        f.name: Rule(hints[f.name], **{k: v for k, v in f.metadata.items() if k in own}) for f in fields(kind) if f.init
    }


def check(settings: Any, *, remedy: str = "correct it") -> None:
    """Check every field of a dataclass, from its ``__post_init__``, and keep it as ``Rule.value`` gives it.

    Raises:
        IDCError: for the first that is no value of its field.
    """
    for name, rule in rules(type(settings)).items():
        object.__setattr__(settings, name, rule.value(name, getattr(settings, name), remedy=remedy))


def take(
    kind: type[Any], given: Mapping[str, Any], *, names: Collection[str] | None = None, besides: Collection[str] = (),
    what: str = "", where: str = "", remedy: str = "correct it",
) -> dict[str, Any]:  # fmt: skip
    """What a mapping, of a file say, gives for the fields of a dataclass.

    Args:
        names: of fields that may be given; by default all.
        besides: names that are read elsewhere, for the message about one that is unknown.
        what: kind of name, for the same message.
        where: it was given, for every message.

    Raises:
        IDCError: for a name that is none of them, or a value that is none of its field's.
    """
    own = {name: rule for name, rule in rules(kind).items() if names is None or name in names}
    for name in given:
        if name not in own:
            raise unknown(f"{what} {short(name)}{where}".strip(), name, [*besides, *own])
    return {name: own[name].value(name, value, where=where, remedy=remedy) for name, value in given.items()}


def unknown(value: str, name: object, known: Collection[str]) -> IDCError:
    """The error for a name that is none of ``known``: it lists them, or if they are many those like it."""
    names = list(known)
    if len(", ".join(names)) > 250:
        names = [*(get_close_matches(str(name)[:40], names, cutoff=0.5) or names[:8]), "..."]
    return IDCError(value, f"one of {', '.join(names)}", "correct its name")


class _Short(Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 60, 60
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 6

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write a number of more than 4300 digits.
        return repr(x) if x.bit_length() < 200 else f"a number of {x.bit_length():,} bits"


def written(value: object) -> str:
    """A setting's value as a flag or a YAML file has it: 0,0,0,1 or true."""
    if isinstance(value, tuple):
        return ",".join(map(written, value)) or "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def short(value: Any) -> str:
    """``value`` in at most 100 characters; of lists in lists, which a YAML file may nest without end, a few."""
    text = _Short().repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def recorded(value: Any, *, kinds: bool = False) -> Any:
    """What a record says of a value: of a dataclass its fields as a dict, of a tuple a list, and so on within them.

    A field with the metadata ``omit_default`` is left out where it has its default: so settings that say nothing new
    have the same record, and the same hash of it, as before there was such a field.

    Args:
        kinds: say of every dataclass its ``kind``, and of what is no value of JSON nothing else.
    """
    if is_dataclass(value) and not isinstance(value, type):
        given = {f: getattr(value, f.name) for f in fields(value)}
        told = {f.name: v for f, v in given.items() if not (f.metadata.get("omit_default") and v == f.default)}
        return ({"kind": type(value).__name__} if kinds else {}) | recorded(told, kinds=kinds)
    if isinstance(value, Mapping):
        return {key: recorded(own, kinds=kinds) for key, own in value.items()}
    if isinstance(value, tuple | list):
        return [recorded(own, kinds=kinds) for own in value]
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain or not kinds else {"kind": type(value).__name__}
