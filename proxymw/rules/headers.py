"""Header fields as ordered pairs, and the rules of RFC 9110 and 9112 about them that need nothing but text."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

#: Names and values as latin-1 text, order and repeats kept.
HeaderList: TypeAlias = list[tuple[str, str]]

#: RFC 9110 7.6.1, with the older ones that travel the same way: fields that end at the next hop, lower case.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

#: What every byte of a head may be, its CRLFs aside: RFC 9110 5.5 refuses all other controls.
LEGAL: Final = bytes(b for b in range(256) if b == 9 or (b >= 32 and b != 127))

is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
#: RFC 9110 8.6, with a cap that no sign, blank, list or 64-bit overflow passes.
is_length = re.compile(r"[0-9]{1,18}").fullmatch

_PHRASES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_PHRASES[413], _PHRASES[414], _PHRASES[416] = "413 Content Too Large", "414 URI Too Long", "416 Range Not Satisfiable"
_CLASSES: Final = ("", "Informational", "Success", "Redirection", "Client Error", "Server Error")


def status_line(status: int) -> str:
    """``404 Not Found``: the code with a phrase of our own, never with one that came from elsewhere."""
    return _PHRASES.get(status) or f"{status} {_CLASSES[status // 100]}"


def connection_options(value: str) -> frozenset[str]:
    """What a Connection field lists, in lower case. RFC 9110 7.6.1."""
    return frozenset(option for part in value.split(",") if (option := part.strip(" \t").lower()))


def end_to_end(headers: HeaderList) -> HeaderList:
    """The fields that go past this hop: neither hop-by-hop nor listed in Connection. Framing cannot be listed away."""
    listed: Collection[str] = ()
    for name, value in headers:
        if name.lower() == "connection":
            listed = connection_options(value).union(listed)
    drop = HOP_BY_HOP.union(listed) - {"content-length"}
    return [pair for pair in headers if pair[0].lower() not in drop]


def header_value(headers: HeaderList, name: str) -> str | None:
    """The first value of ``name``, whatever its case."""
    name = name.lower()
    return next((value for key, value in headers if key.lower() == name), None)
