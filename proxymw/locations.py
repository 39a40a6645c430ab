"""Locations: another application below some paths, the path unchanged (<Location>)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxymw.errors import ConfigError, RequestRefused
from proxymw.exchange.inbound import NOT_FOUND, inbound, refuse
from proxymw.rules.matchers import PrefixTable
from proxymw.rules.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Locations:
    """Give requests below a prefix to that prefix's application, every other to ``app``.

    >>> Locations(site, {"/balancer-manager": IPAllowlist(manager, ["10.0.0.0/8"])})

    The longest prefix that covers the path wins. ``/m`` covers ``/m`` and ``/m/x`` but not ``/mx``; ``/m/`` does not
    cover ``/m``. Nothing is stripped: the application sees the path as it came (``PrefixProxy`` mounts).
    """

    def __init__(
        self, app: WSGIApplication | None, locations: Mapping[str, WSGIApplication], *, policy: Policy | None = None
    ) -> None:
        for prefix, inner in locations.items():
            if not callable(inner):
                raise ConfigError(f"locations must map prefixes to WSGI applications, got {inner!r} for {prefix!r}")
        self.app: WSGIApplication = NOT_FOUND if app is None else app
        self.locations = dict(locations)
        self.policy = policy or Policy.modern()
        self._table = PrefixTable(
            (prefix, self.locations[prefix]) for prefix in sorted(self.locations, key=len, reverse=True)
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            app = self.match(inbound(environ, self.policy).path)
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        return app(environ, start_response)

    def match(self, path: str) -> WSGIApplication:
        """The application for the canonical ``path``."""
        found = self._table.match(path)
        return self.app if found is None else found[0]

    def prefix(self, path: str) -> str | None:
        """The prefix that covers ``path`` and decides, or None."""
        place = self._table.place(path)
        return None if place is None else self._table.entries[place][0].prefix

    def __repr__(self) -> str:
        return f"<Locations {', '.join(self.locations)} -> {self.app!r}>"
