"""From a Site to a stack of the public constructors, in httpd's order.

For each virtual host: logs, error pages, variables, then by location: response headers, who may, request headers,
rewriting, ProxyPass, the manager, redirects, aliases, the document root.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from proxymw.accesslog import AccessLog
from proxymw.apacheconf.conditions import LogIf, is_set, never
from proxymw.apacheconf.documents import Documents
from proxymw.apacheconf.fallback import Front
from proxymw.apacheconf.guards import guarded
from proxymw.apacheconf.hosts import ByAddress, host_names
from proxymw.apacheconf.lexer import ConfFileError, Place, as_path
from proxymw.apacheconf.passes import Back, Context, opens_tunnels, reverse_pairs, rules_of
from proxymw.apacheconf.pools import pool_of
from proxymw.apacheconf.rewriting import rewrite_proxy
from proxymw.apacheconf.sections import by_section
from proxymw.apacheconf.site import (
    HeaderLine,
    LogLine,
    PassLine,
    Scope,
    Server,
    SetEnvLine,
    Settings,
    Site,
    inherit,
    merge_all,
)
from proxymw.clientaddress import ClientAddress
from proxymw.errorpages import ErrorPages
from proxymw.errors import ConfigError
from proxymw.exchange.inbound import answer
from proxymw.headerskin import HeaderRule, Headers
from proxymw.prefix import PrefixProxy, ProxyRule
from proxymw.redirects import RedirectRule, Redirects
from proxymw.rules.logline import LogFormat
from proxymw.rules.policy import Policy
from proxymw.rules.retrying import RetryPolicy
from proxymw.variables import SetEnvIf, Variables
from proxymw.vhosts import VirtualHosts

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.balancer import BalancerPool

#: httpd sends nothing twice; only a pooled connection that had gone stale says nothing of the origin.
RETRY = RetryPolicy(budget=0)
#: httpd's Timeout, where no directive says otherwise.
_TIMEOUT = 60.0


@dataclass(slots=True)
class Builder:
    """Builds the application of one site; errors are ConfFileError."""

    site: Site
    #: (name of the pool, its members) so that a pool of the main server is one in all hosts.
    pools: dict[int, BalancerPool] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    #: Where pools keep what their workers share: a directory, or None for what each finds best.
    state: str | None = None

    def application(self) -> WSGIApplication:
        site = self.site
        if not site.hosts:
            return self._client_address(site.main, self._host(site.main))
        servers = [inherit(site.main, host) for host in site.hosts]
        remote = {(s.remote_header, tuple(s.trusted), tuple(s.internal)) for s in servers}
        common = len(remote) == 1
        apps = [self._host(server) for server in servers]
        if not common:
            apps = [self._client_address(server, app) for server, app in zip(servers, apps, strict=True)]
        choices = [
            (server.addresses, server, app) for server, app in zip(servers, apps, strict=True)
        ]  # fmt: skip
        app: WSGIApplication = ByAddress(choices, self._named) if _addresses_differ(servers) else self._named(choices)
        return self._client_address(servers[0], app) if common else app

    def _named(self, choices: list[tuple[Any, Server, WSGIApplication]]) -> WSGIApplication:
        """The hosts of one address by name, the first one by default."""
        default: WSGIApplication = choices[0][2]
        first = choices[0][1]
        policy = _policy(first)
        if first.strict_host:
            default = _logs(first, _BadHost(), self.path)
        hosts: dict[str | tuple[str, ...], WSGIApplication | None] = {}
        for _, server, app in choices:
            names = host_names(server)
            if names and names not in hosts:
                hosts[names] = app
        if not hosts:
            return default
        try:
            if next(iter(hosts.values())) is default:
                return VirtualHosts(hosts, policy=policy)
            return VirtualHosts(hosts, default=default, policy=policy)
        except ConfigError as error:
            raise ConfFileError(first.place, "<VirtualHost>", str(error)) from None

    def path(self, text: str, place: Place) -> str:
        """A file name of the configuration, relative ones below ServerRoot."""
        return os.path.join(self.site.server_root or os.path.dirname(place.file), as_path(text))

    # -- one host ----------------------------------------------------------------------------------------------

    def _host(self, server: Server) -> WSGIApplication:
        parts = HostParts(self, server, _policy(server))
        app: WSGIApplication
        if server.locations:
            app = by_section(server.locations, parts.pipeline, policy=parts.front)
        else:
            app = parts.pipeline(())
        if _falls_back(server):
            parts.front_door.app, app = app, parts.front_door
        app = _error_pages(app, server.settings, parts.policy)
        rules = [rule for line in server.settings.env for rule in _env_rules(line)]
        if rules:
            app = Variables(app, rules)
        return _logs(server, app, self.path)

    def _client_address(self, server: Server, app: WSGIApplication) -> WSGIApplication:
        if server.remote_header is None:
            return app
        try:
            return ClientAddress(app, server.internal, external=server.trusted, header=server.remote_header)
        except ConfigError as error:
            raise ConfFileError(server.place, "RemoteIPHeader", str(error)) from None

    def pool(self, server: Server, name: str, policy: Policy) -> BalancerPool:
        balancer = server.balancers[name]
        known = self.pools.get(id(balancer))
        if known is None:
            unique = name
            while unique in self.taken:
                unique += "-" + (server.name or "2")
            self.taken.add(unique)
            persist = None
            if server.persist:
                persist = os.path.join(self.site.server_root or os.path.dirname(balancer.place.file), f"{unique}.pool")
            known = self.pools[id(balancer)] = pool_of(balancer, policy, name=unique, persist=persist, state=self.state)
        return known


@dataclass(slots=True)
class HostParts:
    """One host's pieces, put together anew for each combination of ``<Location>`` sections."""

    builder: Builder
    server: Server
    policy: Policy
    retry: RetryPolicy = RETRY
    pools: dict[str, BalancerPool] = field(init=False)
    documents: Documents = field(init=False)
    #: What a fallback asks: the whole of the host.
    front_door: Front = field(default_factory=Front, init=False)
    #: What stands before the lines with mapping=, which httpd tries before it decodes the path.
    front: Policy = field(init=False)

    def __post_init__(self) -> None:
        self.pools = {name: self.builder.pool(self.server, name, self.policy) for name in self.server.balancers}
        early = any(line.mapping for line in self.server.passes)
        self.front = self.policy.but(spelling="client", encoded_slash="keep") if early else self.policy
        self.documents = Documents(self.builder.site, self.server, self.policy, self)

    def pipeline(self, scopes: tuple[Scope, ...]) -> WSGIApplication:
        server = self.server
        located = merge_all(scope.settings for scope in scopes)
        settings = server.settings.merged(located)
        policy = self.policy if settings.add_headers is not False else self.policy.but(forwarded=())
        local = self._local(located)
        app = self._handler(local, settings, scopes)
        app = self._passes(app, settings, scopes, policy)
        app = rewrite_proxy(app, local, server, settings, self, policy)
        if self.front is not self.policy:
            app = self._proxy(app, [line for line in server.passes if line.mapping], settings, self.front)
        if settings.request_headers:
            app = Headers(app, request=[_header_rule(line) for line in settings.request_headers])
        app = guarded(app, settings, policy if self.front is self.policy else self.front)
        env = [rule for line in located.env for rule in _env_rules(line)]
        if env:
            app = Variables(app, env)
        if settings.headers:
            app = Headers(app, response=[_header_rule(line) for line in settings.headers])
        return _error_pages(app, located, self.policy)

    def _local(self, located: Settings) -> WSGIApplication:
        return self.documents.application(located)

    def _handler(self, local: WSGIApplication, settings: Settings, scopes: tuple[Scope, ...]) -> WSGIApplication:
        """What answers a request that is not proxied."""
        app = self._redirects(local)
        if settings.handler != "balancer-manager":
            return app
        from proxymw.manager import BalancerManagerApp

        paths: dict[str, str] = {}
        for line in self.server.passes:
            name = line.target.removeprefix("balancer://").partition("/")[0].lower()
            if name in self.pools:
                paths.setdefault(self.pools[name].name, line.path)
        manager = BalancerManagerApp(self.pools.values(), paths=paths, policy=self.policy)
        scope = next(scope for scope in reversed(scopes) if scope.settings.handler == "balancer-manager")
        prefix = "/" if scope.regex else scope.pattern.rstrip("/") or "/"
        return PrefixProxy(app, [ProxyRule(prefix, manager)], policy=self.policy)

    def _redirects(self, app: WSGIApplication) -> WSGIApplication:
        rules = []
        for line in self.server.redirects:
            try:
                rules.append(RedirectRule(line.pattern, line.target, line.status, match=line.regex))
            except ConfigError as error:
                raise ConfFileError(line.place, "Redirect", str(error)) from None
        return Redirects(app, rules, policy=self.policy) if rules else app

    def _tunnels(self) -> frozenset[str]:
        return frozenset(
            name
            for name, balancer in self.server.balancers.items()
            if any(opens_tunnels(member.parameters) for member in balancer.members)
        )

    def back(self, settings: Settings) -> Back:
        """What holds for every answer of a proxied request under these settings."""
        return Back(
            reverse_pairs(settings.reverses, self.pools),
            tuple((pair.first, pair.second) for pair in settings.cookie_domains),
            tuple((pair.first, pair.second) for pair in settings.cookie_paths),
        )

    def clocks(self) -> dict[str, float]:
        """ProxyTimeout, else Timeout, for each operation on a connection to an origin."""
        seconds = self.server.proxy_timeout or self.server.timeout or _TIMEOUT
        return {"connect": seconds, "first_byte": seconds, "between_bytes": seconds}

    def _passes(
        self, app: WSGIApplication, settings: Settings, scopes: tuple[Scope, ...], policy: Policy
    ) -> WSGIApplication:
        """The location's own ProxyPass first, then the server's in order."""
        lines = [line for line in self.server.passes if not line.mapping]
        scope = next((scope for scope in reversed(scopes) if scope.settings.proxy_pass is not None), None)
        if scope is not None and scope.settings.proxy_pass is not None:
            lines.insert(0, replace(scope.settings.proxy_pass, path=scope.pattern))
        return self._proxy(app, lines, settings, policy)

    def _proxy(
        self, app: WSGIApplication, lines: list[PassLine], settings: Settings, policy: Policy
    ) -> WSGIApplication:
        context = Context(self.pools, self.server.workers, self.back(settings), self._tunnels())
        made = [(line, rule) for line in lines for rule in rules_of(line, line.path, context)]
        rules = [rule for _, rule in made]
        if not rules:
            return app
        return _caught(
            [line for line, _ in made],
            lambda: PrefixProxy(
                app,
                rules,
                policy=policy,
                preserve_host=bool(settings.preserve_host),
                retry=RETRY,
                **self.clocks(),  # type: ignore[arg-type]
            ),
        )


