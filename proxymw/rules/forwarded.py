"""The fields by which a proxy tells an origin about the client: X-Forwarded-*, Forwarded, Via."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxymw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_PORT: Final = re.compile(r":([0-9]+)\Z").search
_PLAIN_NODE: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


class Forwarding:
    """The forwarding fields of one policy, as text for a request head: each line led by CRLF.

    The client's own are dropped, because it can write what it likes into them; with ``append_forwarded`` (Apache) those
    that the policy sends are appended to and the others pass. Via (RFC 9110 7.6.3) is appended to in either case.
    """

    __slots__ = ("_comment", "_templates", "append", "names", "pseudonym", "via")

    def __init__(self, policy: Policy) -> None:
        unknown = [name for name in policy.forwarded if name.lower() not in _KNOWN]
        if unknown:
            raise ConfigError(f"forwarded must be names of {', '.join(_KNOWN.values())}, got {unknown[0]!r}")
        self.names = tuple(_KNOWN[name.lower()] for name in policy.forwarded)
        self.append = policy.append_forwarded
        self.via = policy.via
        self.pseudonym = policy.server_name or "proxymw"
        if not _PLAIN_NODE(self.pseudonym.replace(":", "")):
            raise ConfigError(f"server_name must be a host name or another token, got {self.pseudonym!r}")
        self._comment = " (proxymw)" if policy.via == "full" else ""
        self._templates = self._fast_templates()

    @property
    def dropped(self) -> frozenset[str]:
        """Lower-case names of the client's fields that are not passed on as they came."""
        rewritten = frozenset(name.lower() for name in self.names)
        via = frozenset({"via"} if self.via != "off" else ())
        return rewritten | via if self.append else ASSERTED | via

    def lines(
        self,
        address: str,
        host: str,
        scheme: str,
        prefix: str = "",
        version: str = "1.1",
        *,
        via: str = "",
        sent: Mapping[str, str] | None = None,
    ) -> tuple[str, int]:
        """The lines to add for a request that was received as HTTP/``version``, and how many they are.

        ``via`` is the client's own Via; ``sent`` has its other fields of these names, read only when appending.
        """
        if self._templates and address and host and not via:
            template, count = self._templates[prefix != ""]
            return template.format(address, host, scheme, prefix, version), count
        values = {
            "X-Forwarded-For": address,
            "X-Forwarded-Host": host,
            "X-Forwarded-Proto": scheme,
            "X-Forwarded-Prefix": prefix,
            "X-Forwarded-Server": self.pseudonym,
        }
        fields = [(name, values.get(name) or self._unnamed(name, address, host, scheme)) for name in self.names]
        if self.append and sent:
            fields = [(name, _after(sent[name], value) if name in sent else value) for name, value in fields]
        fields.append(("Via", self.via_field(version, via, host)))
        lines = [f"\r\n{name}: {value}" for name, value in fields if value]
        return "".join(lines), len(lines)

    def via_field(self, version: str, before: str = "", host: str = "") -> str:
        """Via with ourselves at its end, for a message received as HTTP/``version``; empty where none is sent.

        ``host`` is the request's Host, whose port Apache takes for its own.
        """
        if self.via == "block" or self.via == "off":
            return ""
        mine = f"{version} {self.pseudonym}{self._port(host)}{self._comment}"
        return f"{before}, {mine}" if before else mine

    def _port(self, host: str) -> str:
        found = _PORT(host) if self.append else None
        return f":{found[1]}" if found and found[1] not in ("80", "443") else ""

    def loops(self, via: str) -> bool:
        """Whether a Via field shows that the message has been here twice or more. Only a name of our own counts."""
        received_by = (part.split()[1:2] for part in via.split(","))
        return self.via != "off" and sum(names == [self.pseudonym] for names in received_by) >= 2

    def _fast_templates(self) -> tuple[tuple[str, int], ...]:
        """The lines, and their number, for the usual request: without a prefix and with one. None where they vary."""
        if self.append or "Forwarded" in self.names:
            return ()
        spots = {"X-Forwarded-For": "{0}", "X-Forwarded-Host": "{1}", "X-Forwarded-Proto": "{2}"}
        spots |= {"X-Forwarded-Prefix": "{3}", "X-Forwarded-Server": _braced(self.pseudonym)}
        with_prefix = [f"\r\n{name}: {spots[name]}" for name in self.names]
        if self.via in ("on", "full"):
            with_prefix.append(f"\r\nVia: {{4}} {_braced(self.pseudonym + self._comment)}")
        without = [line for line in with_prefix if "{3}" not in line]
        return tuple(("".join(lines), len(lines)) for lines in (without, with_prefix))

    @staticmethod
    def _unnamed(name: str, address: str, host: str, scheme: str) -> str:
        """Forwarded, one element of RFC 7239: an IPv6 address in brackets, whatever is no token in quotes."""
        if name != "Forwarded":
            return ""
        node = f"[{address}]" if ":" in address else address or "unknown"
        pairs = (("for", node), ("host", host), ("proto", scheme))
        return ";".join(f"{key}={_quoted(value)}" for key, value in pairs if value)


def _after(before: str, value: str) -> str:
    return f"{before}, {value}" if value else before


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _quoted(value: str) -> str:
    return value if _PLAIN_NODE(value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
