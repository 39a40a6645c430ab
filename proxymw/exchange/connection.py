"""One connection to an origin: urllib3 opens and closes it, the bytes that cross it are ours."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.wait import wait_for_read, wait_for_socket

from proxymw.errors import (
    BodyTimeout,
    BodyTruncated,
    ClientAborted,
    ConnectionReset,
    FirstByteTimeout,
    ResponseMalformed,
    ResponseTooLarge,
    UpstreamError,
)
from proxymw.exchange.response import HEAD_MOST, INTERIM_MOST, READ_LEAST, Head, parse_head
from proxymw.rules.headers import HeaderList

if TYPE_CHECKING:
    from proxymw.exchange.request import BodyStream, Request
    from proxymw.rules.upgrades import Upgrade

#: Called with the status and fields of an interim response.
Interim: TypeAlias = Callable[[int, HeaderList], None]

_END_OF_HEAD: Final = b"\r\n\r\n"
#: Seconds of silence after which we look whether the client still waits.
_LOOK: Final = 0.75


class _Exchange(HTTPConnection):
    """What our two kinds of connection add to urllib3's: liveness, a writer and a strict reader.

    Raises ``UpstreamError`` once connected; what ``connect()`` raises is urllib3's and OpenSSL's.
    """

    #: Path of a Unix socket that takes the place of host and port.
    unix_path = ""
    #: Seconds that it may lie unused, and may grow old (so that a changed DNS answer is noticed).
    ttl = 4.0
    max_age = 300.0

    #: Requests sent so far.
    requests = 0
    _born = 0.0
    _parked = 0.0
    _clock: float | None = None
    _deadline: float | None = None
    _buffer = b""
    _interims = 0
    _poll: select.poll | None = None
    _gone: Callable[[], bool] | None = None
    _upgrade: Upgrade | None = None

    def __init__(self, *args: Any, unix_path: str = "", ttl: float = 4.0, max_age: float = 300.0, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.unix_path, self.ttl, self.max_age = unix_path, ttl, max_age

    def _new_conn(self) -> socket.socket:
        """A connected socket, as urllib3 makes it; or one to the Unix socket, with the same errors."""
        if not self.unix_path:
            return super()._new_conn()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.unix_path)
        except TimeoutError as error:
            sock.close()
            raise ConnectTimeoutError(self, "timed out") from error
        except OSError as error:
            sock.close()
            raise NewConnectionError(self, str(error)) from error
        return sock

    def connect(self) -> None:
        super().connect()
        self._born = self._parked = time.monotonic()
        self.requests = 0
        self._clock = -1.0
        # Kept, because to make one costs more than to ask it; where poll() is not the system's, as urllib3 does it.
        self._poll = select.poll() if isinstance(select.poll, BuiltinFunctionType) else None
        if self._poll is not None:
            self._poll.register(self.sock, select.POLLIN)
        if isinstance(self.sock, ssl.SSLSocket):
            # A body that ends with the connection must end it properly, or it was cut.
            self.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]

    @property
    def is_connected(self) -> bool:
        """Fit for another request. What an idle connection has to say is an end, or poison: readable means dead."""
        if self.sock is None:
            return False
        now = time.monotonic()
        if now - self._parked > self.ttl or now - self._born > self.max_age:
            return False
        return not self._readable()

    def _readable(self) -> bool:
        """Whether the socket has anything to say. Not by a peek: gevent's sockets would wait for one."""
        return bool(self._poll.poll(0)) if self._poll is not None else wait_for_read(self.sock, timeout=0.0)

    def park(self) -> None:
        """Note the time at which it was last used."""
        self._parked = time.monotonic()

    def send_request(self, head: bytes, request: Request, pause: float, total: float | None) -> tuple[int, bool]:
        """Send it all: how many bytes, and whether to the end, or an answer (or the origin's end) came before.

        ``pause`` seconds may pass without progress; ``total`` is a monotonic time.
        """
        self._deadline = total
        self._buffer = b""
        self._interims = 0
        self._gone, self._upgrade = request.gone, request.upgrade
        self.requests += 1
        if request.stream is not None:
            return self._send_stream(head, request.stream, pause)
        data = head + request.body if request.body else head
        try:
            self._wait(pause)
            self.sock.sendall(data)
        except TimeoutError:
            raise self._failed(BodyTimeout("the origin does not take the request")) from None
        except OSError as error:
            raise self._failed(ConnectionReset(str(error))) from error
        return len(data), True

    def _send_stream(self, head: bytes, stream: BodyStream, pause: float) -> tuple[int, bool]:
        sent, lead = 0, head
        for piece in stream:
            data = lead + piece if stream.length is not None else b"%b%x\r\n%b\r\n" % (lead, len(piece), piece)
            lead = b""
            count, whole = self._push(data, pause)
            sent += count
            if not whole:
                return sent, False
        count, whole = self._push(lead if stream.length is not None else lead + b"0\r\n\r\n", pause)
        return sent + count, whole

    def _push(self, data: bytes, pause: float) -> tuple[int, bool]:
        """Send, and stop as soon as the origin answers: it may not read on, and must not be fed for nothing."""
        view = memoryview(data)
        while view:
            try:
                self._wait(pause)
                if not wait_for_socket(self.sock, read=True, write=True, timeout=self._clock):
                    raise TimeoutError
                if self._answers_early():
                    return len(data) - len(view), False
                view = view[self.sock.send(view) :]
            except TimeoutError:
                raise self._failed(BodyTimeout("the origin does not take the request")) from None
            except OSError:
                # Gone; but its answer may be here already. read_head() tells.
                return len(data) - len(view), False
        return len(data), True

    def _answers_early(self) -> bool:
        """Whether something final is there to be read. TLS has records of its own, and 100 Continue is nothing."""
        if not self._readable():
            return False
        # Not MSG_DONTWAIT: gevent's sockets would wait all the same.
        self.sock.settimeout(0.0)
        try:
            data = self.sock.recv(READ_LEAST)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self.sock.settimeout(self._clock)
        self._buffer += data
        while (end := self._buffer.find(_END_OF_HEAD)) >= 0:
            head = parse_head(self._buffer[:end])
            if head.status >= 200:
                return True
            self._pass_interim(head, None)
            self._buffer = self._buffer[end + 4 :]
        return not data or (self._buffer != b"" and not self._buffer.startswith(b"HTTP/1.1 1"))

    def read_head(self, pause: float, interim: Interim | None, own: bool) -> tuple[Head, bytes, int]:
        """The final response's head, the bytes that came behind it, and the length of its status line.

        All of it, interim responses included, within ``pause`` seconds.
        """
        began = time.monotonic()
        buffer = self._buffer or self._receive_head(pause)
        while True:
            end = buffer.find(_END_OF_HEAD)
            while end < 0:
                _check_beginning(buffer)
                seen = len(buffer)
                buffer += self._receive_head(pause + began - time.monotonic())
                end = buffer.find(_END_OF_HEAD, seen - 3)
            if end > HEAD_MOST:
                raise self._failed(ResponseTooLarge(f"a head of more than {HEAD_MOST} bytes"))
            head = parse_head(buffer[:end], own)
            rest = buffer[end + 4 :]
            if head.status == 101 and self._upgrade is not None:
                if doubt := self._upgrade.doubt(buffer[:end]):
                    raise self._failed(ResponseMalformed(doubt))
                return head, rest, buffer.find(b"\r\n")
            if head.status >= 200:
                return head, rest, buffer.find(b"\r\n")
            self._pass_interim(head, interim)
            buffer = rest or self._receive_head(pause + began - time.monotonic())

    def _receive_head(self, seconds: float) -> bytes:
        if seconds <= 0:
            raise self._failed(FirstByteTimeout("no whole response head in time"))
        try:
            data = self._receive(READ_LEAST, seconds)
        except TimeoutError:
            raise self._failed(FirstByteTimeout("no whole response head in time")) from None
        except OSError as error:
            raise self._failed(ConnectionReset(str(error))) from error
        if not data:
            raise self._failed(ConnectionReset("closed before a whole response head"))
        self._buffer = data
        return data

    def _pass_interim(self, head: Head, interim: Interim | None) -> None:
        """RFC 9110 15.2: any number may come before the final one; a cap keeps it finite. We never asked for a 101."""
        self._interims += 1
        if head.status == 101 or self._interims > INTERIM_MOST:
            raise ResponseMalformed("101 without an Upgrade" if head.status == 101 else "too many interim responses")
        if interim is not None:
            interim(head.status, head.headers)

    def read_body(self, size: int, pause: float) -> bytes:
        """Up to ``size`` bytes as soon as any are there; ``b""`` when the origin has closed."""
        try:
            return self._receive(size, pause)
        except TimeoutError:
            raise BodyTimeout("the origin stopped sending") from None
        except OSError as error:
            raise BodyTruncated(str(error)) from error

    def _receive(self, size: int, seconds: float) -> bytes:
        """``recv``, for ``seconds`` at most; ``ClientAborted`` as soon as nobody waits for it any more."""
        gone, data = self._gone, b""
        while True:
            self._wait(seconds if gone is None or seconds <= _LOOK else _LOOK)
            try:
                data = self.sock.recv(size)
            except TimeoutError:
                if gone is not None and gone():
                    raise ClientAborted("the client has gone") from None
                seconds -= _LOOK
                if gone is None or seconds <= 0:
                    raise
                continue
            return data

    def _wait(self, seconds: float) -> None:
        """Let the next operation on the socket take so long, and not beyond the exchange's end."""
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
            if seconds <= 0:
                raise TimeoutError
        if seconds != self._clock:
            self.sock.settimeout(seconds)
            self._clock = seconds

    def _failed(self, error: UpstreamError) -> UpstreamError:
        """``error``, knowing what decides about another attempt."""
        error.answered = bool(self._buffer) or self._interims > 0
        error.reused = self.requests > 1
        return error


def _check_beginning(buffer: bytes) -> None:
    """Refuse at once what no more bytes can turn into a head."""
    if len(buffer) > HEAD_MOST:
        raise ResponseTooLarge(f"a head of more than {HEAD_MOST} bytes")
    if not buffer.startswith(b"HTTP/1."[: len(buffer)]) or buffer.count(b"\n") != buffer.count(b"\r\n"):
        if buffer.startswith(b"\x15\x03"):  # a TLS alert
            raise ResponseMalformed("TLS is spoken there: is it https://?")
        raise ResponseMalformed("not HTTP/1, or with a bare LF")


class PlainConnection(_Exchange):
    """A connection over TCP or a Unix socket."""


class SecureConnection(_Exchange, HTTPSConnection):
    """The same with TLS."""
