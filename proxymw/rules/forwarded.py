"""The fields by which a proxy tells an origin about the client: X-Forwarded-*, Forwarded, Via."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxymw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxymw.rules.headers import HeaderList
    from proxymw.rules.policy import Policy

#: Fields that assert something about the client: from a client itself they prove nothing.
ASSERTED: Final = frozenset(
    {
        "forwarded",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-forwarded",
        "x-forwarded-by",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-forwarded-protocol",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-original-forwarded-for",
        "x-real-ip",
        "x-url-scheme",
    }
)
_KNOWN: Final = {
    "x-forwarded-for": "X-Forwarded-For",
    "x-forwarded-host": "X-Forwarded-Host",
    "x-forwarded-proto": "X-Forwarded-Proto",
    "x-forwarded-prefix": "X-Forwarded-Prefix",
    "x-forwarded-server": "X-Forwarded-Server",
    "forwarded": "Forwarded",
}
_PLAIN_NODE: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


class Forwarding:
    """The forwarding fields of one policy.

    The client's own are dropped, because it can write what it likes into them; with ``append_forwarded`` (Apache) those
    that the policy sends are appended to and the others pass. Via (RFC 9110 7.6.3) is appended to in either case.
    """

    __slots__ = ("_comment", "append", "names", "pseudonym", "via")

    def __init__(self, policy: Policy) -> None:
        unknown = [name for name in policy.forwarded if name.lower() not in _KNOWN]
        if unknown:
            raise ConfigError(f"forwarded must be names of {', '.join(_KNOWN.values())}, got {unknown[0]!r}")
        self.names = tuple(_KNOWN[name.lower()] for name in policy.forwarded)
        self.append = policy.append_forwarded
        self.via = policy.via
        self.pseudonym = policy.server_name or "proxymw"
        self._comment = " (proxymw)" if policy.via == "full" else ""

    @property
    def dropped(self) -> frozenset[str]:
        """Lower-case names of the client's fields that are not passed on as they came."""
        rewritten = frozenset(name.lower() for name in self.names)
        via = frozenset({"via"} if self.via != "off" else ())
        return rewritten | via if self.append else ASSERTED | via

    def fields(
        self, address: str, host: str, scheme: str, prefix: str = "", sent: Mapping[str, str] | None = None
    ) -> HeaderList:
        """The fields to add. ``sent`` has the client's own values by name; it is read only when appending."""
        values = {
            "X-Forwarded-For": address,
            "X-Forwarded-Host": host,
            "X-Forwarded-Proto": scheme,
            "X-Forwarded-Prefix": prefix,
            "X-Forwarded-Server": self.pseudonym,
        }
        fields = []
        for name in self.names:
            value = self._forwarded(address, host, scheme) if name == "Forwarded" else values[name]
            before = sent.get(name, "") if self.append and sent else ""
            if value or before:
                fields.append((name, f"{before}, {value}" if before and value else before or value))
        return fields

    def via_field(self, version: str, before: str = "") -> str:
        """The value of Via for a message received as ``version`` (``1.1``); empty where the policy sends none."""
        if self.via == "block" or self.via == "off":
            return ""
        own = f"{version} {self.pseudonym}{self._comment}"
        return f"{before}, {own}" if before else own

    def loops(self, via: str) -> bool:
        """Whether a Via field shows that the message has been here twice or more. Only a name of our own counts."""
        received_by = (part.split()[1:2] for part in via.split(","))
        return self.via != "off" and sum(names == [self.pseudonym] for names in received_by) >= 2

    @staticmethod
    def _forwarded(address: str, host: str, scheme: str) -> str:
        """One element of RFC 7239: an IPv6 address in brackets, whatever is no token in quotes."""
        node = f"[{address}]" if ":" in address else address or "unknown"
        pairs = (("for", node), ("host", host), ("proto", scheme))
        return ";".join(f"{key}={_quoted(value)}" for key, value in pairs if value)


def _quoted(value: str) -> str:
    return value if _PLAIN_NODE(value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
