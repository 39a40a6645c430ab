"""Where requests are sent: scheme, host and port, parsed once and never again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from proxymw.errors import ConfigError

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# RFC 3986 3.2.2: a registered name (underscores as container names have them), or an IPv6 address in brackets.
_AUTHORITY = re.compile(
    r"(?:(?P<name>[A-Za-z0-9](?:[A-Za-z0-9_.~-]*[A-Za-z0-9_~.-])?)|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{1,5}))?"
)
_PATH = re.compile(r"(?:/(?:[!$&'()*+,;=:@A-Za-z0-9._~/\[\]|^`{}<>\"\\-]|%[0-9A-Fa-f]{2})*)?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a server, and the path that its URL had.

    ``host`` is lower case, an IPv6 address without its brackets. ``base`` is the path exactly as written, ``""`` where
    none was. ``socket`` is the path of a Unix socket, where that is what answers.
    """

    scheme: str
    host: str
    port: int
    base: str = ""
    socket: str = ""
    #: The Host field sent to it: ``host``, or ``host:port`` where the port is not the scheme's own.
    authority: str = field(init=False, compare=False, repr=False)
    #: ``http://host:port``; for a Unix socket ``unix:/path|http://host``. Without the path: names the server.
    url: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        object.__setattr__(self, "authority", host + port)
        url = f"{self.scheme}://{host}{port}"
        object.__setattr__(self, "url", f"unix:{self.socket}|{url}" if self.socket else url)

    def __str__(self) -> str:
        return self.url + self.base

    @classmethod
    def parse(cls, url: str, *, name: str = "target") -> Origin:
        """The origin of ``http://host[:port][/base]``, ``https://…`` or ``unix:/socket/path|http://host/base``.

        ConfigError for user information (it would leak into logs), a query, a fragment, another scheme, a missing host
        or a bad port. The authority is never text of a request.
        """
        if not isinstance(url, str):
            raise ConfigError(f"{name} must be a URL such as 'http://127.0.0.1:9001', got {url!r}")
        socket, rest = _socket(url, name)
        scheme, sep, rest = rest.partition("://")
        scheme = scheme.lower()
        if not sep or scheme not in DEFAULT_PORTS:
            raise ConfigError(f"{name} must begin with http:// or https://, got {url!r}")
        authority, slash, path = rest.partition("/")
        _refuse_extras(url, authority, slash + path, name)
        match = _AUTHORITY.fullmatch(_ascii(authority))
        if match is None:
            raise ConfigError(f"{name} must name a host and, if any, a port from 1 to 65535, got {url!r}")
        port = int(match["port"] or DEFAULT_PORTS[scheme])
        if not 0 < port < 65536:
            raise ConfigError(f"{name} must have a port from 1 to 65535, got {url!r}")
        if not _PATH.fullmatch(slash + path):
            raise ConfigError(f"{name} must have a path of printable ASCII without blanks, got {url!r}")
        return cls(scheme, (match["name"] or match["ipv6"]).lower(), port, slash + path, socket)


def _socket(url: str, name: str) -> tuple[str, str]:
    """The path of the Unix socket, if any, and the URL behind it."""
    if not url.startswith("unix:"):
        return "", url
    path, sep, rest = url[5:].partition("|")
    if not sep or not path.startswith("/") or "\0" in path:
        raise ConfigError(f"{name} must be written 'unix:/path/of/the.sock|http://host/', got {url!r}")
    return path, rest


def _refuse_extras(url: str, authority: str, path: str, name: str) -> None:
    if "@" in authority:
        raise ConfigError(f"{name} must not hold a user name or password, got one (in {url.rpartition('@')[2]!r})")
    for sign, what in (("?", "a query"), ("#", "a fragment")):
        if sign in authority or sign in path:
            raise ConfigError(f"{name} must not have {what}, got {url!r}")


def _ascii(authority: str) -> str:
    """An internationalised name in its ASCII form; anything else as it was."""
    if authority.isascii():
        return authority
    try:
        return authority.encode("idna").decode("ascii")
    except UnicodeError:
        return authority
