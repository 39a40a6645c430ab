"""One RewriteRule: what it matches, what it makes of a request, and where it may send it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError
from .conditions import RewriteCond, check_conditions
from .expansion import Template
from .options import listed
from .origins import Origin
from .patterns import compile_pattern, group_starts_with_slash
from .rewriteflags import RewriteFlags

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The scheme of an absolute URL, a socket's path before it allowed.
SCHEME: Final = re.compile(r"(?:unix:[^|$%]*\|)?([A-Za-z][A-Za-z0-9+.\-]*)://")
_AUTHORITY: Final = re.compile(r"[^/?$%\\]*")
_REFERENCE: Final = re.compile(r"\$([0-9])")
_PROXIED: Final = ("http", "https", "ws", "wss", "balancer")
_PLAIN_RULE: Final = re.compile(r"\^(/(?:(?:[A-Za-z0-9_~/-]|\\[.+-])+/)?)\(\.\*\)\$?")


@dataclass(frozen=True, slots=True)
class RewriteRule:
    """One rule: ``pattern`` is searched in the path, ``target`` says what becomes of it.

    ``target`` is a URL (the request is proxied there; Apache needs the flag P for that), a path (the request goes on
    with it), ``"-"`` (nothing changes), or a ``BalancerPool`` or ``balancer://name/path``. It may hold ``$0`` to
    ``$9``, ``%0`` to ``%9``, ``%{NAME}`` and ``${map:key|default}``, but never in a proxied URL's host. A pool as
    target gets ``/$1``, or the whole path where the pattern has no group. ``!`` before the pattern inverts it.
    ``flags`` as in Apache: ``"NC,QSA"``, ``"[R=301,L]"``; ``conditions`` must all hold.
    """

    pattern: str
    target: Any
    flags: str = ""
    conditions: tuple[RewriteCond, ...] | Sequence[RewriteCond] = ()
    #: Allow a pattern that could take exponential time.
    backtracking: bool = False
    #: What the rule does by its words: "proxy", "redirect", "local" or "none" (``"-"``).
    kind: str = field(init=False, compare=False, repr=False)
    options: RewriteFlags = field(init=False, compare=False, repr=False)
    origin: Origin | None = field(init=False, compare=False, repr=False)
    pool: Any = field(init=False, compare=False, repr=False)
    negated: bool = field(init=False, compare=False, repr=False)
    compiled: re.Pattern[str] = field(init=False, compare=False, repr=False)
    template: Template = field(init=False, compare=False, repr=False)
    #: A final "?" in the target: no query is taken from anywhere else.
    drops_query: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise ConfigError(f"pattern must be a regular expression, got {self.pattern!r}")
        options = RewriteFlags.parse(self.flags, name=f"flags of {self.pattern!r}")
        pattern = self.pattern.removeprefix("!")
        self._set("options", options)
        self._set("negated", pattern != self.pattern)
        self._set("compiled", compile_pattern(pattern, nocase=options.nocase, backtracking=self.backtracking))
        conditions = tuple(listed("conditions", self.conditions, "RewriteCond"))
        if not all(isinstance(condition, RewriteCond) for condition in conditions):
            raise ConfigError(f"conditions must be a list of RewriteCond, got {self.conditions!r}")
        self._set("conditions", conditions)
        check_conditions(conditions, f"conditions of {self.pattern!r}")
        self._set_target()

    def match(self, path: str) -> re.Match[str] | None:
        """The match of the pattern in ``path``, not asking the conditions; of no use for an inverted pattern."""
        return self.compiled.search(path)

    def public_pair(self) -> tuple[str, str] | None:
        """For ``^/prefix/(.*)$ http://host/base/$1``: the public prefix and the URL that it stands for; else None."""
        found = _PLAIN_RULE.fullmatch(self.pattern)
        if self.origin is None or self.origin.socket or found is None or self.negated or self.options.nocase:
            return None
        *head, last = self.template.parts or ("",)
        base = "".join(part for part in head if isinstance(part, str))
        if str(last) != str(Template.parse("$1").parts[0]) or len(head) > 1 or not base.endswith("/"):
            return None
        prefix = re.sub(r"\\(.)", r"\1", found[1])
        return prefix, f"{self.origin.scheme}://{self.origin.authority}{base}"

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _set_target(self) -> None:
        """Tell apart what the target is, and take its authority out of reach of anything of a request."""
        text, kind, origin, pool = self.target, "local", None, None
        options = self.options
        if hasattr(text, "lease"):
            text, kind, pool = ("/$1" if self.compiled.groups else ""), "proxy", self.target
        elif not isinstance(text, str):
            raise ConfigError(f"target must be a URL, a path, '-' or a BalancerPool, got {text!r}")
        elif text == "-" or options.status is not None:
            text, kind = "", "none"
            if options.proxy and options.status is None:
                raise ConfigError(f"target must be a URL where the flags say proxy, got {self.target!r}")
        elif options.redirect is not None:
            kind = "redirect"
        elif scheme := SCHEME.match(text):
            kind, (origin, pool, text) = "proxy", self._authority(text, scheme)
        elif options.proxy:
            raise ConfigError(f"target must be a URL with a literal host where the flags say proxy, got {text!r}")
        drops = isinstance(text, str) and text.endswith("?") and not text.endswith("\\?") and not options.qsappend
        self._set("drops_query", drops)
        self._set("kind", kind)
        self._set("origin", origin)
        self._set("pool", pool)
        self._set("template", Template.parse(text))

    def _authority(self, text: str, scheme: re.Match[str]) -> tuple[Origin | None, Any, str]:
        """The origin or the pool's name that a URL starts with, and the rest of it."""
        name = scheme[1].lower()
        if name not in _PROXIED:
            raise ConfigError(f"target must be an http, https or balancer URL to be proxied, got {text!r}")
        end = _AUTHORITY.match(text, scheme.end()).end()  # type: ignore[union-attr]
        rest = text[end:]
        if rest[:1] in ("$", "%", "\\"):
            reference = _REFERENCE.match(rest)
            if reference is None or not group_starts_with_slash(self.pattern, int(reference[1])) or end == scheme.end():
                fix = f"; add a slash: {text[:end] + '/' + rest!r}" if end > scheme.end() else ""
                raise ConfigError(
                    f"target must have a literal host and a slash before anything of the request, got {text!r}{fix}"
                )
        if name == "balancer":
            pool = text[scheme.end() : end].lower()
            if not pool:
                raise ConfigError(f"target must name a pool, as in balancer://name/path, got {text!r}")
            return None, pool, rest
        url = re.sub(r"^(unix:.*\|)?ws(s?)://", r"\1http\2://", text[:end], flags=re.IGNORECASE)
        return Origin.parse(url), None, rest

    def __str__(self) -> str:
        flags = f" [{self.flags.strip('[]')}]" if self.flags else ""
        return f"{self.pattern} {self.target}{flags}"
