"""RewriteRule and RewriteCond: requests sent elsewhere, changed, redirected or refused by pattern."""

from __future__ import annotations

import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigError, ConfigWarning, RequestRefused
from .exchange.behind import behind
from .exchange.events import log_refusal
from .exchange.forwarder import Destination, Forwarder, ForwardOptions, SingleOrigin
from .exchange.inbound import answer, inbound, public_url, raw_target, refuse
from .rules.decisions import UNCHANGED, Decision, Local, NoMatch, Proxy, Redirect, Status, Step
from .rules.options import application, instance, listed, text_pairs
from .rules.origins import Origin
from .rules.paths import quote_path
from .rules.policy import Policy, as_policy
from .rules.reversing import ReverseMap, ReverseTable
from .rules.rewriteflags import cookie_header
from .rules.rewriting import RewriteEngine, RewriteRule

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .exchange.transport import Sender
    from .exchange.tunnel import Tunnels
    from .rules.conditions import FileTest
    from .rules.expansion import Lookup
    from .rules.headers import HeaderList
    from .rules.retrying import RetryPolicy

#: A rule as a tuple: pattern and target.
Shorthand = tuple[str, Any]

# What [E] may not set in the environ: it would change the request under everyone's feet.
_RESERVED: Final = frozenset(
    {"REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH"}
    | {"SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR", "RAW_URI", "REQUEST_URI"}
)
_PORT: Final = re.compile(r":[0-9]*\Z")
_TIMES: Final = {
    "TIME": "%Y%m%d%H%M%S",
    "TIME_YEAR": "%Y",
    "TIME_MON": "%m",
    "TIME_DAY": "%d",
    "TIME_HOUR": "%H",
    "TIME_MIN": "%M",
    "TIME_SEC": "%S",
    "TIME_WDAY": "%w",
}
# Variables that are a key of the environ under the same name.
_PLAIN: Final = frozenset(
    {"HTTP_ACCEPT", "HTTP_COOKIE", "HTTP_FORWARDED", "HTTP_HOST", "HTTP_PROXY_CONNECTION", "HTTP_REFERER"}
    | {"HTTP_USER_AGENT", "AUTH_TYPE", "REMOTE_ADDR", "REMOTE_PORT", "REMOTE_USER", "REQUEST_METHOD"}
    | {"SERVER_ADDR", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SOFTWARE"}
)


class RewriteProxy:
    r"""Ordered rules by regular expression; the first that proxies wins, even if a later one is more precise.

    Each rule is ``(pattern, target)`` or a ``RewriteRule``: an absolute target is proxied, a local one changes the path
    and the request goes on to ``app``. Patterns see the path decoded, below the mount point, with its leading slash.

    ``document_root`` and ``server_name`` are what ``%{DOCUMENT_ROOT}`` and ``%{SERVER_NAME}`` stand for; ``maps`` are
    mappings or functions for ``${name:key}``; ``balancers`` the pools that ``balancer://name/`` names; ``files``
    replaces the test behind ``-f`` and its kin. ``reverse``, ``cookie_domains`` and ``cookie_paths`` are
    ProxyPassReverse and its like; a rule of the form ``^/prefix/(.*)$ http://host/base/$1`` maps Locations back by
    itself. ``local`` answers instead of ``app`` for a path that was changed without the flag PT.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        rules: Sequence[RewriteRule | Shorthand],
        *,
        document_root: str | os.PathLike[str] | None = None,
        server_name: str | None = None,
        maps: Mapping[str, Mapping[str, str] | Lookup] | None = None,
        balancers: Iterable[Any] = (),
        files: FileTest | None = None,
        local: WSGIApplication | None = None,
        reverse: Sequence[tuple[str, str]] = (),
        cookie_domains: Sequence[tuple[str, str]] = (),
        cookie_paths: Sequence[tuple[str, str]] = (),
        policy: Policy | None = None,
        transport: Sender | None = None,
        retry: RetryPolicy | None = None,
        max_body: int | None = None,
        preserve_host: bool = False,
        host: str | None = None,
        connect: float | None = None,
        first_byte: float | None = None,
        between_bytes: float | None = None,
        total: float | None = None,
        websocket: bool | Tunnels = True,
    ) -> None:
        self.app = behind(app)
        self.local: WSGIApplication = self.app if local is None else application(local, "local")
        self.policy = as_policy(policy)
        self.rules = tuple(_rule(number, given) for number, given in enumerate(_listed(rules), 1))
        self.engine = RewriteEngine(self.rules, policy=self.policy, maps=maps)
        self.files = files or file_test
        self.document_root = "" if document_root is None else _document_root(document_root)
        self.server_name = instance("server_name", server_name, str)
        self.forwarder = Forwarder(transport=transport, policy=self.policy, retry=retry, max_body=max_body)
        self.options = ForwardOptions(
            preserve_host=preserve_host,
            host=host,
            reverse=ReverseMap(
                None, "", _reverse_table(reverse, self.rules, self.policy), cookie_domains, cookie_paths
            ),
            connect=connect,
            first_byte=first_byte,
            between_bytes=between_bytes,
            total=total,
            websocket=websocket,
        )
        self._pools = {pool.name.lower(): pool for pool in _pools(balancers)}
        self._destinations = {
            id(rule): self._destination(number, rule)
            for number, rule in enumerate(self.rules, 1)
            if rule.kind == "proxy"
        }
        for doubt in self._doubts():
            warnings.warn(doubt, ConfigWarning, stacklevel=2)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            decision = self.rewrite(environ)
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        if decision is UNCHANGED:
            return self.app(environ, start_response)
        _set_env(environ, decision)
        headers = _headers(decision, proxied=isinstance(decision, Proxy) and self.policy.spelling == "apache")
        if headers or decision.content_type:
            start_response = _adding(start_response, headers, decision)
        match decision:
            case Proxy():
                return self.forwarder(
                    environ, start_response, self._destinations[id(decision.rule)], decision.target, self.options
                )
            case Local():
                self._change(environ, decision)
                return (self.app if decision.passthrough else self.local)(environ, start_response)
            case Redirect():
                location = self._location(environ, decision.location)
                return answer(environ, start_response, decision.status, headers=[("Location", location)])
            case Status():
                if decision.event:
                    log_refusal(environ, RequestRefused(decision.status, decision.event))
                return answer(environ, start_response, decision.status)
            case _:
                return self.app(environ, start_response)

    def rewrite(self, environ: WSGIEnvironment, trace: list[Step] | None = None) -> Decision:
        """What the rules make of a request; ``trace`` collects the turn of each rule. Raises ``RequestRefused``."""
        path = inbound(environ, self.policy)
        if trace is None and not self.engine.concerns(path.path):
            return UNCHANGED
        query = environ.get("QUERY_STRING") or None
        raw = raw_target(environ) or ""
        if query is None and raw.endswith("?"):
            query = ""
        variables = _Variables(environ, self.document_root, self.server_name)
        public = public_url(environ, self.policy)
        return self.engine.decide(path, query, variables, self.files, public=public, trace=trace)

    def _destination(self, number: int, rule: RewriteRule) -> Destination:
        if rule.origin is not None:
            origin = rule.origin
            return SingleOrigin(Origin(origin.scheme, origin.host, origin.port, "", origin.socket))
        if isinstance(rule.pool, str):
            if rule.pool not in self._pools:
                known = ", ".join(sorted(self._pools)) or "none"
                raise ConfigError(f"target of rule {number} must name one of balancers ({known}), got {rule.target!r}")
            return self._pools[rule.pool]  # type: ignore[no-any-return]
        return rule.pool  # type: ignore[no-any-return]

    def _change(self, environ: WSGIEnvironment, decision: Local) -> None:
        """The request goes on with another path; the client's spelling of captures goes with it."""
        path = decision.path
        environ["PATH_INFO"] = path.path
        environ["QUERY_STRING"] = decision.query or ""
        environ["proxymw.route"] = (path.path, environ.get("SCRIPT_NAME", ""), self.policy, path)

    def _location(self, environ: WSGIEnvironment, location: str) -> str:
        if not location.startswith("/"):
            return location
        location = quote_path(environ.get("SCRIPT_NAME", "").rstrip("/")) + location
        if self.policy.location == "absolute":
            return public_url(environ, self.policy) + location
        return location

    def _doubts(self) -> Iterator[str]:
        """What is probably not meant."""
        for number, rule in enumerate(self.rules, 1):
            target, groups = rule.target if isinstance(rule.target, str) else "", rule.compiled.groups
            if found := re.search(r"\\([0-9])", target):
                yield f"target of rule {number} must name a group as ${found[1]}, not {found[0]}, got {target!r}"
            missing = [digit for digit in re.findall(r"(?<!\\)\$([1-9])", target) if int(digit) > groups]
            if missing and not rule.negated:
                many = f"{groups} group{'s' if groups != 1 else ''}"
                yield f"target of rule {number} names ${missing[0]}, and the pattern has {many}, got {target!r}"
            for condition in rule.conditions:
                if re.fullmatch(r"[A-Z][A-Z_]+", condition.test):
                    test = condition.test
                    yield f"a condition of rule {number} compares the word {test}: the variable is %{{{test}}}"

    def __repr__(self) -> str:
        return f"<RewriteProxy: {len(self.rules)} rules>"


class _Variables:
    """The server variables of one request."""

    def __init__(self, environ: WSGIEnvironment, document_root: str, server_name: str | None) -> None:
        self.environ = environ
        self.document_root = document_root
        self.server_name = server_name

    def __call__(self, name: str) -> str:
        kind, colon, rest = name.partition(":")
        if colon:
            return self.prefixed(kind, rest)
        environ = self.environ
        if name in _PLAIN:
            return str(environ.get(name, ""))
        if name in _TIMES:
            return time.strftime(_TIMES[name])
        match name:
            case "REQUEST_URI":
                return str(environ.get("SCRIPT_NAME", "")) + str(environ["proxymw.route"][3].path)
            case "DOCUMENT_ROOT" | "CONTEXT_DOCUMENT_ROOT":
                return self.document_root
            case "SERVER_NAME":
                return _PORT.sub("", self.host())
            case "REMOTE_HOST":
                return str(environ.get("REMOTE_HOST") or environ.get("REMOTE_ADDR", ""))
            case "CONN_REMOTE_ADDR":
                return str(environ.get("proxymw.peer") or environ.get("REMOTE_ADDR", ""))
            case "REQUEST_SCHEME":
                return str(environ.get("wsgi.url_scheme", "http"))
            case "HTTPS":
                return "on" if environ.get("wsgi.url_scheme") == "https" else "off"
            case "IPV6":
                return "on" if ":" in str(environ.get("REMOTE_ADDR", "")) else "off"
            case "IS_SUBREQ":
                return "false"
            case "THE_REQUEST":
                target = raw_target(environ) or quote_path(environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"])
                return f"{environ['REQUEST_METHOD']} {target} {environ.get('SERVER_PROTOCOL', 'HTTP/1.1')}"
            case _:
                return ""

    def prefixed(self, kind: str, name: str) -> str:
        match kind:
            case "HTTP":
                key = name.upper().replace("-", "_")
                key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
                return str(self.environ.get(key) or "")
            case "ENV":
                value = self.environ.get(name)
                return value if isinstance(value, str) and not name.startswith("HTTP_") else os.environ.get(name, "")
            case "SSL":
                return str(self.environ.get(f"SSL_{name}") or self.environ.get(name) or "") if name != "HTTPS" else ""
            case _:
                return ""

    def host(self) -> str:
        """The host and port that the client used, in lower case; else the server's name."""
        given = self.environ.get("HTTP_HOST") or self.server_name or self.environ.get("SERVER_NAME", "")
        return str(given).lower()


def file_test(kind: str, path: str) -> bool:
    """Whether the file system has a ``kind`` (f, d, s, l, x) at ``path`` (bytes as latin-1 characters).

    A path that is not absolute, climbs with ``..``, or holds a NUL or a backslash names nothing. So does one that
    cannot be looked at.
    """
    if not path.startswith("/") or "\0" in path or "\\" in path or ".." in path.split("/"):
        return False
    try:
        name = path.encode("latin-1")
        found = os.lstat(name) if kind == "l" else os.stat(name)
    except (OSError, ValueError):
        return False
    mode = found.st_mode
    match kind:
        case "f" | "F":
            return stat.S_ISREG(mode)
        case "d":
            return stat.S_ISDIR(mode)
        case "s":
            return stat.S_ISREG(mode) and found.st_size > 0
        case "l":
            return stat.S_ISLNK(mode)
        case "x":
            return bool(mode & 0o111)
        case _:
            return False


def _document_root(given: str | os.PathLike[str]) -> str:
    """As it was written, so that a final slash stays; only a relative one is made absolute."""
    if not isinstance(given, str | os.PathLike) or not isinstance(text := os.fspath(given), str):
        raise ConfigError(f"document_root must be a path, got {given!r}")
    return _latin(text if os.path.isabs(text) else os.path.abspath(text))


def _listed(rules: Any) -> list[Any]:
    if isinstance(rules, str | bytes | dict | RewriteRule) or not isinstance(rules, Iterable):
        raise ConfigError(f"rules must be a list of (pattern, target) pairs, got {rules!r}")
    return list(rules)


def _pools(balancers: Any) -> list[Any]:
    given = listed("balancers", balancers, "BalancerPool objects")
    for pool in given:
        if not hasattr(pool, "lease"):
            raise ConfigError(f"balancers must be a list of BalancerPool objects, got {pool!r}")
    return given


def _rule(number: int, given: Any) -> RewriteRule:
    if isinstance(given, RewriteRule):
        return given
    if isinstance(given, tuple | list) and len(given) == 2:
        try:
            return RewriteRule(*given)
        except ConfigError as error:
            raise ConfigError(f"rule {number}: {error}") from None
    raise ConfigError(f"rule {number} must be a pair (pattern, target) or a RewriteRule, got {given!r}")


def _reverse_table(given: Sequence[tuple[str, str]], rules: tuple[RewriteRule, ...], policy: Policy) -> ReverseTable:
    """The written pairs and, in the modern dialect, those that plain rules stand for."""
    found = [] if policy.location == "absolute" else [pair for rule in rules if (pair := rule.public_pair())]
    return ReverseTable((*text_pairs("reverse", given, "(public prefix, real URL) pairs"), *found))


def _set_env(environ: WSGIEnvironment, decision: Decision) -> None:
    for name, value in decision.env:
        if name in _RESERVED or name.startswith(("HTTP_", "wsgi.", "proxymw.")):
            continue
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value


def _headers(decision: Decision, *, proxied: bool) -> HeaderList:
    """What the decision adds to any response."""
    headers: HeaderList = []
    if decision.vary and not proxied:
        headers.append(("Vary", ", ".join(decision.vary)))
    for parts in decision.cookies:
        made = cookie_header(parts, lambda minutes: formatdate(time.time() + 60 * minutes, usegmt=True))
        if made is not None:
            headers.append(("Set-Cookie", made[1]))
    return headers


def _adding(start_response: StartResponse, headers: HeaderList, decision: Decision) -> StartResponse:
    media_type = decision.content_type if isinstance(decision, Local | NoMatch) else ""

    def start(status: str, given: HeaderList, exc_info: Any = None) -> Callable[[bytes], object]:
        changed = [*given, *headers]
        if media_type and media_type.isprintable():
            changed = [pair for pair in changed if pair[0].lower() != "content-type"]
            changed.append(("Content-Type", media_type))
        return start_response(status, changed, exc_info) if exc_info else start_response(status, changed)

    return start


def _latin(path: str) -> str:
    return os.fsencode(path).decode("latin-1")
