"""Sticky sessions: reading which member a client belongs to, and telling the client."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Literal

from proxymw.errors import ConfigError

_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,63}")
_COOKIE_PATH = re.compile(r"/[!-:<-~]*")
#: Longer values than any route or token of ours are not looked at.
_LONGEST = 512


def cookie_value(header: str, name: str) -> str | None:
    """The value of the first cookie called ``name`` in a Cookie field, or None.

    Names are exact and case sensitive; a cookie begins at the start or after ``;``, ``,`` or a blank (servers join
    several Cookie fields with a comma), and its value ends at ``;`` or ``,``. Blanks around ``=`` are allowed.
    """
    at = header.find(name)
    size = len(name)
    while at >= 0:
        rest = header[at + size : at + size + _LONGEST].lstrip(" ")
        if rest.startswith("=") and (at == 0 or header[at - 1] in ";, \t"):
            return re.split("[;,]", rest[1:], maxsplit=1)[0].strip(" ")
        at = header.find(name, at + 1)
    return None


def parameter_value(path: str, query: str, name: str, *, semicolon: bool = False) -> str | None:
    """The value of the path parameter ``;name=`` or else the query parameter ``name=``, or None.

    A value ends at ``?`` or ``&``, with ``semicolon`` (scolonpathdelim) also at ``;``. Not percent-decoded. Names
    have a
    boundary on their left, which Apache forgets: ``XJSESSIONID`` is not ``JSESSIONID``.
    """
    ends = "[?&;]" if semicolon else "[?&]"
    mark = name + "="
    for text, befores in ((path, ";"), (query, "&;" if semicolon else "&")):
        at = text.find(mark)
        while at >= 0:
            if (at > 0 and text[at - 1] in befores) or (at == 0 and text is query):
                return re.split(ends, text[at + len(mark) : at + len(mark) + _LONGEST], maxsplit=1)[0]
            at = text.find(mark, at + 1)
    return None


@dataclass(frozen=True, slots=True)
class StickyRoute:
    """Apache's ``stickysession``: the application's own session id carries the route of its member.

    ``names``: ``cookie`` or ``cookie|parameter``; the parameter is looked for in the URL first and beats the cookie.
    The
    route is what follows the first ``separator`` in the value (``stickysessionsep``); with an empty one (Off) the whole
    value is the route. ``semicolon`` is ``scolonpathdelim``.
    """

    names: str
    separator: str = "."
    semicolon: bool = False
    cookie: str = field(init=False, repr=False, compare=False)
    parameter: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cookie, _, parameter = self.names.partition("|") if isinstance(self.names, str) else ("", "", "")
        for name in (cookie, parameter or cookie):
            if not _COOKIE_NAME.fullmatch(name):
                raise ConfigError(f"sticky must be the name of a cookie, or cookie|parameter, got {self.names!r}")
        if not isinstance(self.separator, str) or len(self.separator) > 1:
            raise ConfigError(f"sticky separator must be one character, or empty, got {self.separator!r}")
        object.__setattr__(self, "cookie", cookie)
        object.__setattr__(self, "parameter", parameter or cookie)

    def __str__(self) -> str:
        return self.names

    def find(self, path: str, query: str, cookies: str) -> str:
        """The route that a request asks for, or an empty text."""
        value = parameter_value(path, query, self.parameter, semicolon=self.semicolon)
        if value is None and cookies:
            value = cookie_value(cookies, self.cookie)
        if value is None:
            return ""
        if not self.separator:
            return value
        return value.partition(self.separator)[2]


@dataclass(frozen=True, slots=True)
class StickyCookie:
    """A cookie of our own: an opaque keyed hash of the member, so that nobody can name a member or learn of one.

    HttpOnly always; ``secure`` None means: under https. ``key`` defaults to the secret in the pool's shared state, so
    that
    it is the same in all workers; give one (16 bytes or more) to keep sessions over restarts and hosts. A value
    that is unknown counts as none.
    """

    name: str = "proxymw_route"
    path: str = "/"
    max_age: int | None = None
    samesite: Literal["Lax", "Strict", "None"] = "Lax"
    secure: bool | None = None
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _COOKIE_NAME.fullmatch(self.name):
            raise ConfigError(f"sticky cookie name must be a cookie name, got {self.name!r}")
        if not isinstance(self.path, str) or not _COOKIE_PATH.fullmatch(self.path):
            raise ConfigError(f"sticky cookie path must begin with a slash, got {self.path!r}")
        if self.samesite not in ("Lax", "Strict", "None"):
            raise ConfigError(f"sticky cookie samesite must be Lax, Strict or None, got {self.samesite!r}")
        if self.max_age is not None and (not isinstance(self.max_age, int) or self.max_age < 1):
            raise ConfigError(f"sticky cookie max_age must be a number of seconds, got {self.max_age!r}")
        if self.key is not None and (not isinstance(self.key, bytes) or len(self.key) < 16):
            raise ConfigError("sticky cookie key must be at least 16 bytes, got fewer or another type")
        if self.samesite == "None" and self.secure is False:
            raise ConfigError("sticky cookie with samesite None must be secure, got secure=False")

    def __str__(self) -> str:
        return self.name

    def token(self, member: str, secret: bytes) -> str:
        """The value that stands for a member: 96 bits of HMAC-SHA256."""
        digest = hmac.digest(self.key or secret, b"proxymw sticky\0" + member.encode("utf-8", "replace"), "sha256")
        return urlsafe_b64encode(digest[:12]).decode()

    def find(self, cookies: str) -> str:
        """The token that a request carries, or an empty text."""
        return cookie_value(cookies, self.name) or "" if cookies else ""

    def header(self, token: str, *, https: bool) -> str:
        """The Set-Cookie value that gives ``token`` to the client."""
        parts = [f"{self.name}={token}", f"Path={self.path}", "HttpOnly", f"SameSite={self.samesite}"]
        if self.max_age is not None:
            parts.append(f"Max-Age={self.max_age}")
        if self.secure or (self.secure is None and (https or self.samesite == "None")):
            parts.append("Secure")
        return "; ".join(parts)


def as_sticky(value: object) -> StickyRoute | StickyCookie | None:
    """What ``sticky=`` means: a name as in ``stickysession``, True for a cookie of our own, or one of the two
    classes."""
    if value is None or value is False or value == "":
        return None
    if value is True:
        return StickyCookie()
    if isinstance(value, str):
        return StickyRoute(value)
    if isinstance(value, (StickyRoute, StickyCookie)):
        return value
    raise ConfigError(
        f"sticky must be a cookie name, cookie|parameter, True, StickyRoute or StickyCookie, got {value!r}"
    )
