"""Mapping what an origin says about its own addresses back to the public ones (ProxyPassReverse and its cookies)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .options import text_pairs
from .paths import quote_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .headers import HeaderList
    from .origins import Origin
    from .policy import Policy

    Authority = tuple[str, str, int]

# RFC 3986 appendix B, with the rest after the path kept in one piece.
_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?#]*)(.*)\Z", re.DOTALL)
_REFRESH = re.compile(r"""(\s*[\d.]*\s*[;,]?\s*url\s*=\s*)(['"]?)([^'"]*)(['"]?\s*)\Z""", re.IGNORECASE)
_LOCATIONS = frozenset(("location", "content-location", "uri", "destination"))
TOUCHED = _LOCATIONS | {"refresh", "set-cookie"}
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
# Browsers take "\" for "/", so "/\host" leaves the site just as "//host" does.
_NETWORK_PATH = re.compile(r"[/\\]{2}")
_LEADING_SLASHES = re.compile(r"[/\\]+")


class ReverseTable:
    """``(public prefix, real URL)`` pairs in order; a real URL that starts with ``/`` is a path on any origin."""

    __slots__ = ("_by_authority", "_by_path", "pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = text_pairs("reverse", pairs, "(public prefix, real URL) pairs")
        self._by_authority: dict[Authority, list[tuple[str, str]]] = {}
        self._by_path: list[tuple[str, str]] = []
        for public, real in self.pairs:
            scheme, authority, path, rest = _split(real)
            if rest or not public.startswith("/"):
                raise ConfigError(f"reverse rule must be a path and a URL without query, got {(public, real)!r}")
            if real.startswith("/") and not real.startswith("//"):
                self._by_path.append((public, path))
                continue
            where = _authority(scheme, authority)
            if where is None:
                raise ConfigError(f"reverse rule must name an http(s) URL or a path, got {real!r}")
            self._by_authority.setdefault(where, []).append((public, path))

    def find(self, where: Authority | None, path: str) -> str | None:
        for public, base in self._by_authority.get(where, ()) if where else ():
            mapped = _below(path, base, public)
            if mapped is not None:
                return mapped
        for public, base in self._by_path:
            mapped = _below(path, base, public)
            if mapped is not None:
                return mapped
        return None

    def __repr__(self) -> str:
        return f"ReverseTable({self.pairs!r})"


@dataclass(frozen=True, slots=True)
class ReverseMap:
    """How the headers of an origin's answer go back to the client.

    ``prefix`` is the public prefix as written, ``base`` the path of the target that it stands for; ``prefix=None``
    makes no automatic rule. ``extra`` holds more ``(public prefix, real URL)`` pairs, for any origin, tried after it.
    ``cookie_paths`` and ``cookie_domains`` are ``(internal, public)`` pairs (ProxyPassReverseCookiePath, -Domain).
    Addresses are compared as parsed scheme, host and port, then by path segments; never as text.
    """

    prefix: str | None = "/"
    base: str = "/"
    extra: ReverseTable | tuple[tuple[str, str], ...] = ()
    cookie_domains: Sequence[tuple[str, str]] = ()
    cookie_paths: Sequence[tuple[str, str]] = ()
    _table: ReverseTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = self.extra if isinstance(self.extra, ReverseTable) else ReverseTable(self.extra)
        object.__setattr__(self, "_table", table)
        for name in ("cookie_domains", "cookie_paths"):
            given = text_pairs(name, getattr(self, name), "(internal, public) pairs")
            object.__setattr__(self, name, given)

    def apply(
        self, headers: HeaderList, *, origin: Origin, script_name: str, public: str, policy: Policy
    ) -> HeaderList:
        """The headers with Location, Content-Location, Refresh, URI, Destination and Set-Cookie mapped back.

        ``origin`` is the one that answered (its ``base`` counts as part of ours), ``public`` the client's
        ``scheme://host[:port]``, used where the policy asks for absolute Locations.
        """
        for name, _ in headers:
            if name.lower() in TOUCHED:
                break
        else:
            return headers
        view = _View(self, origin, quote_path(script_name.rstrip("/")), public, policy)
        return [(name, view.mapped(name.lower(), value)) for name, value in headers]


class _View:
    """A reverse map as it applies to one answer."""

    __slots__ = ("apache", "base", "mount", "origin", "public", "rules", "where")

    def __init__(self, rules: ReverseMap, origin: Origin, mount: str, public: str, policy: Policy) -> None:
        self.rules = rules
        self.origin = origin
        self.where = (_web(origin.scheme), origin.host.lower(), origin.port)
        self.base = origin.base + rules.base
        self.mount = mount
        self.public = public
        self.apache = policy.location == "absolute"

    def mapped(self, name: str, value: str) -> str:
        if name in _LOCATIONS:
            return self.location(value)
        if name == "set-cookie":
            return self.apache_cookie(value) if self.apache else self.cookie(value)
        if name == "refresh" and not self.apache:
            found = _REFRESH.match(value)
            if found:
                before, quote, url, after = found.groups()
                return f"{before}{quote}{self.location(url.strip())}{after}"
        return value

    def location(self, value: str) -> str:
        scheme, authority, path, rest = _split(value)
        if authority is None:
            if scheme or not path.startswith("/"):
                return value
            mapped = self.own_path(path)
        else:
            where = _authority(scheme or ("" if self.apache else self.origin.scheme), authority)
            if where is None:
                return value
            if not self.apache:
                path = path or "/"
            mapped = _below(path, self.base, self.rules.prefix) if where == self.where else None
            if mapped is None:
                mapped = self.rules._table.find(where, path)
        if mapped is None:
            return value
        mapped = _LEADING_SLASHES.sub("/", self.mount + mapped, count=1)
        return (self.public if self.apache else "") + mapped + rest

    def own_path(self, path: str) -> str | None:
        """A path-only Location: ProxyPassReverse leaves it, unless a rule names a path."""
        prefix = self.rules.prefix
        if self.apache or prefix is None:
            return self.rules._table.find(None, path)
        if _NETWORK_PATH.match(path) or self.public_already(path):
            return None  # another host's (RFC 3986 4.2), or an origin that knows its public prefix
        mapped = _below(path, self.base, prefix)
        return mapped if mapped is not None else self.rules._table.find(None, path)

    def public_already(self, path: str) -> bool:
        below = (self.mount + (self.rules.prefix or "")).rstrip("/")
        return bool(below) and (path == below or path.startswith(below + "/"))

    def cookie(self, value: str) -> str:
        first, *attributes = value.split(";")
        if not attributes:
            return value
        kept = [first]
        for attribute in attributes:
            key, sign, text = attribute.partition("=")
            match key.strip().lower():
                case "path" if sign and not first.lstrip().startswith("__Host-"):
                    attribute = f"{key}={self.cookie_path(text.strip())}"
                case "domain" if sign:
                    domain = self.cookie_domain(text.strip())
                    if domain is None:
                        continue
                    attribute = f"{key}={domain}"
                case _:
                    pass
            kept.append(attribute)
        return ";".join(kept)

    def cookie_path(self, path: str) -> str:
        for internal, public in self.rules.cookie_paths:
            if _within(path, internal):
                rest = path[len(internal.rstrip("/")) :]
                return self.mount + (public.rstrip("/") + rest if rest.strip("/") else public)
        prefix = self.rules.prefix
        base = self.base.rstrip("/")
        if prefix is None or not _within(path, base) or self.public_already(path):
            return path
        rest = path[len(base) :]
        return self.mount + (prefix.rstrip("/") + rest if rest.strip("/") else prefix)

    def cookie_domain(self, domain: str) -> str | None:
        """The public domain; None drops the attribute: the client would refuse a cookie for the origin's own host."""
        name = domain.lower().lstrip(".")
        for internal, public in self.rules.cookie_domains:
            if name == internal.lower().lstrip("."):
                return public
        return None if name == self.where[1] else domain

    def apache_cookie(self, value: str) -> str:
        """Only the rules that are written, each replacing a whole value, the last path and domain of the header."""
        parts = value.split(";")
        for key, pairs, fold in (
            ("path=", self.rules.cookie_paths, False),
            ("domain=", self.rules.cookie_domains, True),
        ):
            places = [at for at, part in enumerate(parts) if part.lstrip(" ").lower().startswith(key)]
            if not places:
                continue
            at = places[-1]
            name, _, text = parts[at].partition("=")
            for internal, public in pairs:
                if text.startswith(internal) or (fold and text.lower().startswith(internal.lower())):
                    parts[at] = f"{name}={public}"
                    break
        return ";".join(parts)


