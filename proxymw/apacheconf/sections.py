"""Sections: which <Location>, <Directory> and <Files> sections a request falls under decides what it meets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from proxymw.errors import RequestRefused
from proxymw.exchange.inbound import inbound, refuse
from proxymw.locations import Locations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.apacheconf.site import Scope
    from proxymw.rules.policy import Policy

    Choice = tuple[int, ...]


def by_section(
    scopes: Sequence[Scope], build: Callable[[tuple[Scope, ...]], WSGIApplication], *, policy: Policy
) -> WSGIApplication:
    """Locations where all sections are plain prefixes, Sections otherwise."""
    if any(scope.regex or not scope.plain() for scope in scopes):
        return Sections(scopes, build, policy=policy)
    locations = {scope.pattern: build(tuple(s for s in scopes if s.covers(scope.pattern))) for scope in scopes}
    return Locations(build(()), locations, policy=policy)


#: Combinations that are kept ready. Clients choose paths, so their number must not follow what they ask for.
_KEPT = 1024


class Sections:
    """The application for the sections that cover a request's path, merged in httpd's order.

    ``build`` makes the application for one combination (positions in ``scopes``); it is called once for each that
    occurs. The empty one and those of plain prefixes are made at once, so that their errors show when loading.
    """

    def __init__(
        self,
        scopes: Sequence[Scope],
        build: Callable[[tuple[Scope, ...]], WSGIApplication],
        *,
        policy: Policy,
        matches: Callable[[Scope, str], bool] | None = None,
    ) -> None:
        self.scopes = tuple(scopes)
        self._build, self._policy = build, policy
        self._matches = matches or (lambda scope, path: scope.covers(path))
        self._ready: dict[Choice, WSGIApplication] = {}
        self._lock = threading.Lock()
        self.app = self.application(())
        for scope in self.scopes:
            if not scope.regex:
                self.match(scope.pattern)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path = inbound(environ, self._policy).path
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        return self.match(path)(environ, start_response)

    def covering(self, path: str) -> Choice:
        """The positions of the sections that cover ``path``, in order."""
        return tuple(at for at, scope in enumerate(self.scopes) if self._matches(scope, path))

    def match(self, path: str) -> WSGIApplication:
        """The application for ``path``."""
        return self.application(self.covering(path))

    def application(self, choice: Choice) -> WSGIApplication:
        ready = self._ready.get(choice)
        if ready is None:
            with self._lock:
                ready = self._ready.get(choice)
                if ready is None:
                    ready = self._build(tuple(self.scopes[at] for at in choice))
                    if len(self._ready) < _KEPT:
                        self._ready[choice] = ready
        return ready

    def __repr__(self) -> str:
        return f"<Sections {', '.join(scope.pattern for scope in self.scopes)}>"