def _caught(lines: list[PassLine], make: Callable[[], WSGIApplication]) -> WSGIApplication:
    """Errors that name a rule by its number, at the line that it came from."""
    import re
    import warnings

    try:
        with warnings.catch_warnings():
            # check says the same with file and line.
            warnings.simplefilter("ignore")
            return make()
    except ConfigError as error:
        number = re.search(r"\brule (\d+)", str(error))
        line = lines[int(number[1]) - 1] if number and int(number[1]) <= len(lines) else lines[0]
        raise ConfFileError(line.place, "ProxyPassMatch" if line.regex else "ProxyPass", str(error)) from None


# -- pieces --------------------------------------------------------------------------------------------------------


def _addresses_differ(servers: list[Server]) -> bool:
    return len({server.addresses for server in servers}) > 1


def _falls_back(server: Server) -> bool:
    scopes = [*server.locations, *server.directories, *server.files]
    scopes += [inner for scope in scopes for inner in scope.inner]
    return any(settings.fallback for settings in (server.settings, *(scope.settings for scope in scopes)))


def _policy(server: Server) -> Policy:
    slashes: Any = {"on": "decode", "nodecode": "nodecode"}.get(server.encoded_slashes or "off", "refuse")
    return Policy.apache().but(
        encoded_slash=slashes,
        merge_slashes=server.merge_slashes is not False,
        via=server.via or "off",
        server_name=server.name,
        canonical=_canonical(server) if server.settings.canonical_name else "",
    )