def _split(reference: str) -> tuple[str, str | None, str, str]:
    found = _REFERENCE.match(reference)
    assert found is not None  # every string is a reference
    scheme, authority, path, rest = found.groups()
    return (scheme or "").lower(), authority, path, rest


def _web(scheme: str) -> str:
    return {"ws": "http", "wss": "https"}.get(scheme, scheme)


def _authority(scheme: str, authority: str | None) -> Authority | None:
    """Scheme, host and port to compare by; None where there is none, or userinfo, or nonsense."""
    scheme = _web(scheme)
    if not authority or "@" in authority or scheme not in _DEFAULT_PORTS:
        return None
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, ""
    if port and not (port.isascii() and port.isdigit()):
        return None
    return scheme, host.lower().strip("[]"), int(port) if port else _DEFAULT_PORTS[scheme]


def _within(path: str, base: str) -> bool:
    base = base.rstrip("/")
    return path.startswith("/") and (path == base or path.startswith(base + "/"))


def _below(path: str, base: str, public: str | None) -> str | None:
    """The public spelling of ``path`` when it is ``base`` or lies below it."""
    if public is None:
        return None
    if base.endswith("/"):
        if not path.startswith(base):
            return None
    elif path != base and not path.startswith(base + "/"):
        return None
    rest = path[len(base) :]
    if public.endswith("/"):
        return public + rest.lstrip("/") if rest.startswith("/") and not base.endswith("/") else public + rest
    return public + rest if not rest or rest.startswith("/") else f"{public}/{rest}"
