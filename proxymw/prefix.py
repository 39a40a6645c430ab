"""ProxyPass: path prefixes in order, each sent to an origin, a pool or another application."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

from .errors import ConfigError, ConfigWarning, RequestRefused
from .exchange.behind import behind
from .exchange.forwarder import Destination, Forwarder, ForwardOptions, SingleOrigin
from .exchange.inbound import inbound, raw_target, refuse
from .rules.matchers import PrefixTable
from .rules.origins import Origin
from .rules.paths import RoutePath, lax_readings, query_suffix, quote_path
from .rules.patterns import SUBJECT_MOST, compile_pattern, group_starts_with_slash
from .rules.policy import Policy, as_policy
from .rules.reversing import ReverseMap, ReverseTable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .exchange.transport import Sender
    from .exchange.tunnel import Tunnels
    from .rules.retrying import RetryPolicy

Target: TypeAlias = Union[str, Destination, "WSGIApplication"]

EXCLUDED = "!"
_ESCAPED = re.compile("%([0-9A-Fa-f]{2})")
_SLASHES = re.compile("//+")
_URL = re.compile(r"(?:unix:[^|]*\|)?[A-Za-z][A-Za-z0-9+.\-]*://[^/$\\]*")
_REFERENCE = re.compile(r"\\(.)|\$([0-9])|([^\\$]+|\$|\\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ProxyRule:
    """One ProxyPass line.

    ``target`` is a URL, a ``BalancerPool`` (anything with ``lease``), a WSGI application, which is mounted, or ``"!"``,
    which leaves the path to the application behind. With ``regex`` the prefix is a pattern, searched in the path, and
    the target may hold ``$0`` to ``$9`` in its path (ProxyPassMatch).
    """

    prefix: str
    target: Target
    regex: bool = False
    #: ProxyPreserveHost, or the Host to send; None as the ``PrefixProxy`` says.
    preserve_host: bool | None = None
    host: str | None = None
    #: Seconds; None as the ``PrefixProxy`` says.
    connect: float | None = None
    first_byte: float | None = None
    between_bytes: float | None = None
    total: float | None = None
    #: What goes before the rest of the path when the target is a pool (``balancer://cluster/base/``).
    base: str = "/"
    #: Map Location, Refresh and cookie paths back to this prefix without being told to.
    map_back: bool = True
    #: ProxyPassReverse, ProxyPassReverseCookieDomain and -CookiePath beyond that, as ``ReverseMap`` has them.
    reverse: tuple[tuple[str, str], ...] = ()
    cookie_domains: tuple[tuple[str, str], ...] = ()
    cookie_paths: tuple[tuple[str, str], ...] = ()
    #: Whether WebSockets pass, or ``Tunnels`` for what else does and how long; True as the ``PrefixProxy`` says.
    websocket: bool | Tunnels = True
    #: Forward the client's spelling even where the policy re-encodes (``nocanon``); dot segments stay resolved.
    nocanon: bool = False
    #: As ``nocanon``, but with escapes of unreserved characters decoded and slash runs merged (``mapping=encoded``).
    encoded: bool = False

    @property
    def excluded(self) -> bool:
        return isinstance(self.target, str) and self.target == EXCLUDED

    def __str__(self) -> str:
        target = self.target if isinstance(self.target, str) else repr(self.target)
        return f"{self.prefix} -> {target}"


class PrefixProxy:
    """Send requests below path prefixes to other servers; the first rule that matches decides, in declared order.

    Each rule is ``(prefix, target)`` or a ``ProxyRule``. With a URL as target, what follows the prefix is put after the
    URL as it stands, nothing inserted or removed (ProxyPass); a pool gets it with one slash before it; an application
    is mounted there. Everything else goes to ``app``. ``preserve_host``, ``host`` and the times (seconds) are defaults
    for the rules. ConfigError for a rule that cannot be meant; ``ConfigWarning`` for one that can never apply.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        rules: Sequence[ProxyRule | tuple[str, Target]],
        *,
        policy: Policy | None = None,
        transport: Sender | None = None,
        preserve_host: bool = False,
        host: str | None = None,
        connect: float | None = None,
        first_byte: float | None = None,
        between_bytes: float | None = None,
        total: float | None = None,
        websocket: bool | Tunnels = True,
        max_body: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.app = behind(app)
        self.policy = as_policy(policy)
        self.rules = tuple(_rule(number, given) for number, given in enumerate(_listed(rules), 1))
        self.forwarder = Forwarder(transport=transport, policy=self.policy, retry=retry, max_body=max_body)
        defaults = ForwardOptions(
            preserve_host=preserve_host,
            host=host,
            connect=connect,
            first_byte=first_byte,
            between_bytes=between_bytes,
            total=total,
            websocket=websocket,
        )
        public = ReverseTable(pair for number, rule in enumerate(self.rules, 1) for pair in _public_pair(number, rule))
        self._routes = [
            _route(number, rule, self.forwarder, defaults, public) for number, rule in enumerate(self.rules, 1)
        ]
        literal = [place for place, rule in enumerate(self.rules) if not rule.regex]
        self._table = PrefixTable((self.rules[place].prefix, place) for place in literal)
        self._patterns = [(place, route.pattern) for place, route in enumerate(self._routes) if route.pattern]
        self._exclusions = PrefixTable(
            (self.rules[place].prefix, place) for place in literal if self.rules[place].excluded
        )
        # The rules never change, and clients ask for the same paths again.
        self._find = lru_cache(maxsize=1024)(self._search)
        for doubt in self._doubts():
            warnings.warn(doubt, ConfigWarning, stacklevel=2)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path = inbound(environ, self.policy)
            found = self._find(path.path)
            if found is not None and not found.route.rule.excluded:
                return found.route.send(environ, start_response, path, found)
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        return self.app(environ, start_response)

    def match(self, path: str) -> tuple[ProxyRule, int] | None:
        """The rule that decides about the canonical ``path``, and how much of it the rule consumes.

        An exclusion is returned like any rule (``rule.excluded``), also where it holds only for the way in which a
        sloppy origin could read the path. None: no rule matches.
        """
        found = self._find(path)
        return None if found is None else (found.route.rule, found.consumed)

    def _search(self, path: str) -> _Found | None:
        place, consumed = self._table.match(path) or (len(self._routes), 0)
        match: re.Match[str] | None = None
        if self._patterns:
            if len(path) > SUBJECT_MOST:
                raise RequestRefused(414, "path_too_long")
            for at, pattern in self._patterns:
                if at > place:
                    break
                if match := pattern.search(path):
                    place, consumed = at, match.end()
                    break
        if place == len(self._routes):
            return None
        if not self.rules[place].excluded and self.policy.spelling == "client":
            kept = self._kept_back(path, place)
            if kept is not None:
                return _Found(self._routes[kept], len(path))
        return _Found(self._routes[place], consumed, match)

    def _kept_back(self, path: str, place: int) -> int | None:
        """The exclusion before ``place`` that a sloppy origin's reading of ``path`` falls under."""
        for reading in lax_readings(path):
            matched = self._exclusions.match(reading)
            if matched and matched[0] < place:
                return matched[0]
            for at, pattern in self._patterns:
                if at < place and self.rules[at].excluded and pattern.search(reading):
                    return at
        return None

    def _doubts(self) -> Iterator[str]:
        """What is probably not meant."""
        for number, (rule, route) in enumerate(zip(self.rules, self._routes, strict=True), 1):
            if isinstance(route, _Forward) and isinstance(rule.target, str) and not rule.regex:
                slash = rule.prefix.endswith("/")
                if slash != route.base.endswith("/") and (slash or route.base):
                    yield (
                        f"rule {number} ({rule}) ends with a slash on one side only, and what follows the prefix is "
                        f"put after the target as it stands"
                    )
        places = [place for place, rule in enumerate(self.rules) if not rule.regex]
        for later, earlier in self._table.shadowed():
            late, early = self.rules[places[later]], self.rules[places[earlier]]
            if not (late.excluded and early.excluded):
                yield (
                    f"rule {places[later] + 1} ({late}) can never apply: rule {places[earlier] + 1} ({early}) takes "
                    f"every path of it; put it before that one"
                )

    def __repr__(self) -> str:
        return f"<PrefixProxy: {len(self.rules)} rules>"


