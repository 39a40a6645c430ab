"""VirtualHosts: one application for each name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from proxymw.errors import ConfigError, RequestRefused
from proxymw.exchange.inbound import NOT_FOUND, check, refuse
from proxymw.rules.hosts import HostPattern, split_authority
from proxymw.rules.options import application
from proxymw.rules.policy import Policy, as_policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Site(NamedTuple):
    """One virtual host: its names (the first is its ServerName) and its application."""

    names: tuple[HostPattern, ...]
    app: WSGIApplication

    @property
    def server_name(self) -> str:
        return self.names[0].text


class VirtualHosts:
    """Choose the application by the name in Host: NameVirtualHost with ServerName and ServerAlias.

    ``hosts`` maps a name, or a tuple of names of which the first is the ServerName, to an application. Names may
    hold ``*`` (any run of characters) and ``?`` (one character), and are tried in the order written: the first host
    that has a matching name wins, exact or not. Case, port and one trailing dot do not count. ``default`` gets every
    other request, those without Host included; left out, it is the first application, as in Apache.

    A Host that is not one is answered 400 (within the default's ``AccessLog``, if it has one). Sets
    ``environ["proxymw.host"]`` to the name that matched and ``environ["proxymw.server_name"]`` to the ServerName.
    """

    def __init__(
        self,
        hosts: Mapping[str | tuple[str, ...], WSGIApplication | None],
        *,
        default: WSGIApplication | None = None,
        policy: Policy | None = None,
    ) -> None:
        if not isinstance(hosts, Mapping) or not hosts:
            raise ConfigError(f"hosts must be a mapping of names to applications, got {hosts!r}")
        self.sites = tuple(_site(names, app) for names, app in hosts.items())
        self.default: WSGIApplication = self.sites[0].app if default is None else application(default, "default")
        self._policy = as_policy(policy)
        self._exact: dict[str, tuple[Site, str]] = {}
        self._wild: list[tuple[HostPattern, Site]] = []
        for site in self.sites:
            for name in site.names:
                # An exact name is found at once, unless a wildcard written before it matches too.
                if not name.exact:
                    self._wild.append((name, site))
                elif name.text not in self._exact:
                    first = next(((site, wild.text) for wild, site in self._wild if wild.matches(name.text)), None)
                    self._exact[name.text] = first or (site, name.text)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            check(environ, self._policy)
            found = self._find(environ.get("HTTP_HOST"))
        except RequestRefused as error:
            return self._refused(environ, start_response, error)
        if found is None:
            return self.default(environ, start_response)
        site, environ["proxymw.host"] = found
        environ["proxymw.server_name"] = site.server_name
        return site.app(environ, start_response)

    def match(self, host: str | None) -> WSGIApplication:
        """The application for ``host`` as in the Host field; None for a request without one.

        Raises ``RequestRefused`` (400) where it is not a host.
        """
        found = self._find(host)
        return self.default if found is None else found[0].app

    def _find(self, host: str | None) -> tuple[Site, str] | None:
        if host is None:
            return None
        parts = split_authority(host)
        if parts is None:
            raise RequestRefused(400, "bad_host")
        name = parts[0]
        exact = self._exact.get(name)
        if exact is not None or not self._wild:
            return exact
        return next(((site, wild.text) for wild, site in self._wild if wild.matches(name)), None)

    def _refused(
        self, environ: WSGIEnvironment, start_response: StartResponse, error: RequestRefused
    ) -> Iterable[bytes]:
        around = getattr(self.default, "around", None)
        refusal = partial(refuse, error=error)
        return refusal(environ, start_response) if around is None else around(refusal, environ, start_response)

    def __repr__(self) -> str:
        return f"<VirtualHosts {', '.join(site.server_name for site in self.sites)}, default {self.default!r}>"


def _site(names: str | tuple[str, ...], app: WSGIApplication | None) -> Site:
    listed = (names,) if isinstance(names, str) else names
    if not isinstance(listed, tuple | frozenset) or not listed:
        raise ConfigError(f"names must be a host name or a tuple of them, got {names!r}")
    patterns = tuple(HostPattern(name) for name in listed)
    return Site(patterns, NOT_FOUND if app is None else application(app, f"application of {patterns[0].text}"))
