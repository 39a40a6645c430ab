"""Upgraded connections: bytes both ways between the client's socket and the origin's, and an end to each of them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from proxymw.errors import ConfigError, RequestRefused
from proxymw.exchange.clientside import SERVERS, client_socket, early_bytes, gunicorn_worker, has_sent_on, server_slots
from proxymw.exchange.events import event_line, request_values
from proxymw.exchange.response import Response
from proxymw.rules.upgrades import WEBSOCKET, Upgrade, asked_upgrade, is_protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import WSGIEnvironment

    from proxymw.exchange.response import Head
    from proxymw.rules.headers import HeaderList

_log: Final = logging.getLogger("proxymw.upstream")

#: Tunnels of a process where the server does not tell how many requests it serves at once.
MOST_ELSEWHERE: Final = 32
#: Bytes read at once, and so held, in one direction. More than a TLS record: none is left half read.
PIECE: Final = 64 * 1024
#: Seconds of silence after which a tunnel ends of which one side has closed.
HALF_CLOSED: Final = 30.0
#: Seconds that a client may take to accept the 101.
HEAD_SECONDS: Final = 10.0
#: Seconds between looks at whether the server is stopping.
TICK: Final = 1.0


@dataclass(frozen=True, slots=True)
class Tunnels:
    """Which upgrades a rule lets through, and for how long.

    ``websocket``: WebSocket. ``upgrades``: other tokens of the Upgrade field, such as ``("tcp",)``; h2c is a
    ConfigError: what passes inside it would pass every rule by. ``idle``: seconds without a byte either way; ``total``:
    seconds from the 101 on, None: no end. ``most``: tunnels of this process, over all rules, beyond which this rule
    answers 503; None: half of the requests that the server's process takes at once. ``grace``: seconds that tunnels may
    go on when the server is stopping (gunicorn), at most its graceful timeout less one.
    """

    websocket: bool = True
    upgrades: tuple[str, ...] = ()
    idle: float = 3600.0
    total: float | None = None
    most: int | None = None
    grace: float = 5.0

    def __post_init__(self) -> None:
        if isinstance(self.upgrades, str) or not all(isinstance(t, str) and is_protocol(t) for t in self.upgrades):
            raise ConfigError(f"upgrades must be tokens of the Upgrade field, got {self.upgrades!r}")
        lower = tuple(token.lower() for token in self.upgrades)
        if "h2c" in lower or any(token.partition("/")[0] in ("http", "tls") for token in lower):
            raise ConfigError(f"upgrades must be other protocols than HTTP and TLS, got {self.upgrades!r}")
        object.__setattr__(self, "websocket", self.websocket or WEBSOCKET in lower)
        object.__setattr__(self, "upgrades", tuple(token for token in lower if token != WEBSOCKET))
        for name in ("idle", "total", "grace"):
            value = getattr(self, name)
            if value is None and name == "total":
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or value < 0
                or (not value and name != "grace")
            ):
                raise ConfigError(f"{name} must be a number of seconds, got {value!r}")
        if self.most is not None and (isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 0):
            raise ConfigError(f"most must be a number of tunnels, got {self.most!r}")

    def asked(self, environ: WSGIEnvironment) -> Upgrade | None:
        """The upgrade to ask an origin for; None: it is an ordinary request.

        Raises ``RequestRefused``: 501 on a server that does not show its socket, 503 when there are too many tunnels.
        """
        upgrade = asked_upgrade(environ, self.websocket, self.upgrades)
        if upgrade is None:
            return None
        if client_socket(environ) is None:
            raise TunnelRefused(501, "tunnel_without_socket", text=_NO_SOCKET)
        if _open.count() >= self.limit():
            raise _too_many()
        return upgrade

    def limit(self) -> int:
        """How many tunnels this process may hold."""
        if self.most is not None:
            return self.most
        worker = gunicorn_worker()
        return MOST_ELSEWHERE if worker is None else max(1, server_slots(worker) // 2)


_NO_SOCKET: Final = f"501 Not Implemented: this server cannot switch protocols; these can: {SERVERS}"


class TunnelRefused(RequestRefused):
    """There can be no tunnel here, or not now."""

    def __init__(self, status: int, event: str, headers: tuple[tuple[str, str], ...] = (), text: str = "") -> None:
        super().__init__(status, event, headers)
        self.text = text or None


def _too_many() -> TunnelRefused:
    return TunnelRefused(503, "too_many_tunnels", (("Retry-After", "1"),))


class Switched(Response):
    """A 101 that was asked for. ``sock`` is the connection from now on, ``rest`` what came on it behind the head."""

    __slots__ = ("_close", "rest", "sock", "upgrade")

    def __init__(
        self, head: Head, upgrade: Upgrade, conn: Any, rest: bytes, close: Callable[[], object], sent: int, line: int
    ) -> None:
        super().__init__(head.status, head.headers, None, head.dated, sent, line)
        self.upgrade = upgrade
        self.sock = conn.sock
        self.rest = rest
        self._close: Callable[[], object] | None = close

    def close(self) -> None:
        end, self._close = self._close, None
        if end is not None:
            end()


class _Open:
    """The tunnels of this process. A child starts with none."""

    def __init__(self) -> None:
        self._pid = 0
        self._count = 0
        self._lock = threading.Lock()

    def count(self) -> int:
        return self._count if self._pid == os.getpid() else 0

    def enter(self, most: int) -> bool:
        """Count one more, unless there are ``most``."""
        if self._pid != os.getpid():
            self._pid, self._count, self._lock = os.getpid(), 0, threading.Lock()
        with self._lock:
            if self._count >= most:
                return False
            self._count += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._count -= 1


_open: Final = _Open()


class Tunnel:
    """What the forwarder returns for a 101: iterating it sends the head and relays until both ends have closed.

    It yields nothing. The client's connection is shut down at the end, so that the head that the server still wants to
    send finds no one (EPIPE), which servers take for a client that has left: gunicorn's workers and werkzeug's server
    end such a request quietly, without a second answer, and close the connection.
    """

    def __init__(
        self,
        environ: WSGIEnvironment,
        response: Switched,
        headers: HeaderList,
        options: Tunnels,
        finish: Callable[[], object],
    ) -> None:
        if not _open.enter(options.limit()):
            raise _too_many()
        self._environ = environ
        self._client = client_socket(environ)
        self._response = response
        self._head = _head(headers, response.upgrade)
        self._options = options
        self._finish: Callable[[], object] | None = finish
        self._begun = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._begun:
            self._begun = True
            try:
                self._run()
            finally:
                self.close()
        raise StopIteration

    def _run(self) -> None:
        client, response = self._client, self._response
        began = time.monotonic()
        try:
            client.settimeout(HEAD_SECONDS)
            client.sendall(self._head)
        except OSError:
            return
        outcome = relay(
            client,
            response.sock,
            up=early_bytes(self._environ, take=True),
            down=response.rest,
            idle=self._options.idle,
            total=self._options.total,
            stopping=_Stop(self._options.grace).now,
        )
        response.sent += outcome.up
        response.received += outcome.down
        if _log.isEnabledFor(logging.INFO):
            values = request_values(self._environ)
            line = event_line(
                "tunnel_ended",
                **values,
                upstream=self._environ.get("proxymw.member"),
                why=outcome.why,
                up=outcome.up,
                down=outcome.down,
                seconds=time.monotonic() - began,
            )
            _log.info(line)

    def close(self) -> None:
        """End both connections and the lease, once."""
        finish, self._finish = self._finish, None
        if finish is None:
            return
        self._begun = True
        _open.leave()
        try:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)
        finally:
            finish()

    def __del__(self) -> None:
        if getattr(self, "_finish", None) is not None:
            self.close()


class NotSwitched:
    """The body of an ordinary answer to a request for an upgrade.

    A client that has sent on without waiting for the 101 meant what it sent for the other protocol: RFC 9931. It is not
    read as another request; the connection ends behind the answer.
    """

    def __init__(self, environ: WSGIEnvironment, body: Iterable[bytes]) -> None:
        self._environ = environ
        self._body = body
        self._pieces = iter(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            if has_sent_on(self._environ):
                raise ConnectionResetError(errno.ECONNRESET, "bytes of another protocol") from None
            raise

    def close(self) -> None:
        getattr(self._body, "close", lambda: None)()


def _head(headers: HeaderList, upgrade: Upgrade) -> bytes:
    """The 101 as the client gets it."""
    lines = ["HTTP/1.1 101 Switching Protocols", f"Upgrade: {upgrade.token}", "Connection: Upgrade"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() != "content-length"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class _Stop:
    """Whether the server is stopping and the grace is over."""

    def __init__(self, grace: float) -> None:
        self._worker = gunicorn_worker()
        self._deadline: float | None = None
        self._grace = grace
        if self._worker is not None:
            self._grace = max(0.0, min(grace, self._worker.cfg.graceful_timeout - 1))
        # A sync worker cannot tell its master that it lives while a request runs; a tunnel may well take longer.
        self._notify = getattr(self._worker, "notify", None) if _is_sync(self._worker) else None

    def now(self) -> bool:
        if self._worker is None:
            return False
        if self._notify is not None:
            self._notify()
        if self._worker.alive:
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace
        return time.monotonic() >= self._deadline


def _is_sync(worker: Any) -> bool:
    return worker is not None and hasattr(worker, "run_for_one")


class Outcome(NamedTuple):
    """Why a tunnel ended (``closed``, ``reset``, ``idle``, ``total``, ``stopped``), and the bytes each way."""

    why: str
    up: int
    down: int


class _Way:
    """One direction: what was read of ``source`` and not yet sent to ``sink``."""

    __slots__ = ("count", "ended", "over", "pending", "sink", "source")

    def __init__(self, source: Any, sink: Any, pending: bytes) -> None:
        self.source = source
        self.sink = sink
        self.pending = memoryview(pending)
        self.count = len(pending)
        #: The source has closed; what is pending may be on its way yet.
        self.ended = False
        #: Nothing more will come this way.
        self.over = False

    @property
    def reads(self) -> bool:
        return not self.ended and not self.pending and not self.over

    def read(self) -> bool:
        """Take a piece and send it on. False: there was none. Raises OSError when the source has broken."""
        try:
            data = self.source.recv(PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        if data:
            self.count += len(data)
            self.pending = memoryview(data)
        else:
            self.ended = True
        self.send()
        return True

    def send(self) -> bool:
        """Send what is pending, and then the source's end. False: the sink takes nothing now."""
        moved = False
        try:
            while self.pending:
                self.pending = self.pending[self.sink.send(self.pending) :]
                moved = True
            if self.ended and not self.over:
                self.over = True
                if not isinstance(self.sink, ssl.SSLSocket):
                    self.sink.shutdown(socket.SHUT_WR)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return moved
        except OSError:
            # It takes no more; what it has sent before may still be read.
            self.pending = memoryview(b"")
            self.ended = self.over = True
        return moved


