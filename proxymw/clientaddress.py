"""ClientAddress: the one place where a forwarded address becomes the client's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from proxymw.errors import ConfigError
from proxymw.exchange.behind import behind
from proxymw.rules.networks import NetworkSet
from proxymw.rules.remoteip import addresses_in, walk_back

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class _Client(NamedTuple):
    address: str
    rest: str


class ClientAddress:
    """Set ``REMOTE_ADDR`` to the client's address as told by proxies that are trusted: mod_remoteip.

    ``trusted`` are the proxies in front of this server, as for ``NetworkSet``; they may name any address, as those of
    RemoteIPInternalProxy. ``external`` are proxies of somebody else (RemoteIPTrustedProxy): they may name clients on
    the internet, but not private, loopback or link-local ones. ``"unix"`` trusts a peer on a UNIX socket.

    ``header`` is read from right to left, for as long as the address in hand is a trusted proxy's: nobody can put an
    address to the left of what a trusted proxy wrote and be believed. An entry that is not an IP address ends the walk.
    What was used leaves the header, the rest stays. ``"Forwarded"`` (RFC 7239, its ``for=``) is understood as well.

    ``proto`` (say ``"X-Forwarded-Proto"``) names a header from which ``wsgi.url_scheme`` is set when the peer is
    trusted; nothing is read unless it is given. ``environ["proxymw.peer"]`` keeps the address that was connected.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        trusted: str | Iterable[str] | NetworkSet = (),
        header: str = "X-Forwarded-For",
        *,
        external: str | Iterable[str] | NetworkSet = (),
        proto: str | None = None,
    ) -> None:
        self.app = behind(app)
        self.trusted = trusted if isinstance(trusted, NetworkSet) else NetworkSet(trusted, name="trusted")
        self.external = external if isinstance(external, NetworkSet) else NetworkSet(external, name="external")
        if not self.trusted and not self.external:
            raise ConfigError(f"trusted must be the addresses of the proxies in front, got {trusted!r}")
        self.header = header
        self._key = _environ_key(header, "header")
        self._proto_key = None if proto is None else _environ_key(proto, "proto")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        peer = environ.get("REMOTE_ADDR", "")
        if peer in self.trusted or peer in self.external:
            self._believe(environ, peer)
        return self.app(environ, start_response)

    def client(self, peer: str, value: str) -> str:
        """The client's address for a connection from ``peer`` whose header is ``value``."""
        return self._walk(peer, value).address

    def _walk(self, peer: str, value: str) -> _Client:
        entries = addresses_in(value, forwarded=self._key == "HTTP_FORWARDED")
        address, used = walk_back(peer, [entry.address for entry in entries], self.trusted, self.external)
        left = len(entries) - used
        return _Client(address, "" if not left else value[: entries[left - 1].end])

    def _believe(self, environ: WSGIEnvironment, peer: str) -> None:
        value = environ.get(self._key)
        if value is not None:
            found = self._walk(peer, value)
            if found.address != peer:
                environ["proxymw.peer"], environ["REMOTE_ADDR"] = peer, found.address
                # These speak of the proxy's connection.
                environ.pop("REMOTE_PORT", None)
                environ.pop("REMOTE_HOST", None)
            if found.rest:
                environ[self._key] = found.rest
            elif found.address != peer:
                del environ[self._key]
        if self._proto_key is not None:
            scheme = environ.get(self._proto_key, "").rpartition(",")[2].strip(" \t").lower()
            if scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme

    def __repr__(self) -> str:
        return f"<ClientAddress {self.header} from {self.trusted!r} -> {self.app!r}>"


def _environ_key(name: str, option: str) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ConfigError(f"{option} must be a header name, got {name!r}")
    return "HTTP_" + name.upper().replace("-", "_")
