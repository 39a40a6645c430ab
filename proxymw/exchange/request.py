"""The request as an origin gets it: one head, byte for byte, and a body framed anew."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from proxymw.errors import ClientAborted, RequestRefused
from proxymw.rules.forwarded import Forwarding
from proxymw.rules.headers import HOP_BY_HOP, LEGAL, connection_options, is_token
from proxymw.rules.paths import quote_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import WSGIEnvironment

    from proxymw.rules.origins import Origin
    from proxymw.rules.policy import Policy
    from proxymw.rules.upgrades import Upgrade

#: Bodies up to this size are read before an origin is contacted, go out with the head and can be sent again.
SMALL_BODY: Final = 16 * 1024
#: A larger body is read in pieces that grow while the client keeps up.
PIECE_LEAST: Final = 64 * 1024
PIECE_MOST: Final = 1024 * 1024
#: Caps on a head that is sent: 431 beyond.
HEAD_MOST: Final = 64 * 1024
FIELDS_MOST: Final = 100

# What cannot be in a request-target: controls, blanks, the start of a fragment. 8-bit bytes are encoded instead.
_TARGET: Final = re.compile(r"/[!\"$-~]*").fullmatch
_EIGHT_BIT: Final = re.compile(r"[\x80-\xff]")
# Never passed on: what ends here, what is written anew, and Proxy, which CGI programs mistake for a setting.
_NEVER: Final = HOP_BY_HOP | {"host", "content-length", "content-type", "expect", "max-forwards", "proxy"}
_LAYOUTS_MOST: Final = 256
_KEEP_ALIVE: Final = frozenset({"keep-alive", "Keep-Alive", "close"})


class Request:
    """One request on its way: what every attempt sends, whichever origin it goes to.

    ``fields`` is the text of the head from behind the Host field, each line led by CRLF. ``body`` is a whole
    small body; a larger one is in ``stream``. ``gone`` tells whether the client has left, where that can be seen.
    ``wrote`` is told the bytes that went out, head and body, before the answer is waited for.
    """

    __slots__ = ("body", "fields", "gone", "host", "lines", "method", "stream", "target", "upgrade", "wrote")

    def __init__(
        self,
        method: str,
        target: str,
        fields: str = "",
        lines: int = 0,
        host: str | None = None,
        body: bytes = b"",
        stream: BodyStream | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.lines = lines
        self.host = host
        self.body = body
        self.stream = stream
        self.gone: Callable[[], bool] | None = None
        self.wrote: Callable[[int], None] | None = None
        self.upgrade: Upgrade | None = None

    def ask(self, upgrade: Upgrade) -> None:
        """Ask the origin to switch protocols. RFC 9110 7.8."""
        self.upgrade = upgrade
        self.fields += upgrade.fields
        self.lines += 2

    @property
    def replayable(self) -> bool:
        """Whether it can be sent again: all of its body is still at hand."""
        return self.stream is None or not self.stream.started

    def head(self, origin: Origin) -> bytes:
        """The bytes of the head for ``origin``. Raises ``RequestRefused``: 400 for what would break it, 431 by size."""
        text = (
            f"{self.method} {origin.base}{self.target} HTTP/1.1\r\nHost: {self.host or origin.authority}"
            f"{self.fields}\r\n\r\n"
        )
        try:
            data = text.encode("latin-1")
        except UnicodeEncodeError:
            raise RequestRefused(400, "bad_field_value") from None
        # RFC 9110 5.5: no CR, LF, NUL or other control in a value; the lines that we wrote are the only ones.
        if data.translate(None, LEGAL) != b"\r\n" * (self.lines + 3):
            raise RequestRefused(400, "bad_field_value")
        if len(data) > HEAD_MOST:
            raise RequestRefused(431, "request_head_too_large")
        return data


class BodyStream:
    """A request body that is read while it is sent. ``length`` None: sent in chunks, as its length is not known."""

    __slots__ = ("_cap", "_first", "_got", "_read", "length", "started")

    def __init__(
        self, read: Callable[[int], bytes], length: int | None, first: bytes = b"", cap: int | None = None
    ) -> None:
        self.length = length
        #: Whether any of it was given out: from then on it cannot be sent again.
        self.started = False
        self._read = read
        self._first = first
        self._got = len(first)
        self._cap = cap

    def start(self) -> bytes:
        """The piece that was read already. From here on the request cannot be sent again."""
        self.started = True
        first, self._first = self._first, b""
        return first

    def __iter__(self) -> Iterator[bytes]:
        """The pieces. ``ClientAborted`` when they end too early, ``RequestRefused`` (413) over the cap."""
        first = self.start()
        if first:
            yield first
        size = PIECE_LEAST
        while self.length is None or self._got < self.length:
            asked = size if self.length is None else min(size, self.length - self._got)
            began = time.monotonic()
            piece = self._read(asked)
            if not piece:
                break
            self._got += len(piece)
            if self._cap is not None and self._got > self._cap:
                raise RequestRefused(413, "body_too_large")
            yield piece
            # read(n) waits for n bytes: a slow client must not make the origin wait for a large piece.
            quick = len(piece) == asked and time.monotonic() - began < 0.05
            size = min(size * 2, PIECE_MOST) if quick else PIECE_LEAST
        if self.length is not None and self._got != self.length:
            raise ClientAborted("the client's body ended before its length")


def body_reader(environ: WSGIEnvironment, pause: float | None) -> Callable[[int], bytes]:
    """Reads the client's body. Whatever the server raises there, broken chunks or a reset, is ``ClientAborted``.

    Under gunicorn, whose threaded workers wait for ever, a silence of ``pause`` seconds is a ``RequestRefused`` (408).
    """
    source, sock = environ["wsgi.input"], cast("Any", environ.get("gunicorn.socket"))

    def read(size: int) -> bytes:
        try:
            data: bytes = source.read(size)
        except TimeoutError:
            raise RequestRefused(408, "client_body_timeout") from None
        except Exception as error:
            raise ClientAborted(str(error)) from error
        return data

    def timed(size: int) -> bytes:
        before = sock.gettimeout()
        sock.settimeout(pause)
        try:
            return read(size)
        finally:
            sock.settimeout(before)

    return read if sock is None or pause is None else timed


class _Layout(NamedTuple):
    """What the keys of an environ say, whatever their values: clients repeat themselves, so it is worked out once."""

    #: CRLF and the name of each field that is passed on, and the key that has its value.
    fields: tuple[tuple[str, str], ...]
    #: There is something that needs a closer look.
    special: bool


_SPECIAL: Final = frozenset({"CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_MAX_FORWARDS"})


class RequestWriter:
    """Makes requests for origins from WSGI environments, under one policy."""

    __slots__ = ("_dropped", "_keep_alive", "_layouts", "client_pause", "forwarding", "max_body")

    def __init__(self, policy: Policy, *, max_body: int | None = None, client_pause: float | None = None) -> None:
        self.forwarding = Forwarding(policy)
        self._keep_alive = policy.ask_keep_alive
        self.max_body = max_body
        self.client_pause = client_pause
        self._dropped = _NEVER | self.forwarding.dropped
        # Bounded: clients choose the names.
        self._layouts: dict[tuple[str, ...], _Layout] = {}

    def request(self, environ: WSGIEnvironment, target: str, *, host: str | None = None, prefix: str = "") -> Request:
        """The request for ``target``. Reads a small body. Raises ``RequestRefused`` or ``ClientAborted``."""
        if _TARGET(target) is None:
            target = _quoted(target)
        layout = self._layouts.get(tuple(environ)) or self._layout(environ)
        fields = [name + environ[key] for name, key in layout.fields]
        if environ.get("HTTP_CONNECTION", "close") not in _KEEP_ALIVE:
            fields = _without_listed(fields, environ["HTTP_CONNECTION"])
        body, stream, version = b"", None, environ["SERVER_PROTOCOL"][5:]
        if layout.special or version >= "2":
            body, stream = self._special(environ, fields)
        if self._keep_alive:
            fields.append("\r\nConnection: Keep-Alive")
        lines, count = self._forwarded(environ, prefix, version)
        fields.append(lines)
        method = environ["REQUEST_METHOD"]
        return Request(method, target, "".join(fields), len(fields) - 1 + count, host, body, stream)

    def _layout(self, environ: WSGIEnvironment) -> _Layout:
        """The layout of an environ with these keys. 400 for a bad name, 431 for too many."""
        fields = []
        for key in environ:
            name = key[5:].replace("_", "-") if key.startswith("HTTP_") else ""
            if name and not is_token(name):
                raise RequestRefused(400, "bad_field_name")
            if name and name.lower() not in self._dropped:
                fields.append((f"\r\n{name.title()}: ", key))
        if len(fields) > FIELDS_MOST:
            raise RequestRefused(431, "too_many_fields")
        layout = _Layout(tuple(fields), not _SPECIAL.isdisjoint(environ))
        if len(self._layouts) >= _LAYOUTS_MOST:
            self._layouts.clear()
        self._layouts[tuple(environ)] = layout
        return layout

    def _special(self, environ: WSGIEnvironment, fields: list[str]) -> tuple[bytes, BodyStream | None]:
        """Add the fields that are not passed on as they came, and give the body."""
        if environ.get("CONTENT_TYPE"):
            fields.append("\r\nContent-Type: " + environ["CONTENT_TYPE"])
        if "HTTP_MAX_FORWARDS" in environ:
            fields.append("\r\nMax-Forwards: " + _max_forwards(environ))
        if not (environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ or _open_ended(environ)):
            return b"", None
        body, stream, framing = self._body(environ)
        if framing:
            fields.append(framing)
        return body, stream

    def _forwarded(self, environ: WSGIEnvironment, prefix: str, version: str) -> tuple[str, int]:
        """What we say about the client, as lines, and their number."""
        sent = None
        if self.forwarding.append:
            keys = ((name, "HTTP_" + name.upper().replace("-", "_")) for name in self.forwarding.names)
            sent = {name: environ[key] for name, key in keys if key in environ}
        via = environ.get("HTTP_VIA", "")
        if via and self.forwarding.loops(via):
            raise RequestRefused(508, "forwarding_loop")
        if environ.get("SCRIPT_NAME"):
            prefix = quote_path(environ["SCRIPT_NAME"].rstrip("/")) + prefix
        return self.forwarding.lines(
            environ.get("REMOTE_ADDR", ""),
            environ.get("HTTP_HOST", ""),
            environ["wsgi.url_scheme"],
            prefix,
            version or "1.1",
            via=via,
            sent=sent,
        )

    def _body(self, environ: WSGIEnvironment) -> tuple[bytes, BodyStream | None, str]:
        """The body and the line that frames it, from a length or an end that the server sees (never both)."""
        read, cap = body_reader(environ, self.client_pause), self.max_body
        declared = environ.get("CONTENT_LENGTH")
        length = int(declared) if declared else None
        if length is not None and cap is not None and length > cap:
            raise RequestRefused(413, "body_too_large")
        wanted = SMALL_BODY + 1 if length is None else length if length <= SMALL_BODY else PIECE_LEAST
        body = _read_upto(read, wanted)
        if cap is not None and len(body) > cap:
            raise RequestRefused(413, "body_too_large")
        if length is None and len(body) <= SMALL_BODY:
            length = len(body)
            if not length and _open_ended(environ):
                return b"", None, ""
        if length is None:
            return b"", BodyStream(read, None, body, cap), "\r\nTransfer-Encoding: chunked"
        framing = f"\r\nContent-Length: {length}"
        if length > SMALL_BODY:
            return b"", BodyStream(read, length, body), framing
        if len(body) < length:
            raise ClientAborted("the client's body ended before its length")
        return body, None, framing


def _quoted(target: str) -> str:
    """A target with its 8-bit bytes encoded. 400 where it could end the request line or lose its tail."""
    quoted = _EIGHT_BIT.sub(lambda match: f"%{ord(match[0]):02X}", target)
    if _TARGET(quoted) is None:
        raise RequestRefused(400, "bad_target")
    return quoted


def _without_listed(fields: list[str], connection: str) -> list[str]:
    """RFC 9110 7.6.1: the fields that Connection lists go no further. Only the client's own: ours come later."""
    listed = tuple(f"\r\n{option.title()}: " for option in connection_options(connection))
    return [field for field in fields if not field.startswith(listed)]


def _read_upto(read: Callable[[int], bytes], size: int) -> bytes:
    """``size`` bytes, or fewer where the body ends first."""
    data = read(size) if size else b""
    while data and len(data) < size:
        more = read(size - len(data))
        if not more:
            break
        data += more
    return data


def _open_ended(environ: WSGIEnvironment) -> bool:
    """Whether a body may come without a length: HTTP/2 and later end it by themselves."""
    if environ["SERVER_PROTOCOL"][5:6] < "2" or "HTTP_TRANSFER_ENCODING" in environ:
        return False
    return bool(environ.get("wsgi.input_terminated"))


def _max_forwards(environ: WSGIEnvironment) -> str:
    """RFC 9110 7.6.2: one less for OPTIONS. The forwarder answers those that may go no further."""
    value: str = environ["HTTP_MAX_FORWARDS"]
    if environ["REQUEST_METHOD"] == "OPTIONS" and value.isascii() and value.isdigit():
        return str(max(0, int(value[:9]) - 1))
    return value
