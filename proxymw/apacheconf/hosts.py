"""Which ``<VirtualHost>`` sections a connection's address leaves to choose from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.apacheconf.site import Server

    Choice = tuple[tuple[str, ...], Server, WSGIApplication]

_ADDRESS = re.compile(r"(\[[^\]]*\]|[^:]*)(?::(\d+|\*))?")


def split_address(text: str) -> tuple[str, str]:
    """``*:80``, ``127.0.0.1:8080`` or ``[::1]`` as host and port; ``*`` for any."""
    match = _ADDRESS.fullmatch(text)
    host, port = (match[1], match[2]) if match else (text, None)
    return ("*" if host in ("", "_default_") else host.strip("[]").lower()), port or "*"


def host_names(server: Server) -> tuple[str, ...]:
    """ServerName, or the name in the section's head, and the aliases."""
    heads = [split_address(text)[0] for text in server.addresses]
    named = [head for head in heads if head != "*" and not re.fullmatch(r"[\d.]+|.*:.*", head)]
    names = [server.name] if server.name else named[:1]
    out: dict[str, None] = {}
    for name in [*names, *server.aliases]:
        out.setdefault(name.lower())
    return tuple(out)


class ByAddress:
    """Chooses among hosts by the address and port that the connection came to, then by name.

    Hosts for that very address go before those for any; a port that no host names is as good as any: it is often the
    server in front that has it.
    """

    def __init__(self, choices: list[Choice], named: Callable[[list[Choice]], WSGIApplication]) -> None:
        self._choices, self._named = choices, named
        self._ready: dict[tuple[str, str], WSGIApplication] = {}
        # Every application is made now, so that its errors show.
        self.app = named(choices)
        self._places = {split_address(text) for addresses, _, _ in choices for text in addresses}
        for host, port in self._places:
            self.match(host, port)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.choose(environ)(environ, start_response)

    def choose(self, environ: WSGIEnvironment) -> WSGIApplication:
        """The application for the address that the connection came to."""
        address = environ.get("SERVER_ADDR") or environ.get("SERVER_NAME", "")
        port = environ.get("SERVER_PORT", "")
        known = {place[1] for place in self._places}
        if port not in known:
            port = "443" if environ.get("wsgi.url_scheme") == "https" and "443" in known else "80"
        host = address.strip("[]").lower()
        hosts = {place[0] for place in self._places}
        return self.match(host if host in hosts else "*", port)

    def match(self, host: str, port: str) -> WSGIApplication:
        """The application for a connection to this address and port."""
        ready = self._ready.get((host, port))
        if ready is None:
            ready = self._ready[host, port] = self._named(self._fitting(host, port))
        return ready

    def _fitting(self, host: str, port: str) -> list[Choice]:
        tests: list[Callable[[str, str], bool]] = [
            lambda h, p: h == host and p in (port, "*") and h != "*",
            lambda h, p: h == "*" and p in (port, "*"),
            lambda h, p: p in (port, "*"),
            lambda h, p: True,
        ]
        for test in tests:
            found = [c for c in self._choices if any(test(*split_address(text)) for text in c[0])]
            if found:
                return found
        return self._choices

    def __repr__(self) -> str:
        return f"<ByAddress {', '.join(f'{host}:{port}' for host, port in sorted(self._places))}>"
