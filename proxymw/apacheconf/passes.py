"""ProxyPass, ProxyPassMatch and ProxyPassReverse lines as ProxyRule."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxymw.apacheconf import parameters
from proxymw.apacheconf.directives.proxy import balancer_name
from proxymw.apacheconf.lexer import ConfFileError
from proxymw.errors import ConfigError
from proxymw.exchange.inbound import answer
from proxymw.prefix import ProxyRule
from proxymw.rules.origins import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from proxymw.apacheconf.site import Pair, PassLine
    from proxymw.balancer import BalancerPool

_AUTHORITY = re.compile(r"((?:unix:[^|]*\|)?[A-Za-z][\w+.-]*://)([^/]*)(.*)", re.S)
#: What Origin takes as a path; a target with anything else in it is written as a pattern instead.
_PLAIN_PATH = re.compile(r"(?:/(?:[!$&'()*+,;=:@A-Za-z0-9._~/-]|%[0-9A-Fa-f]{2})*)?")


class BadTarget:
    """What httpd answers where the text after a prefix would have become part of the host, or there is no such pool."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        return answer(environ, start_response, 500)

    def __repr__(self) -> str:
        return f"<BadTarget {self.reason}>"


@dataclass(frozen=True, slots=True)
class Back:
    """What ProxyPassReverse and its kin say in one place."""

    reverse: tuple[tuple[str, str], ...] = ()
    cookie_domains: tuple[tuple[str, str], ...] = ()
    cookie_paths: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Context:
    """What the lines of one server refer to."""

    pools: Mapping[str, BalancerPool] = field(default_factory=dict)
    workers: Mapping[str, list[tuple[str, str, Any]]] = field(default_factory=dict)
    back: Back = field(default_factory=Back)
    #: Names of balancers with a member that has upgrade=.
    tunnels: frozenset[str] = frozenset()


def reverse_pairs(lines: list[Pair], pools: Mapping[str, BalancerPool]) -> tuple[tuple[str, str], ...]:
    """ProxyPassReverse lines as pairs; one for ``balancer://`` stands for each of its members."""
    pairs: list[tuple[str, str]] = []
    for line in lines:
        name = balancer_name(line.second)
        if name is None:
            pairs.append((line.first, line.second))
            continue
        rest = line.second[len("balancer://") + len(name) :]
        pool = pools.get(name)
        for member in pool.members if pool is not None else ():
            if member.origin is not None:
                base = member.origin.base.rstrip("/")
                pairs.append((line.first, member.origin.url + base + rest))
    return tuple(pairs)


def opens_tunnels(parameters: Iterable[tuple[str, str]]) -> bool:
    """Whether ``upgrade=`` is said, and is not NONE."""
    return dict(parameters).get("upgrade", "NONE").upper() != "NONE"


def rules_of(line: PassLine, path: str, context: Context) -> list[ProxyRule]:
    """The rules that stand for one line; ``path`` is where it holds (in a Location, that one's)."""
    try:
        return _rules(line, path, context)
    except ConfigError as error:
        if isinstance(error, ConfFileError):
            raise
        raise ConfFileError(line.place, "ProxyPassMatch" if line.regex else "ProxyPass", str(error)) from None


def _rules(line: PassLine, path: str, context: Context) -> list[ProxyRule]:
    if line.target == "!":
        return [ProxyRule(path, "!", regex=line.regex)]
    if not line.regex and not path.startswith("/"):
        raise ConfigError(f"the path must start with /, got {path!r}")
    name = balancer_name(line.target)
    options: dict[str, Any] = {
        "map_back": False,
        "nocanon": line.nocanon,
        "encoded": bool(line.mapping),
        # httpd opens a tunnel only where upgrade= says so.
        "websocket": opens_tunnels(line.parameters) or name in context.tunnels or line.target.startswith("ws"),
        "reverse": context.back.reverse,
        "cookie_domains": context.back.cookie_domains,
        "cookie_paths": context.back.cookie_paths,
    }
    if name is not None:
        return _pool_rules(line, path, name, context, options)
    options |= _clocks(line, context)
    return _origin_rules(line, path, options)


def _clocks(line: PassLine, context: Context) -> dict[str, float]:
    """Timeouts of the line's own worker, or of the ``<Proxy>`` section that names it."""
    sections = [items for url, items in context.workers.items() if line.target.startswith(url)]
    given = {key: text for items in sections for key, text, _ in items}
    given |= dict(line.parameters)
    clocks: dict[str, float] = {}
    if "timeout" in given:
        value = float(parameters.parse(parameters.WORKER, "timeout", given["timeout"]))  # type: ignore[arg-type]
        clocks = {"connect": value, "first_byte": value, "between_bytes": value}
    if "connectiontimeout" in given:
        value = parameters.parse(parameters.WORKER, "connectiontimeout", given["connectiontimeout"])  # type: ignore[assignment]
        clocks["connect"] = float(value)
    return clocks


def _pool_rules(line: PassLine, path: str, name: str, context: Context, options: dict[str, Any]) -> list[ProxyRule]:
    pool = context.pools.get(name)
    if pool is None:
        if line.regex:
            raise ConfigError(f"there is no balancer://{name}")
        return [ProxyRule(path, BadTarget(f"there is no balancer://{name}"))]
    base = line.target[len("balancer://") + len(name) :]
    if line.regex:
        return [ProxyRule(path, pool, regex=True, base=base or "/", **options)]
    if not base and path.endswith("/"):
        return [
            ProxyRule(f"^{re.escape(path)}+()$", pool, regex=True, base="/$1", **options),
            ProxyRule(path, BadTarget(f"text after {path} would run into the name of {line.target}")),
        ]
    if base in ("", "/") and base.endswith("/") == path.endswith("/"):
        return [ProxyRule(path, pool, **options)]
    if base.endswith("/") == path.endswith("/"):
        return [ProxyRule(path, pool, base=base, **options)]
    return [ProxyRule(_as_pattern(path), pool, regex=True, base=_literal(base) + "$1", **options)]


def _origin_rules(line: PassLine, path: str, options: dict[str, Any]) -> list[ProxyRule]:
    match = _AUTHORITY.match(line.target)
    assert match is not None  # the directive checked it
    scheme, authority, base = match.groups()
    scheme = scheme.lower() if not scheme.startswith("unix:") else scheme
    scheme = scheme.replace("wss://", "https://").replace("ws://", "http://")
    # httpd takes user information off and forgets it.
    authority = authority.rpartition("@")[2]
    target = scheme + authority + base
    if line.regex:
        return [ProxyRule(path, target, regex=True, **options)]
    if path.endswith("/") and not base:
        return [
            ProxyRule(f"^{re.escape(path)}+()$", target + "/$1", regex=True, **options),
            ProxyRule(path, BadTarget(f"text after {path} would run into the host of {target}")),
        ]
    if _PLAIN_PATH.fullmatch(base):
        return [ProxyRule(path, target, **options)]
    Origin.parse(scheme + authority)
    return [ProxyRule(_as_pattern(path), scheme + authority + _literal(base) + "$1", regex=True, **options)]


def _as_pattern(path: str) -> str:
    """A prefix as a regular expression whose only group is what follows it."""
    segments = "/+".join(re.escape(part) for part in path.rstrip("/").split("/"))
    return f"^{segments}/+(.*)$" if path.endswith("/") else f"^{segments}(?=/|$)(.*)$"


def _literal(text: str) -> str:
    """Text of a target in which nothing is a reference."""
    return re.sub(r"([\\$])", r"\\\1", text)
