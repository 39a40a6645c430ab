"""The flags of RewriteRule, parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .expansion import Escape, Template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Rounds that [N] may start, unless it says otherwise. Apache's 32000 only makes a loop last longer.
ROUNDS_MOST = 1000

_LONG = {
    "backrefescaping": "b",
    "backrefnoplus": "bnp",
    "chain": "c",
    "cookie": "co",
    "discardpath": "dpi",
    "env": "e",
    "forbidden": "f",
    "gone": "g",
    "handler": "h",
    "last": "l",
    "next": "n",
    "nocase": "nc",
    "noescape": "ne",
    "nosubreq": "ns",
    "passthrough": "pt",
    "proxy": "p",
    "qsappend": "qsa",
    "qsdiscard": "qsd",
    "qslast": "qsl",
    "redirect": "r",
    "skip": "s",
    "type": "t",
}
_STATUSES = {"permanent": 301, "temp": 302, "seeother": 303}
# Each of these is one boolean field.
_SIMPLE = {
    "c": "chain",
    "end": "end",
    "f": "forbidden",
    "g": "gone",
    "l": "last",
    "nc": "nocase",
    "ne": "noescape",
    "p": "proxy",
    "pt": "passthrough",
    "qsa": "qsappend",
    "qsd": "qsdiscard",
    "qsl": "qslast",
    "unsafeallow3f": "allow_3f",
}
# Accepted and without effect: there are no sub-requests, handlers or file paths here.
_IGNORED = frozenset({"ns", "dpi", "unc", "unsafeprefixstat", "h"})
_NAMES = sorted(name.upper() for name in (*_SIMPLE, "r", "e", "co", "n", "s", "t", "b", "bctls", "bnp", "bne"))


def cookie_header(parts: Sequence[str], expires: Callable[[int], str]) -> tuple[str, str] | None:
    """A cookie's name and its Set-Cookie value. None where the parts would not stay one cookie.

    ``parts``: name, value, domain, minutes, path, secure, httponly, samesite, the last five optional. ``expires`` gives
    the HTTP date so many minutes from now.
    """
    name, value, domain, minutes, path, secure, httponly, samesite = (*parts, *("",) * 8)[:8]
    if re.search(r"[\x00-\x20;,=\x7f]", name + domain) or re.search(r"[\x00-\x1f;\x7f]", value + path + samesite):
        return None
    text = f"{name}={value}; path={path or '/'}"
    if domain:
        text += f"; domain={domain}"
    if re.fullmatch("-?[0-9]{1,9}", minutes) and int(minutes):
        text += f"; expires={expires(int(minutes))}"
    if secure.lower() in ("secure", "true", "1"):
        text += "; secure"
    if httponly.lower() in ("httponly", "true", "1"):
        text += "; HttpOnly"
    if samesite and samesite.lower() not in ("0", "false"):
        text += f"; SameSite={samesite}"
    return name, text


@dataclass(frozen=True, slots=True)
class RewriteFlags:
    """What the flags of one rule say. ``redirect`` is the status or None, ``next`` the rounds allowed or None."""

    chain: bool = False
    end: bool = False
    forbidden: bool = False
    gone: bool = False
    last: bool = False
    nocase: bool = False
    noescape: bool = False
    proxy: bool = False
    passthrough: bool = False
    qsappend: bool = False
    qsdiscard: bool = False
    qslast: bool = False
    allow_3f: bool = False
    redirect: int | None = None
    next: int | None = None
    skip: int = 0
    escape: Escape | None = None
    content_type: Template | None = None
    env: tuple[tuple[str, Template | None], ...] = ()
    #: The parts of each [CO=name:value:domain:minutes:path:secure:httponly:samesite].
    cookies: tuple[tuple[Template, ...], ...] = ()

    @property
    def status(self) -> int | None:
        """The status that ends it, where the flags name one that is no redirect."""
        if self.forbidden:
            return 403
        if self.gone:
            return 410
        return self.redirect if self.redirect is not None and not 300 <= self.redirect < 400 else None

    @classmethod
    def parse(cls, text: str, *, name: str = "flags") -> RewriteFlags:
        """The flags in ``text``: ``"NC,QSA"``, ``"[proxy]"``, ``"R=301,L"``; names in any case, short or long."""
        if not isinstance(text, str):
            raise ConfigError(f"{name} must be text such as 'NC,QSA', got {text!r}")
        values: dict[str, Any] = {}
        env: list[tuple[str, Template | None]] = []
        cookies: list[tuple[Template, ...]] = []
        escape: dict[str, Any] = {}
        for flag, value, written in _split(text):
            if flag in _SIMPLE:
                if value is not None:
                    raise ConfigError(f"{name} must have no value for this one, got {written!r}")
                values[_SIMPLE[flag]] = True
            elif flag in ("b", "bctls", "bnp", "bne"):
                escape |= _escaping(flag, value)
            elif flag == "e":
                env.append(_variable(value, name, written))
            elif flag == "co":
                cookies.append(_cookie(value, name, written))
            elif flag == "r":
                values["redirect"] = _status(value, name, written)
            elif flag == "n":
                values["next"] = _number(value, name, written, default=ROUNDS_MOST)
            elif flag == "s":
                values["skip"] = _number(value, name, written)
            elif flag == "t":
                values["content_type"] = Template.parse(value or "", name=name)
            elif flag not in _IGNORED:
                raise ConfigError(f"{name} must be some of {', '.join(_NAMES)}, got {written!r}")
        return cls(**values, env=tuple(env), cookies=tuple(cookies), escape=Escape(**escape) if escape else None)


def _split(text: str) -> Iterator[tuple[str, str | None, str]]:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    for part in text.split(","):
        if not part.strip():
            continue
        written, sign, value = part.strip().partition("=")
        flag = written.strip().lower()
        yield _LONG.get(flag, flag), value if sign else None, part.strip()


def _escaping(flag: str, value: str | None) -> dict[str, Any]:
    match flag:
        case "b":
            return {"only": value} if value else {"everything": True}
        case "bctls":
            return {"controls": True}
        case "bnp":
            return {"plus": False}
        case _:
            return {"never": value or ""}


def _variable(value: str | None, name: str, written: str) -> tuple[str, Template | None]:
    variable, _, text = (value or "").partition(":")
    if not variable.lstrip("!"):
        raise ConfigError(f"{name} must name the variable, as in E=NAME:value, got {written!r}")
    if variable.startswith("!"):
        return variable[1:], None
    return variable, Template.parse(text, name=name)


def _cookie(value: str | None, name: str, written: str) -> tuple[Template, ...]:
    text, separator = value or "", ":"
    if text.startswith(";"):
        text, separator = text[1:], ";"
    parts = text.split(separator)
    if len(parts) < 3:
        raise ConfigError(f"{name} must name the cookie, its value and its domain, got {written!r}")
    return tuple(Template.parse(part, name=name) for part in parts)


def _status(value: str | None, name: str, written: str) -> int:
    if not value:
        return 302
    if value.lower() in _STATUSES:
        return _STATUSES[value.lower()]
    if not re.fullmatch("[1-5][0-9][0-9]", value):
        raise ConfigError(f"{name} must name a status from 200 to 599, got {written!r}")
    return int(value)


def _number(value: str | None, name: str, written: str, default: int | None = None) -> int:
    if value is None and default is not None:
        return default
    if not value or not re.fullmatch("[0-9]{1,6}", value):
        raise ConfigError(f"{name} must have a number for this one, got {written!r}")
    return int(value)
