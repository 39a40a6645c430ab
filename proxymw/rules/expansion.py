r"""Expansion of ``$1``, ``%1``, ``%{NAME}`` and ``${map:key|default}``: once, left to right, never again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..errors import ConfigError
from .paths import quote_path

if TYPE_CHECKING:
    from .paths import RoutePath

#: What a map gives for a key: its value, or None (or "") for none.
Lookup: TypeAlias = Callable[[str], str | None]

_TOKEN = re.compile(r"\\(?P<escaped>.)|\$(?P<group>[0-9])|%(?P<condition>[0-9])|%\{(?P<variable>[^{}]*)\}|\$\{|.", re.S)
_RESERVED = re.compile(r"[^A-Za-z0-9_]")


class Piece(NamedTuple):
    """One part of an expanded text.

    ``text`` is what it means, ``path`` and ``query`` how it is written on the wire there. ``fixed``: the rule itself
    wrote it, so that a ``?`` in it may end the path; ``escaped``: a ``?`` in it cannot be taken for one that does.
    """

    text: str
    path: str
    query: str
    fixed: bool = False
    escaped: bool = False


@dataclass(frozen=True, slots=True)
class Escape:
    """The B flags: which characters of a back-reference are written as ``%xx``, and a space as ``+`` or ``%20``."""

    everything: bool = False
    only: str = ""
    controls: bool = False
    never: str = ""
    plus: bool = True

    def __call__(self, text: str, *, plus: bool | None = None) -> str:
        space = "+" if (self.plus if plus is None else plus) else "%20"
        return "".join(
            (space if char == " " else f"%{ord(char):02x}") if self._escapes(char) else char for char in text
        )

    def _escapes(self, char: str) -> bool:
        if char in self.never:
            return False
        if char in self.only or (self.controls and (char <= " " or char == "\x7f")):
            return True
        restricted = self.only or self.controls
        return (self.everything or not restricted) and _RESERVED.match(char) is not None


@dataclass(slots=True)
class Scope:
    """What expansions refer to. ``match`` is that of the rule in ``subject``, ``conditions`` the last condition's."""

    variable: Callable[[str], str]
    maps: Mapping[str, Lookup]
    subject: RoutePath
    match: re.Match[str] | None = None
    conditions: re.Match[str] | None = None
    #: Keep the client's spelling of captures; else everything is quoted anew.
    client: bool = True
    escape: Escape | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    number: int

    def piece(self, scope: Scope) -> Piece:
        match = scope.match
        if match is None or self.number > match.re.groups or match.start(self.number) < 0:
            return Piece("", "", "")
        text = match[self.number]
        if scope.escape:
            return _escaped(text, scope)
        if not scope.client:
            return Piece(text, text, text)
        spelled = scope.subject.spell(*match.span(self.number))
        # A space or control in a query is refused, however it was spelled; so its text is kept for the check.
        return Piece(text, spelled, text if re.search(r"[\x00-\x20\x7f]", text) else spelled)


@dataclass(frozen=True, slots=True)
class _Condition:
    number: int

    def piece(self, scope: Scope) -> Piece:
        match = scope.conditions
        text = (match[self.number] or "") if match is not None and self.number <= match.re.groups else ""
        return _escaped(text, scope) if scope.escape and text else Piece(text, quote_path(text), text)


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str

    def piece(self, scope: Scope) -> Piece:
        text = scope.variable(self.name)
        return Piece(text, quote_path(text), text)


@dataclass(frozen=True, slots=True)
class _Map:
    name: str
    key: Template
    default: Template

    def piece(self, scope: Scope) -> Piece:
        lookup = scope.maps.get(self.name)
        text = (lookup(self.key.text(scope)) if lookup else None) or self.default.text(scope)
        return Piece(text, quote_path(text), text)


_Part: TypeAlias = str | _Group | _Condition | _Variable | _Map


