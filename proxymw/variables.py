"""Variables: environment variables for a request, set by what the request is (SetEnv, SetEnvIf, BrowserMatch)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxymw.errors import ConfigError
from proxymw.exchange.behind import behind
from proxymw.exchange.inbound import raw_target
from proxymw.rules.patterns import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Keys that are not ours to set: what the server and PEP 3333 put there, and the client's header fields.
_RESERVED = re.compile(
    r"HTTP_.*|[a-z]+\..*|CONTENT_(?:TYPE|LENGTH)|PATH_INFO|SCRIPT_NAME|QUERY_STRING|REQUEST_(?:METHOD|URI)|RAW_URI"
    r"|SERVER_(?:NAME|PORT|PROTOCOL|SOFTWARE)|REMOTE_(?:ADDR|PORT|USER|HOST)|AUTH_TYPE"
)
_NAME = re.compile(r"[^\s=!]+")
_SPECIAL: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "remote_addr": lambda environ: environ.get("REMOTE_ADDR", ""),
    "remote_host": lambda environ: environ.get("REMOTE_ADDR", ""),
    "remote_user": lambda environ: environ.get("REMOTE_USER", ""),
    "server_addr": lambda environ: environ.get("SERVER_ADDR") or environ.get("SERVER_NAME", ""),
    "request_method": lambda environ: environ.get("REQUEST_METHOD", ""),
    "request_protocol": lambda environ: environ.get("SERVER_PROTOCOL", ""),
    "request_uri": lambda environ: _uri(environ),
}


def _uri(environ: Mapping[str, Any]) -> str:
    """The requested path as Apache has it at that moment: not decoded, without the query."""
    raw = raw_target(dict(environ)) or ""
    if raw.startswith("/"):
        return raw.partition("?")[0]
    return str(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


@dataclass(frozen=True, slots=True)
class SetEnvIf:
    """Set ``variables`` when ``pattern`` is found in ``attribute``; a value of None removes the variable.

    ``attribute`` is a header's name, one of Remote_Addr, Server_Addr, Request_Method, Request_Protocol, Request_URI,
    or a variable that an earlier rule set. An empty one stands for every request (SetEnv). ``$1`` to ``$9`` in a value
    are the groups of the match.
    """

    attribute: str
    pattern: str
    variables: Mapping[str, str | None]
    nocase: bool = False
    _search: Callable[[str], re.Match[str] | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.variables:
            if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
                raise ConfigError(f"variable must be a name that the server does not use itself, got {name!r}")
        pattern = compile_pattern(self.pattern, nocase=self.nocase, name="pattern")
        object.__setattr__(self, "_search", pattern.search)

    def found(self, environ: Mapping[str, Any]) -> re.Match[str] | None:
        """The match of the pattern in the attribute's value, or None."""
        return self._search(self.value(environ)) if self.attribute else re.match("", "")

    def value(self, environ: Mapping[str, Any]) -> str:
        special = _SPECIAL.get(self.attribute.lower())
        if special is not None:
            return special(environ)
        key = self.attribute.upper().replace("-", "_")
        header = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key)
        if header is None and not _RESERVED.fullmatch(self.attribute):
            header = environ.get(self.attribute)
        return header if isinstance(header, str) else ""


class Variables:
    """Apply ``rules`` in order, then call ``app``. Variables are plain strings in the environ, under their own names.

    AccessLog (``%{NAME}e``, conditions), Headers, RewriteProxy (``%{ENV:NAME}``) and callables of IPAllowlist see them.
    """

    def __init__(self, app: WSGIApplication | None, rules: Iterable[SetEnvIf]) -> None:
        self.app = behind(app)
        self.rules = tuple(rules)
        for rule in self.rules:
            if not isinstance(rule, SetEnvIf):
                raise ConfigError(f"rules must be SetEnvIf values, got {rule!r}")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.apply(environ)
        return self.app(environ, start_response)

    def apply(self, environ: dict[str, Any]) -> None:
        """Set and remove the variables of ``environ``."""
        for rule in self.rules:
            match = rule.found(environ)
            if match is None:
                continue
            for name, value in rule.variables.items():
                if value is None:
                    environ.pop(name, None)
                else:
                    environ[name] = _filled(value, match) if rule.attribute else value

    def __repr__(self) -> str:
        return f"<Variables {len(self.rules)} rules -> {self.app!r}>"


def _filled(value: str, match: re.Match[str]) -> str:
    if "$" not in value:
        return value
    return re.sub(
        r"\$(\d)", lambda found: (match[int(found[1])] or "") if int(found[1]) <= match.re.groups else "", value
    )
