"""The answer of an origin, read strictly: 502 on doubt, because other people's browsers are behind us."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from proxymw.errors import BodyTruncated, ResponseMalformed, ResponseTooLarge
from proxymw.exchange.chunked import ChunkedDecoder
from proxymw.rules.headers import HOP_BY_HOP, LEGAL, HeaderList, connection_options, is_length, is_token
from proxymw.rules.reversing import TOUCHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Caps on a response head.
HEAD_MOST: Final = 64 * 1024
FIELDS_MOST: Final = 200
#: Interim responses before the final one.
INTERIM_MOST: Final = 8
#: How much of a body is taken from the socket at once; more when that much came.
READ_LEAST: Final = 64 * 1024
READ_MOST: Final = 256 * 1024

# RFC 9112 4: a status from 100 to 599, and a phrase that is not used.
_STATUS_LINE: Final = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?").fullmatch

# What a field is to us. PLAIN must be 0.
_PLAIN, _DROPPED, _CONNECTION, _CODING, _LENGTH, _DATE, _SERVER, _MAPPED = range(8)
_SPECIAL: Final = {
    **dict.fromkeys(TOUCHED, _MAPPED),
    **dict.fromkeys(HOP_BY_HOP, _DROPPED),
    # Orders for a front server, which must come from ours and not from an origin.
    "x-accel-redirect": _DROPPED,
    "x-accel-buffering": _DROPPED,
    "x-accel-charset": _DROPPED,
    "x-accel-expires": _DROPPED,
    "x-accel-limit-rate": _DROPPED,
    "x-lighttpd-send-file": _DROPPED,
    "x-lighttpd-send-tempfile": _DROPPED,
    "x-sendfile": _DROPPED,
    "x-reproxy-url": _DROPPED,
    "connection": _CONNECTION,
    "transfer-encoding": _CODING,
    "content-length": _LENGTH,
    "date": _DATE,
    "server": _SERVER,
}
# Names as received -> what they are, and status lines -> what they say. Bounded: origins choose them.
_kinds: dict[str, int] = {}
_status_lines: dict[str, tuple[int, bool]] = {}
_KINDS_MOST: Final = 4096
_STATUS_LINES_MOST: Final = 256


class Head(NamedTuple):
    """A parsed head. ``length`` None: no Content-Length. ``keep``: the origin keeps the connection.

    ``dated``: there is a Date, passed on or not. ``mapped``: there is something for a reverse map to look at.
    """

    status: int
    headers: HeaderList
    length: int | None
    chunked: bool
    keep: bool
    dated: bool
    mapped: bool


def parse_head(head: bytes, own: bool = True) -> Head:
    """The status line and fields of ``head`` (without its last empty line), with hop-by-hop fields removed.

    ``own`` False leaves out the origin's Date and Server, for a server that replaces them. Raises ``ResponseMalformed``
    where RFC 9112 leaves doubt: controls, a bare CR or LF, folding, a bad name, a second or odd length, a coding other
    than exactly ``chunked``, both framings at once.
    """
    if len(head) > _REMEMBERED_MOST or b"ookie" in head:
        return _parse(head, own)
    status, headers, length, chunked, keep, dated, mapped = _remembered(head, own)
    return Head(status, headers.copy(), length, chunked, keep, dated, mapped)


def _parse(head: bytes, own: bool) -> Head:
    lines = head.decode("latin-1").split("\r\n")
    if head.translate(None, LEGAL) != b"\r\n" * (len(lines) - 1):
        raise ResponseMalformed("control character or bare line end in the head")
    if len(lines) > FIELDS_MOST + 1:
        raise ResponseTooLarge(f"more than {FIELDS_MOST} fields")
    known = _status_lines.get(lines[0])
    status, keep = known if known is not None else _parse_status_line(lines[0])
    del lines[0]
    headers: HeaderList = []
    length: int | None = None
    chunked = dated = mapped = False
    connection = ""
    kinds = _kinds
    for line in lines:
        name, colon, value = line.partition(":")
        kind = kinds.get(name)
        if kind is None:
            kind = _kind(name)
        if not colon:
            raise ResponseMalformed("field without a colon")
        value = value.strip(" \t")
        if kind:
            if kind == _LENGTH:
                if length is not None or not is_length(value):
                    raise ResponseMalformed("bad or second Content-Length")
                length = int(value)
                value = str(length)
            elif kind == _CONNECTION:
                if value.lower() != "keep-alive" or not keep:
                    connection += "," + value
                continue
            elif kind == _CODING:
                if chunked or value.lower() != "chunked":
                    raise ResponseMalformed("bad or second Transfer-Encoding")
                chunked = True
                continue
            elif kind == _DROPPED:
                continue
            elif kind == _MAPPED:
                mapped = True
            else:
                dated = dated or kind == _DATE
                if not own:
                    continue
        headers.append((name, value))
    if chunked and (length is not None or not keep):
        # RFC 9112 6.1: with a length it is an attack or a fault, and HTTP/1.0 has no chunks.
        raise ResponseMalformed("Transfer-Encoding with Content-Length, or in HTTP/1.0")
    if connection or not keep:
        keep, headers = _connection(connection, keep, headers)
    return Head(status, headers, length, chunked, keep, dated, mapped)


# Origins repeat themselves, to the byte within a second. Long heads and secrets are not remembered.
_REMEMBERED_MOST: Final = 1024
_remembered = lru_cache(maxsize=256)(_parse)


def _parse_status_line(line: str) -> tuple[int, bool]:
    """The status, and whether the version keeps connections unless told otherwise."""
    match = _STATUS_LINE(line)
    if match is None:
        raise ResponseMalformed("bad status line")
    known = int(match[2]), match[1] == "1"
    if len(line) < 64 and len(_status_lines) < _STATUS_LINES_MOST:
        _status_lines[line] = known
    return known


def _kind(name: str) -> int:
    if not is_token(name):
        raise ResponseMalformed("bad field name")
    kind = _SPECIAL.get(name.lower(), _PLAIN)
    if len(_kinds) < _KINDS_MOST:
        _kinds[name] = kind
    return kind


def _connection(value: str, persistent: bool, headers: HeaderList) -> tuple[bool, HeaderList]:
    """Whether the connection is kept, and the headers without those that Connection lists. Framing cannot be listed."""
    options = connection_options(value)
    keep = "close" not in options and (persistent or "keep-alive" in options)
    listed = options - {"close", "keep-alive", "content-length"}
    if listed:
        headers = [pair for pair in headers if pair[0].lower() not in listed]
    return keep, headers


class Response:
    """A final response, whole: ``body`` is all of it.

    ``dated``: the origin sent a Date. ``mapped``: a reverse map may have something to do. ``sent`` and ``received``
    count bytes: of the request with its head, and of the status line and the body.
    """

    __slots__ = ("body", "dated", "headers", "mapped", "received", "sent", "status")

    body: bytes | None

    def __init__(
        self,
        status: int,
        headers: HeaderList,
        body: bytes | None = b"",
        dated: bool = True,
        sent: int = 0,
        received: int = 0,
        mapped: bool = True,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.dated = dated
        self.mapped = mapped
        self.sent = sent
        self.received = received

    def __iter__(self) -> Iterator[bytes]:
        yield self.body or b""

    def close(self) -> None:
        """End the response; safe to call twice."""


class StreamedResponse(Response):
    """A response whose body is still on its way: ``body`` is None, and iterating reads it, once.

    The first piece is what came with the head, or empty, so that the server can send the head at once. Iterating raises
    an ``UpstreamError`` where the body breaks off. ``close()`` gives the connection back if, and only if, everything
    was read and nothing but it.
    """

    __slots__ = ("_close", "_framing", "_read")

    def __init__(
        self,
        status: int,
        headers: HeaderList,
        framing: Framing,
        read: Callable[[int], bytes],
        close: Callable[[bool], None],
        *,
        dated: bool = True,
        sent: int = 0,
        received: int = 0,
        mapped: bool = True,
    ) -> None:
        super().__init__(status, headers, None, dated, sent, received, mapped)
        self._framing = framing
        self._read = read
        self._close: Callable[[bool], None] | None = close

    def __iter__(self) -> Iterator[bytes]:
        framing = self._framing
        piece, framing.at_hand = framing.at_hand, b""
        self.received += len(piece)
        yield piece
        size = READ_LEAST
        while not framing.done:
            data = self._read(size)
            if len(data) == size and size < READ_MOST:
                size *= 2
            piece = framing.feed(data)
            if framing.done:
                # The client may be slow to take the last piece; the connection need not wait for it.
                self.close()
            if piece:
                self.received += len(piece)
                yield piece

    def close(self) -> None:
        end, self._close = self._close, None
        if end is not None:
            end(self._framing.clean)


class Framing:
    """Where a body ends. ``feed`` takes what the socket gave and returns what belongs to the body; ``b""`` is its end.

    ``clean``: all of it came, and nothing behind it.
    """

    __slots__ = ("at_hand", "clean", "done")

    def __init__(self) -> None:
        #: The part of the body that came with the head.
        self.at_hand = b""
        self.done = False
        self.clean = False

    def feed(self, data: bytes) -> bytes:
        raise NotImplementedError


class LengthFraming(Framing):
    """RFC 9112 6.3, rule 6: so many bytes, and no fewer."""

    __slots__ = ("_left",)

    def __init__(self, length: int, rest: bytes) -> None:
        super().__init__()
        self._left = length
        self.at_hand = self.feed(rest) if rest or not length else b""

    def feed(self, data: bytes) -> bytes:
        if not data and self._left:
            raise BodyTruncated("the body ended before its length")
        left = self._left - len(data)
        if left <= 0:
            self.done, self.clean = True, left == 0
            data, left = data[: self._left], 0
        self._left = left
        return data


class ChunkedFraming(Framing):
    """RFC 9112 6.3, rule 4."""

    __slots__ = ("_decoder",)

    def __init__(self, rest: bytes) -> None:
        super().__init__()
        self._decoder = ChunkedDecoder()
        self.at_hand = self.feed(rest) if rest else b""

    def feed(self, data: bytes) -> bytes:
        if not data:
            raise BodyTruncated("the body ended before its last chunk")
        piece = self._decoder.feed(data)
        if self._decoder.done:
            self.done, self.clean = True, not self._decoder.rest
        return piece


class CloseFraming(Framing):
    """RFC 9112 6.3, rule 8: until the origin closes. Such a connection is never kept."""

    __slots__ = ()

    def __init__(self, rest: bytes) -> None:
        super().__init__()
        self.at_hand = rest

    def feed(self, data: bytes) -> bytes:
        self.done = not data
        return data