class _Route:
    """A rule, worked out. This one leaves the path alone (``"!"``)."""

    __slots__ = ("pattern", "rule")

    def __init__(self, rule: ProxyRule, pattern: re.Pattern[str] | None) -> None:
        self.rule = rule
        self.pattern = pattern

    def send(
        self, environ: WSGIEnvironment, start_response: StartResponse, path: RoutePath, found: _Found
    ) -> Iterable[bytes]:
        raise NotImplementedError


class _Mount(_Route):
    """The rest of the path belongs to another application."""

    __slots__ = ("mounted",)

    def __init__(self, rule: ProxyRule, mounted: WSGIApplication) -> None:
        super().__init__(rule, None)
        self.mounted = mounted

    def send(
        self, environ: WSGIEnvironment, start_response: StartResponse, path: RoutePath, found: _Found
    ) -> Iterable[bytes]:
        return self.mounted(self.below(environ, path, found), start_response)

    def below(self, environ: WSGIEnvironment, path: RoutePath, found: _Found) -> WSGIEnvironment:
        """A copy of the environ in which the prefix has moved to SCRIPT_NAME."""
        cut = len(path.path[: found.consumed].rstrip("/"))
        below = dict(environ)
        below["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + path.path[:cut]
        below["PATH_INFO"] = path.path[cut:]
        return below


class _Forward(_Route):
    """The rest of the path goes to an origin or a pool, after ``base`` (as it is on the wire)."""

    __slots__ = ("base", "destination", "forwarder", "nocanon", "options", "template")

    def __init__(
        self,
        rule: ProxyRule,
        pattern: re.Pattern[str] | None,
        forwarder: Forwarder,
        destination: Destination,
        options: ForwardOptions,
        base: str,
    ) -> None:
        super().__init__(rule, pattern)
        self.forwarder = forwarder
        self.destination = destination
        self.options = options
        apache = forwarder.policy.spelling == "apache"
        raw = apache and (rule.nocanon or rule.encoded)
        self.nocanon = forwarder.policy.but(spelling="client", encoded_slash="keep") if raw else None
        self.template = [] if pattern is None else _template(base, quoted=apache)
        self.base = quote_path(base) if apache else base

    def send(
        self, environ: WSGIEnvironment, start_response: StartResponse, path: RoutePath, found: _Found
    ) -> Iterable[bytes]:
        target = self.request_target(environ, path, found)
        return self.forwarder(environ, start_response, self.destination, target, self.options)

    def request_target(self, environ: WSGIEnvironment, path: RoutePath, found: _Found) -> str:
        """Path and query as the origin is asked for them. Raises ``RequestRefused`` (403) for an unsafe query."""
        if self.nocanon:
            path = inbound(environ, self.nocanon)
        target = self.target(path, found)
        if self.rule.encoded:
            target = _SLASHES.sub("/", _ESCAPED.sub(_unreserved, target))
        return target + query_suffix(environ.get("QUERY_STRING", ""), raw_target(environ))

    def target(self, path: RoutePath, found: _Found) -> str:
        """The path that is asked of the origin."""
        if found.match is not None:
            return self.expanded(path, found.match)
        if path.path.startswith("/", found.consumed):
            # The slash at the boundary is ours to write: the client may have spelled it %2F.
            return f"{self.base}/{path.spell(found.consumed + 1)}"
        return (self.base + path.spell(found.consumed)) or "/"

    def expanded(self, path: RoutePath, match: re.Match[str]) -> str:
        """ProxyPassMatch: $n are groups; where none is used, the whole path is put after the target."""
        if all(isinstance(part, str) for part in self.template):
            return "".join(map(str, self.template)) + path.spell(0)
        out = []
        for part in self.template:
            if isinstance(part, str):
                out.append(part)
            elif part <= match.re.groups and match.start(part) >= 0:
                out.append(path.spell(*match.span(part)))
        target = "".join(out) or "/"
        if not target.startswith("/"):
            raise RequestRefused(400, "target_without_slash")
        return target


def _unreserved(found: re.Match[str]) -> str:
    """RFC 3986 2.3: an escaped unreserved character is the character."""
    char = chr(int(found[1], 16))
    return char if char.isascii() and (char.isalnum() or char in "-._~") else found[0]


class _Found(NamedTuple):
    """The route that decides about a path, how much of the path it consumes, and the match of a pattern."""

    route: _Route
    consumed: int
    match: re.Match[str] | None = None


def _template(text: str, *, quoted: bool) -> list[str | int]:
    """The literal parts and group numbers of a ProxyPassMatch target."""
    parts: list[str | int] = []
    for found in _REFERENCE.finditer(text):
        escaped, group, literal = found.groups()
        if group:
            parts.append(int(group))
        else:
            parts.append(quote_path(escaped or literal) if quoted else escaped or literal)
    return parts


def _listed(rules: Any) -> list[Any]:
    if isinstance(rules, str | bytes | dict | ProxyRule) or not isinstance(rules, Iterable):
        raise ConfigError(f"rules must be a list of (prefix, target) pairs, got {rules!r}")
    return list(rules)


def _rule(number: int, given: Any) -> ProxyRule:
    if isinstance(given, ProxyRule):
        rule = given
    elif isinstance(given, tuple | list) and len(given) == 2:
        rule = ProxyRule(*given)
    else:
        raise ConfigError(f"rule {number} must be a pair (prefix, target) or a ProxyRule, got {given!r}")
    if not isinstance(rule.prefix, str) or (not rule.regex and not rule.prefix.startswith("/")):
        raise ConfigError(f"prefix of rule {number} must be a path that starts with '/', got {rule.prefix!r}")
    target = rule.target
    if not (isinstance(target, str) or hasattr(target, "lease") or callable(target)):
        raise ConfigError(
            f"target of rule {number} must be a URL, a BalancerPool, a WSGI application or '!', got {target!r}"
        )
    if isinstance(target, str) and target.startswith("balancer:"):
        raise ConfigError(f"target of rule {number} must be the BalancerPool itself, got its name {target!r}")
    return rule


def _public_pair(number: int, rule: ProxyRule) -> list[tuple[str, str]]:
    """The prefix and the URL that it stands for, where Locations are to be mapped back by themselves."""
    if not isinstance(rule.target, str) or rule.excluded or rule.regex or not rule.map_back:
        return []
    origin = Origin.parse(rule.target, name=f"target of rule {number}")
    return [(rule.prefix, f"{origin.scheme}://{origin.authority}{origin.base}")]


def _route(
    number: int, rule: ProxyRule, forwarder: Forwarder, defaults: ForwardOptions, public: ReverseTable
) -> _Route:
    pattern = compile_pattern(rule.prefix, name=f"pattern of rule {number}") if rule.regex else None
    name = f"target of rule {number}"
    target: Any = rule.target
    if rule.excluded:
        return _Route(rule, pattern)
    if isinstance(target, str):
        origin, base = _origin(number, rule, name)
        destination: Destination = SingleOrigin(origin)
    elif hasattr(target, "lease"):
        if not rule.base.startswith("/"):
            raise ConfigError(f"base of rule {number} must start with '/', got {rule.base!r}")
        base = rule.base.rstrip("/") + ("/" if rule.prefix.endswith("/") and not rule.regex else "")
        destination = target
    elif rule.regex:
        raise ConfigError(f"{name} must be a URL, a BalancerPool or '!' where the prefix is a pattern, got {target!r}")
    else:
        return _Mount(rule, target)
    reverse = ReverseMap(
        prefix=rule.prefix if rule.map_back and not rule.regex else None,
        base=base,
        extra=ReverseTable((*rule.reverse, *public.pairs)) if rule.reverse else public,
        cookie_domains=rule.cookie_domains,
        cookie_paths=rule.cookie_paths,
    )
    return _Forward(rule, pattern, forwarder, destination, _options(rule, defaults, reverse), base)


def _origin(number: int, rule: ProxyRule, name: str) -> tuple[Origin, str]:
    """The origin of a URL target without its path, and the path as written."""
    url = str(rule.target)
    if rule.regex:
        authority = _URL.match(url)
        if authority is None:
            raise ConfigError(f"{name} must be a URL with a literal host, got {url!r}")
        rest = url[authority.end() :]
        reference = re.match(r"\$([0-9])", rest)
        if rest[:1] not in ("", "/") and not (reference and group_starts_with_slash(rule.prefix, int(reference[1]))):
            raise ConfigError(
                f"{name} must have a slash between the host and anything of the request, got {url!r}; "
                f"add a slash: {authority[0] + '/' + rest!r}"
            )
        return Origin.parse(authority[0], name=name), rest
    origin = Origin.parse(url, name=name)
    if rule.prefix.endswith("/") and not origin.base:
        raise ConfigError(
            f"{name} must end with a slash as its prefix does, or the path would run into the host; "
            f"add a slash: {(rule.prefix, url + '/')!r}, got {url!r}"
        )
    return Origin(origin.scheme, origin.host, origin.port, "", origin.socket), origin.base


def _options(rule: ProxyRule, defaults: ForwardOptions, reverse: ReverseMap) -> ForwardOptions:
    given = {name: getattr(rule, name) for name in ("connect", "first_byte", "between_bytes", "total")}
    given = {name: value for name, value in given.items() if value is not None}
    if rule.host is not None or rule.preserve_host is not None:
        given |= {"host": rule.host, "preserve_host": bool(rule.preserve_host) and rule.host is None}
    return replace(
        defaults,
        reverse=reverse,
        prefix="" if rule.regex else rule.prefix.rstrip("/"),
        websocket=defaults.websocket if rule.websocket is True else rule.websocket,
        **given,
    )
