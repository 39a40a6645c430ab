"""Host names: the grammar of the Host field, and the patterns of ServerName and ServerAlias."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address

from proxymw.errors import ConfigError

# RFC 9110 7.2 with Apache's strict reading: letters, digits, "-", "_" and ".", never two dots in a row.
_NAME = re.compile(r"\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?", re.ASCII)
_NUMERIC = re.compile(r"[0-9.]+")
_QUAD = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}\.?")
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")
_PATTERN = re.compile(r"[A-Za-z0-9_.*?-]+", re.ASCII)
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


def split_authority(text: str) -> tuple[str, str] | None:
    """``Host`` as (name, port), or None where it is not one (RFC 9110 7.2).

    The name is lower-case without its one trailing dot, an IPv6 literal canonical in brackets; the port is digits, or
    empty where none is named (as in Apache, 0 and a colon with nothing after it are not ports). All-numeric names must
    be four decimal bytes, a top-level label must begin with a letter.
    """
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    port = found["port"] or ""
    if port and not 0 < int(port) < 65536:
        return None
    if found["v6"] is not None:
        try:
            return f"[{IPv6Address(found['v6'])}]", port
        except AddressValueError:
            return None
    name = found["name"]
    return (name.lower().removesuffix("."), port) if _is_name(name) else None


def _is_name(name: str) -> bool:
    if not _NAME.fullmatch(name) or len(name) > 255:
        return False
    if _NUMERIC.fullmatch(name):
        return bool(_QUAD.fullmatch(name)) and all(int(byte) < 256 for byte in name.rstrip(".").split("."))
    _, dot, top = name.removesuffix(".").rpartition(".")
    return not dot or top[:1].isalpha()


def target_authority(raw_target: str) -> str | None:
    """The authority of an absolute-form request target, which goes before the Host field (RFC 9112 3.2.2), or None."""
    found = _ABSOLUTE.match(raw_target)
    return found[1] if found else None


class HostPattern:
    """One ServerName or ServerAlias: a name, or one with ``*`` (any run, dots included) and ``?`` (one character).

    ``*.example.com`` matches ``www.example.com`` and ``a.b.example.com``, not ``example.com``.
    """

    __slots__ = ("_match", "exact", "text")

    def __init__(self, text: str, *, name: str = "name") -> None:
        if not isinstance(text, str) or not text:
            raise ConfigError(f"{name} must be a host name, got {text!r}")
        if text.startswith("["):
            parts = split_authority(text)
            if parts is None or parts[1]:
                raise ConfigError(f"{name} must be an IPv6 address in brackets, got {text!r}")
            self.text, self.exact = parts[0], True
        elif not _PATTERN.fullmatch(text):
            hint = " (write an international name as xn--...)" if not text.isascii() else ""
            raise ConfigError(f"{name} must be a host name without scheme, port or path{hint}, got {text!r}")
        else:
            self.text = text.lower() if len(text) == 1 else text.lower().removesuffix(".")
            self.exact = "*" not in text and "?" not in text
        # Runs of "*" mean no more than one, and would make the expression below quadratic for nothing.
        parts_of_pattern = re.split(r"(\*+|\?)", self.text)
        spelled = "".join(".*" if p[:1] == "*" else "." if p == "?" else re.escape(p) for p in parts_of_pattern)
        self._match = re.compile(spelled, re.DOTALL).fullmatch

    def matches(self, host: str) -> bool:
        """Whether ``host`` (lower-case, no port, no trailing dot: see ``split_authority``) is meant."""
        return host == self.text if self.exact else self._match(host) is not None

    def __repr__(self) -> str:
        return f"<HostPattern {self.text}>"

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, HostPattern) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)