@dataclass(frozen=True, slots=True)
class Template:
    """A text with expansions, parsed once."""

    source: str
    parts: tuple[_Part, ...] = ()

    @classmethod
    def parse(cls, source: str, *, name: str = "target") -> Template:
        """Text beyond ASCII is UTF-8. ConfigError for a ``${`` that is not closed."""
        if not isinstance(source, str):
            raise ConfigError(f"{name} must be text, got {source!r}")
        text = source.encode("utf-8", "surrogateescape").decode("latin-1")
        parts, end = _parsed(text, 0, "", name, source)
        assert end == len(text)
        return cls(source, parts)

    def expand(self, scope: Scope) -> list[Piece]:
        return [
            Piece(part, quote_path(part), part, fixed=True) if isinstance(part, str) else part.piece(scope)
            for part in self.parts
        ]

    def text(self, scope: Scope) -> str:
        """The expanded text without any escaping, as conditions, keys and values want it."""
        if scope.escape:
            scope = replace(scope, escape=None)
        return "".join(part if isinstance(part, str) else part.piece(scope).text for part in self.parts)

    @property
    def variables(self) -> Iterator[str]:
        """The names of the variables in it."""
        for part in self.parts:
            if isinstance(part, _Variable):
                yield part.name
            elif isinstance(part, _Map):
                yield from part.key.variables
                yield from part.default.variables

    @property
    def maps(self) -> Iterator[str]:
        for part in self.parts:
            if isinstance(part, _Map):
                yield part.name
                yield from part.key.maps
                yield from part.default.maps

    @property
    def fixed(self) -> str | None:
        """The text, where nothing in it is to be expanded."""
        return "".join(map(str, self.parts)) if all(isinstance(part, str) for part in self.parts) else None

    def __bool__(self) -> bool:
        return bool(self.parts)


def _parsed(text: str, at: int, stops: str, name: str, source: str) -> tuple[tuple[_Part, ...], int]:
    """The parts of ``text`` from ``at`` to the first of ``stops``, and where that is."""
    parts: list[_Part] = []
    literal = ""
    while at < len(text) and text[at] not in stops:
        token = _TOKEN.match(text, at)
        assert token is not None
        part: _Part | None = None
        at = token.end()
        if token[0] == "${":
            part, at = _parsed_map(text, at, name, source)
        elif token["group"]:
            part = _Group(int(token["group"]))
        elif token["condition"]:
            part = _Condition(int(token["condition"]))
        elif token["variable"] is not None:
            part = _Variable(_variable_name(token["variable"]))
        else:
            literal += token["escaped"] or token[0]
            continue
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(part)
    if literal:
        parts.append(literal)
    return tuple(parts), at


def _parsed_map(text: str, at: int, name: str, source: str) -> tuple[_Map, int]:
    colon = re.compile(r"([^:{}|$%]+):").match(text, at)
    if not colon:
        raise ConfigError(f"{name} must write a map as ${{name:key|default}}, got {source!r}")
    key, at = _parsed(text, colon.end(), "|}", name, source)
    default: tuple[_Part, ...] = ()
    if text[at : at + 1] == "|":
        default, at = _parsed(text, at + 1, "}", name, source)
    if text[at : at + 1] != "}":
        raise ConfigError(f"{name} must close every ${{, got {source!r}")
    return _Map(colon[1], Template("", key), Template("", default)), at + 1


def _variable_name(written: str) -> str:
    """Names are upper case; what follows HTTP:, ENV: and the like is taken as it is."""
    kind, colon, rest = written.partition(":")
    return f"{kind.upper()}:{rest}" if colon else written.upper()


def _escaped(text: str, scope: Scope) -> Piece:
    """Apache escapes the text itself, so that a path is escaped twice; a client's spelling is escaped once."""
    assert scope.escape is not None
    escaped = scope.escape(text)
    if not scope.client:
        return Piece(escaped, escaped, escaped, escaped=True)
    return Piece(text, quote_controls(scope.escape(text, plus=False)), escaped, escaped=True)


def quote_controls(text: str) -> str:
    """``text`` with what may not be in a target percent-encoded; what is encoded already stays."""
    return re.sub(r"[^\x21-\x7e]|[\"#<>?\\^`{|}]", lambda found: f"%{ord(found[0]):02X}", text)
