"""Redirects: send clients elsewhere (Redirect, RedirectMatch)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from proxymw.errors import ConfigError, RequestRefused
from proxymw.exchange.behind import behind
from proxymw.exchange.inbound import answer, inbound, public_url, refuse
from proxymw.rules.hosts import split_authority
from proxymw.rules.options import listed
from proxymw.rules.policy import Policy, as_policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.rules.paths import RoutePath

_WORDS = {"permanent": 301, "temp": 302, "seeother": 303, "gone": 410}
_SITE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^/?#$]*)")
_REFERENCE = re.compile(r"\\([$\\])|\$([0-9])")
_UNFIT = re.compile(r"[\x00-\x20\x7f<>\"]|[^\x00-\xff]")
# What a Location may hold as it is; "%" of the target's own escapes, and the delimiters.
_SAFE = "%/:?#[]@!$&'()*+,;=-._~"


@dataclass(frozen=True, slots=True)
class RedirectRule:
    """One redirection: ``RedirectRule("/old", "https://example.org/new", 301)``.

    ``path`` is a prefix that ends at a segment (``/old`` holds ``/old`` and ``/old/x``, not ``/older``), the rest of
    the path is appended to ``target``; with ``match=True`` it is a regular expression searched in the decoded path, and
    ``target`` may hold ``$0`` to ``$9``. The query is kept unless ``target`` has one.

    ``target`` is a URL, or a path on the same host. ``status`` is a number of 300 to 399 with a target, or of 400 to
    599 without one, or ``permanent``, ``temp``, ``seeother``, ``gone``. A capture never is part of the host.
    """

    path: str
    target: str = ""
    status: int | str = 302
    match: bool = False
    code: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        code = _WORDS.get(self.status.lower(), 0) if isinstance(self.status, str) else self.status
        if isinstance(code, bool) or not isinstance(code, int) or not 300 <= code <= 599:
            raise ConfigError(f"status must be 300 to 599 or one of {', '.join(_WORDS)}, got {self.status!r}")
        object.__setattr__(self, "code", code)
        if not self.match and not self.path.startswith("/"):
            raise ConfigError(f"path must begin with a slash, got {self.path!r}")
        if (code < 400) != bool(self.target):
            wanted = "a URL or path" if code < 400 else f"left out with status {code}"
            raise ConfigError(f"target must be {wanted}, got {self.target!r}")
        if self.target:
            _check_target(self.target)
        if self.match:
            try:
                re.compile(self.path)
            except re.error as error:
                raise ConfigError(f"path must be a regular expression ({error}), got {self.path!r}") from None


def _check_target(target: str) -> None:
    site = _SITE.match(target)
    if _UNFIT.search(target):
        raise ConfigError(f"target must be a URL without blanks and control characters, got {target!r}")
    if site is None:
        if not target.startswith("/") or target.startswith("//"):
            raise ConfigError(f"target must be a URL or begin with one slash, got {target!r}")
    elif split_authority(site["authority"]) is None:
        raise ConfigError(f"target must have a fixed host, got {target!r}")


class Redirects:
    """Answer what a rule matches with a redirection (or a status such as 410), pass on everything else.

    ``rules`` are ``RedirectRule`` values or ``(path, target)`` and ``(path, target, status)`` tuples; the first that
    matches wins. Under ``Policy.apache()`` a path-only target is sent with scheme and host.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        rules: Iterable[RedirectRule | tuple[str, str] | tuple[str, str, int | str]],
        *,
        policy: Policy | None = None,
    ) -> None:
        self.app = behind(app)
        given = listed("rules", rules, "(path, target) tuples")
        self.rules = tuple(rule if isinstance(rule, RedirectRule) else _rule(rule) for rule in given)
        self._policy = as_policy(policy)
        self._compiled = tuple((rule, re.compile(rule.path, re.DOTALL) if rule.match else None) for rule in self.rules)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            found = self._find(inbound(environ, self._policy), environ.get("QUERY_STRING", ""))
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        if found is None:
            return self.app(environ, start_response)
        rule, url = found
        if not url:
            return answer(environ, start_response, rule.code)
        if url.startswith("/"):
            url = quote(environ.get("SCRIPT_NAME", ""), safe="/", encoding="latin-1") + url
            if self._policy.location == "absolute":
                url = public_url(environ, self._policy) + url
        return answer(environ, start_response, rule.code, headers=[("Location", url)])

    def match(self, path: RoutePath, query: str = "") -> tuple[RedirectRule, str] | None:
        """The first rule that matches and the URL it gives ("" for a plain status), or None.

        Raises ``RequestRefused`` (403) where a capture would run into the host of the target.
        """
        return self._find(path, query)

    def _find(self, path: RoutePath, query: str) -> tuple[RedirectRule, str] | None:
        for rule, pattern in self._compiled:
            if pattern is not None:
                found = pattern.search(path.path)
                if found is not None:
                    return rule, _with_query(_expanded(rule.target, found), query)
            elif _is_below(path.path, rule.path):
                rest = path.spell(len(rule.path))
                return rule, rule.target and _with_query(_joined(rule.target, rest), query)
        return None

    def __repr__(self) -> str:
        return f"<Redirects {len(self.rules)} rules -> {self.app!r}>"


def _rule(rule: tuple[str, str] | tuple[str, str, int | str]) -> RedirectRule:
    if not isinstance(rule, tuple) or not 2 <= len(rule) <= 3:
        raise ConfigError(f"rules must hold RedirectRule values or (path, target, status) tuples, got {rule!r}")
    return RedirectRule(*rule)


def _is_below(path: str, prefix: str) -> bool:
    if not path.startswith(prefix):
        return False
    return len(path) == len(prefix) or prefix.endswith("/") or path[len(prefix)] == "/"


def _joined(target: str, rest: str) -> str:
    """``target`` and ``rest``, which as in Apache are put together as they are, but never run into the host."""
    return _guarded(target, target + rest)


def _expanded(target: str, found: re.Match[str]) -> str:
    """``target`` with its captures, each escaped so that it is part of the path (or query) it was written in."""

    def reference(ref: re.Match[str]) -> str:
        if ref[1]:
            return ref[1]
        group = int(ref[2])
        text = (found[group] or "") if group <= found.re.groups else ""
        return quote(text, safe="/:@!$&'()*+,;=-._~", encoding="latin-1")

    return _guarded(target, _REFERENCE.sub(reference, target)) if target else ""


def _guarded(target: str, url: str) -> str:
    """``url``, whose host must be the one that was configured: ``http://host$1`` may make another (403)."""
    site = _SITE.match(target)
    if site is None:
        return "/" + url.lstrip("/\\")
    if url[site.end() : site.end() + 1] not in ("", "/", "?", "#"):
        raise RequestRefused(403, "redirect_host")
    return quote(url, safe=_SAFE, encoding="latin-1")


def _with_query(url: str, query: str) -> str:
    if not url or not query or "?" in url:
        return url
    head, mark, fragment = url.partition("#")
    return f"{head}?{quote(query, safe=_SAFE, encoding='latin-1')}{mark}{fragment}"