def relay(
    client: Any,
    origin: Any,
    *,
    up: bytes = b"",
    down: bytes = b"",
    idle: float,
    total: float | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Pass bytes both ways until both sides have closed, one of them breaks, or a clock (seconds) runs out.

    ``up`` and ``down`` are bytes read already. A side that closes its half is half-closed on the other; TLS cannot be
    told so through this interface, there the end of one direction is the end of both. ``stopping`` is asked
    each second.
    """
    before = client.gettimeout(), origin.gettimeout()
    for sock in (client, origin):
        sock.settimeout(0.0)
        if sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    upward, downward = _Way(client, origin, up), _Way(origin, client, down)
    try:
        with selectors.DefaultSelector() as selector:
            why = _relay(selector, upward, downward, idle, total, stopping)
    finally:
        for sock, timeout in zip((client, origin), before, strict=True):
            sock.settimeout(timeout)
    return Outcome(why, upward.count, downward.count)


def _relay(
    selector: selectors.BaseSelector,
    upward: _Way,
    downward: _Way,
    idle: float,
    total: float | None,
    stopping: Callable[[], bool],
) -> str:
    ways = (upward, downward)
    secure = any(isinstance(way.sink, ssl.SSLSocket) for way in ways)
    watched: dict[int, int] = {}
    began = moved_at = time.monotonic()
    try:
        # What is in the sockets' own buffers makes no descriptor readable.
        for way in ways:
            way.send()
            way.read()
        while True:
            ended = upward.over + downward.over
            if ended == 2 or (ended and secure):
                return "closed"
            if stopping():
                return "stopped"
            now = time.monotonic()
            if now - moved_at >= (min(idle, HALF_CLOSED) if ended else idle):
                return "idle"
            if total is not None and now - began >= total:
                return "total"
            _watch(selector, watched, upward.source, reads=upward.reads, writes=bool(downward.pending))
            _watch(selector, watched, downward.source, reads=downward.reads, writes=bool(upward.pending))
            left = min(moved_at + idle, now + TICK if total is None else began + total) - now
            for key, mask in selector.select(max(0.0, min(left, TICK))):
                into, out_of = (downward, upward) if key.fileobj is upward.source else (upward, downward)
                if mask & selectors.EVENT_WRITE and into.send():
                    moved_at = time.monotonic()
                if mask & selectors.EVENT_READ and out_of.reads and out_of.read():
                    moved_at = time.monotonic()
    except OSError:
        return "reset"


def _watch(selector: selectors.BaseSelector, watched: dict[int, int], sock: Any, *, reads: bool, writes: bool) -> None:
    """Have the selector look at what matters of ``sock`` now."""
    mask = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)
    known = watched.get(id(sock), 0)
    if mask == known:
        return
    if not known:
        selector.register(sock, mask)
    elif mask:
        selector.modify(sock, mask)
    else:
        selector.unregister(sock)
    watched[id(sock)] = mask
