"""RewriteCond: what must hold, besides the pattern, for a rule to apply."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import ConfigError, RequestRefused
from .expansion import Template
from .patterns import SUBJECT_MOST, compile_pattern

if TYPE_CHECKING:
    from .expansion import Scope

#: ``file_test(kind, path)``: kind is f, d, s, l or x (and U, F, for a sub-request), path holds bytes as latin-1.
FileTest: TypeAlias = Callable[[str, str], bool]
#: A condition in Python: it gets the function that looks variables up.
Predicate: TypeAlias = Callable[[Callable[[str], str]], bool]
#: What compares: the expanded test string, the look-up of variables and the file test in; holds, and a match, out.
Check: TypeAlias = Callable[[str, Callable[[str], str], FileTest], tuple[bool, "re.Match[str] | None"]]

_FILES: Final = {"-f": "f", "-d": "d", "-s": "s", "-l": "l", "-L": "l", "-h": "l", "-x": "x", "-F": "F", "-U": "U"}
_NUMBERS: Final = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-lt": operator.lt,
    "-le": operator.le,
    "-gt": operator.gt,
    "-ge": operator.ge,
}
_TEXTS: Final = {"<=": operator.le, ">=": operator.ge, "=": operator.eq, "<": operator.lt, ">": operator.gt}
_LEADING_NUMBER: Final = re.compile(r"\s*([+-]?[0-9]+)")
# A response that depended on one of these says so in Vary; Host is part of the URL and need not.
_VARIES: Final = {
    "HTTP_ACCEPT": "Accept",
    "HTTP_COOKIE": "Cookie",
    "HTTP_FORWARDED": "Forwarded",
    "HTTP_PROXY_CONNECTION": "Proxy-Connection",
    "HTTP_REFERER": "Referer",
    "HTTP_USER_AGENT": "User-Agent",
}


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """How one condition came out: the expanded test string, whether it holds, and the groups that it set."""

    value: str
    holds: bool
    match: re.Match[str] | None = None


@dataclass(frozen=True, slots=True)
class RewriteCond:
    """One condition: the expanded ``test`` compared with ``pattern``.

    ``pattern`` is a regular expression, searched in it; or ``=text``, ``<text``, ``>text``, ``<=text``, ``>=text``; or
    ``-eq``, ``-ne``, ``-lt``, ``-le``, ``-gt``, ``-ge`` and a number; or a file test: ``-f``, ``-d``, ``-s`` (not
    empty), ``-l``, ``-x``. A ``!`` before it negates. Flags: ``NC`` ignores case, ``OR`` joins it with the next one
    (else both must hold), ``NV`` leaves Vary alone. A function as pattern decides by itself; it gets the look-up of
    variables.
    """

    test: str
    pattern: str | Predicate
    flags: str = ""
    #: Allow a pattern that could take exponential time.
    backtracking: bool = False
    nocase: bool = field(init=False, compare=False, repr=False)
    ornext: bool = field(init=False, compare=False, repr=False)
    negated: bool = field(init=False, compare=False, repr=False)
    varies: tuple[str, ...] = field(init=False, compare=False, repr=False)
    _template: Template = field(init=False, compare=False, repr=False)
    _check: Check = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        flags = self._flags()
        template = Template.parse(self.test, name="test")
        self._set("nocase", bool(flags & {"nc", "nocase"}))
        self._set("ornext", bool(flags & {"or", "ornext"}))
        self._set("_template", template)
        varies = tuple(filter(None, map(_field, template.variables))) if not flags & {"nv", "novary"} else ()
        self._set("varies", varies)
        if callable(self.pattern):
            predicate = self.pattern
            self._set("negated", False)
            self._set("_check", lambda value, variable, files: (predicate(variable), None))
            return
        if not isinstance(self.pattern, str):
            raise ConfigError(f"pattern of a condition must be text, got {self.pattern!r}")
        text = self.pattern.removeprefix("!")
        self._set("negated", text != self.pattern)
        self._set("_check", _check(text, self.nocase, self.backtracking))

    def evaluate(self, scope: Scope, files: FileTest) -> ConditionResult:
        """Whether it holds. The groups of a regular expression are those of ``%1`` until another one matches."""
        value = self._template.text(scope)
        if len(value) > SUBJECT_MOST:
            raise RequestRefused(431, "rewrite_subject_too_long")
        holds, match = self._check(value, scope.variable, files)
        return ConditionResult(value, holds != self.negated, match if not self.negated else None)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _flags(self) -> set[str]:
        if not isinstance(self.flags, str):
            raise ConfigError(f"flags of a condition must be text such as 'NC,OR', got {self.flags!r}")
        text = self.flags.strip().removeprefix("[").removesuffix("]")
        flags = {part.strip().lower() for part in text.split(",")} - {""}
        if flags - {"nc", "nocase", "or", "ornext", "nv", "novary"}:
            raise ConfigError(f"flags of a condition must be made of NC, OR and NV, got {self.flags!r}")
        return flags

    def __str__(self) -> str:
        return f"{self.test} {self.pattern}" + (f" [{self.flags.strip('[]')}]" if self.flags else "")


def check_conditions(conditions: tuple[RewriteCond, ...], name: str) -> None:
    """ConfigError where the last condition is joined to one that does not follow: Apache would take it for true."""
    if conditions and conditions[-1].ornext:
        raise ConfigError(f"{name} must not end with [OR]: no condition follows, got {str(conditions[-1])!r}")


def _check(text: str, nocase: bool, backtracking: bool) -> Check:
    """The test that the pattern of a condition stands for."""
    if text in _FILES:
        kind = _FILES[text]
        return lambda value, variable, files: (files(kind, value), None)
    if text[:3] in _NUMBERS and text[3:].strip():
        compare, number = _NUMBERS[text[:3]], _number(text[3:])
        return lambda value, variable, files: (compare(_number(value), number), None)
    for sign, compare_text in _TEXTS.items():
        if text.startswith(sign):
            wanted = text[len(sign) :]
            if wanted == '""':
                wanted = ""
            key = _folded if nocase else _by_length
            return lambda value, variable, files: (compare_text(key(value), key(wanted)), None)
    pattern = compile_pattern(text, nocase=nocase, name="pattern of a condition", backtracking=backtracking)

    def search(value: str, variable: Callable[[str], str], files: FileTest) -> tuple[bool, re.Match[str] | None]:
        match = pattern.search(value)
        return match is not None, match

    return search


def _number(text: str) -> int:
    """As C's atoi: what digits there are at the start, else 0."""
    found = _LEADING_NUMBER.match(text)
    return int(found[1]) if found else 0


def _by_length(text: str) -> tuple[int, str]:
    """mod_rewrite compares lengths first: "10" is greater than "9", and "aa" than "b"."""
    return len(text), text


def _folded(text: str) -> tuple[int, str]:
    return 0, text.lower()


def _field(variable: str) -> str | None:
    if variable.startswith("HTTP:"):
        return variable[5:] if variable[5:].lower() != "host" else None
    return _VARIES.get(variable)
