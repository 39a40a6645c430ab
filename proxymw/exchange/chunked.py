"""The chunked transfer coding of RFC 9112 7.1, decoded strictly and without a socket."""

from __future__ import annotations

import re
from typing import Final

from proxymw.errors import ResponseMalformed

#: Most bytes of one chunk-size line with its extensions, and of all trailers.
LINE_MOST: Final = 1024
TRAILERS_MOST: Final = 8192

# chunk-size [ chunk-ext ]: no sign, no 0x, no underscore, no blank before it. 16 digits are 64 bits.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?").fullmatch
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*").fullmatch


class ChunkedDecoder:
    """Give it bytes as they come, take the data out of them. Extensions and trailers end here.

    ``done`` after the last chunk and its trailers; ``rest`` then holds whatever came behind them. ``ResponseMalformed``
    at the first byte that is in doubt; nothing more can be decoded then.
    """

    __slots__ = ("_left", "_trailers", "done", "rest")

    def __init__(self) -> None:
        self.done = False
        #: What could not be decoded yet: the beginning of a line.
        self.rest = b""
        #: Bytes missing of the current chunk, its CRLF included; 0 between chunks.
        self._left = 0
        #: Bytes of trailers so far; -1 before the last chunk.
        self._trailers = -1

    def feed(self, data: bytes) -> bytes:
        """The data of all chunks in ``data``, whole or in part, joined."""
        if self.rest:
            data, self.rest = self.rest + data, b""
        out: list[bytes] = []
        at, end = 0, len(data)
        while at < end and not self.done:
            if self._left:
                at = self._take(data, at, out)
                continue
            line_end = data.find(b"\r\n", at, at + LINE_MOST + 2)
            if line_end < 0:
                if end - at > LINE_MOST or b"\n" in data[at:]:
                    raise ResponseMalformed("chunk line or trailer too long, or with a bare LF")
                break
            self._line(data[at:line_end])
            at = line_end + 2
        self.rest = data[at:]
        return b"".join(out) if len(out) != 1 else out[0]

    def _take(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Move on through the current chunk and the CRLF at its end."""
        left, end = self._left, len(data)
        if left > 2:
            stop = min(at + left - 2, end)
            out.append(data[at:stop] if at or stop < end else data)
            left -= stop - at
            at = stop
        while left <= 2 and left and at < end:
            if data[at] != (13, 10)[2 - left]:
                raise ResponseMalformed("chunk does not end where its size says")
            left -= 1
            at += 1
        self._left = left
        return at

    def _line(self, line: bytes) -> None:
        """A whole line: a chunk's size, or a trailer, or the empty one that ends it all."""
        if self._trailers < 0:
            match = _SIZE_LINE(line)
            if match is None:
                raise ResponseMalformed("bad chunk size")
            size = int(match[1], 16)
            if size:
                self._left = size + 2
            else:
                self._trailers = 0
        elif line:
            self._trailers += len(line) + 2
            if self._trailers > TRAILERS_MOST or not _TRAILER(line):
                raise ResponseMalformed("bad or too many trailers")
        else:
            self.done = True
