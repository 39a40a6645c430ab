"""Upgrade of HTTP/1.1 connections: what was asked, and whether a 101 is the answer to that. RFC 9110 7.8, RFC 6455."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .headers import connection_options, is_length

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

WEBSOCKET: Final = "websocket"

# RFC 9110 7.8: protocol-name ["/" protocol-version], both tokens.
is_protocol = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?").fullmatch
# RFC 6455 4.1: sixteen bytes in base64.
_is_key = re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The one protocol that an origin is asked to switch to. ``accept``: the Sec-WebSocket-Accept it must answer."""

    token: str
    accept: str = ""

    @property
    def fields(self) -> str:
        """The two fields that ask for it, each led by CRLF."""
        return f"\r\nConnection: Upgrade\r\nUpgrade: {self.token}"

    def doubt(self, head: bytes) -> str:
        """What is wrong with ``head``, a 101's status line and fields, as the answer to this; empty: nothing."""
        fields = [line.partition(b":")[::2] for line in head.split(b"\r\n")[1:]]
        found: dict[str, list[str]] = {}
        for name, value in fields:
            found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip(" \t"))
        if [token.lower() for token in found.get("upgrade", ())] != [self.token.lower()]:
            return "101 with another Upgrade than asked"
        if "upgrade" not in connection_options(",".join(found.get("connection", ()))):
            return "101 without Connection: Upgrade"
        if self.accept and found.get("sec-websocket-accept") != [self.accept]:
            return "101 with a wrong Sec-WebSocket-Accept"
        # RFC 9110 8.6, RFC 9112 6.1: neither belongs into a 1xx; what follows is the other protocol.
        if "transfer-encoding" in found or any(
            is_length(value) is None or int(value) for value in found.get("content-length", ())
        ):
            return "101 with a body"
        return ""


def asked_upgrade(environ: Mapping[str, Any], websocket: bool, others: Collection[str] = ()) -> Upgrade | None:
    """The upgrade that a request asks for and that is allowed: WebSocket, or one of ``others`` (lower case).

    None: the Upgrade field is to be ignored, as RFC 9110 7.8 lets every server do and as it must in HTTP/1.0. That
    holds for a WebSocket handshake that is not one (RFC 6455 4.1): another method than GET, a body, a bad key.
    """
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        return None
    if "upgrade" not in connection_options(environ.get("HTTP_CONNECTION", "")):
        return None
    for part in environ.get("HTTP_UPGRADE", "").split(","):
        token = part.strip(" \t")
        if token.lower() == WEBSOCKET:
            if websocket and _is_handshake(environ):
                return Upgrade(WEBSOCKET, websocket_accept(environ["HTTP_SEC_WEBSOCKET_KEY"]))
        elif token.lower() in others and is_protocol(token):
            return Upgrade(token)
    return None


def _is_handshake(environ: Mapping[str, Any]) -> bool:
    return (
        environ["REQUEST_METHOD"] == "GET"
        and environ.get("CONTENT_LENGTH", "") in ("", "0")
        and "HTTP_TRANSFER_ENCODING" not in environ
        and _is_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")) is not None
    )


def websocket_accept(key: str) -> str:
    """RFC 6455 4.2.2: what proves that a Sec-WebSocket-Key was understood."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode("latin-1"), usedforsecurity=False).digest()).decode()