def _canonical(server: Server) -> str:
    default = {"http": 80, "https": 443}.get(server.scheme or "http")
    return server.name if server.port in (None, default) else f"{server.name}:{server.port}"


class _BadHost:
    """StrictHostCheck: a name that no host has."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        return answer(environ, start_response, 400)


def _error_pages(app: WSGIApplication, settings: Settings, policy: Policy) -> WSGIApplication:
    pages = {code: page for code, page in settings.error_documents.items() if code >= 400 and page != "default"}
    override: Any = False
    if settings.error_override_on:
        override = list(settings.error_override or ()) or True
    return ErrorPages(app, pages, override=override, policy=policy) if pages or override else app


def _env_rules(line: SetEnvLine) -> list[SetEnvIf]:
    try:
        return [SetEnvIf(line.attribute, line.pattern, dict(line.variables), line.nocase)]
    except ConfigError as error:
        raise ConfFileError(line.place, "SetEnvIf" if line.attribute else "SetEnv", str(error)) from None


def _header_rule(line: HeaderLine) -> HeaderRule:
    action: Any = line.action
    try:
        return HeaderRule(
            action,
            line.name,
            line.value,
            line.replacement,
            always=line.always,
            when=is_set(line.env) if line.env else None,
        )
    except ConfigError as error:
        raise ConfFileError(line.place, "Header", str(error)) from None


def _logs(server: Server, app: WSGIApplication, path: Callable[[str, Place], str]) -> WSGIApplication:
    """A server's access logs, the first of them innermost, and its error log."""
    errors = path(*server.error_log) if server.error_log is not None else None
    if errors is not None and not server.logs:
        return AccessLog(app, os.devnull, errors=errors, when=never)
    for line in server.logs:
        app = AccessLog(
            app,
            path(line.path, line.place),
            errors=errors,
            format=_format(server, line),
            when=_log_when(line),
            server_name=server.name,
        )
        errors = None
    return app


def _format(server: Server, line: LogLine) -> Any:
    text = server.formats.get(line.format, line.format) or server.default_format or '%h %l %u %t "%r" %>s %b'
    try:
        return LogFormat(text, name="format")
    except ConfigError as error:
        raise ConfFileError(line.place, "CustomLog", str(error)) from None


def _log_when(line: LogLine) -> Callable[[Any, int], bool] | None:
    if line.condition.startswith("env="):
        return is_set(line.condition[4:])
    if line.condition.startswith("expr="):
        try:
            return LogIf(line.condition[5:])
        except ValueError as error:
            raise ConfFileError(line.place, "CustomLog", str(error)) from None
    return None
