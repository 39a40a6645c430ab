"""Connections to origins: urllib3 pools, opens and secures them; its errors become ours here and only here."""

from __future__ import annotations

import errno
import logging
import os
import queue
import ssl
import threading
import time
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import urllib3.exceptions as foreign
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

from proxymw.errors import (
    ConfigError,
    ConnectRefused,
    ConnectTimeout,
    NameUnresolved,
    OutOfFiles,
    PoolExhausted,
    TLSRefused,
    UpstreamError,
)
from proxymw.exchange.connection import Interim, PlainConnection, SecureConnection
from proxymw.exchange.limits import Limits
from proxymw.exchange.response import (
    ChunkedFraming,
    CloseFraming,
    Framing,
    Head,
    LengthFraming,
    Response,
    StreamedResponse,
)
from proxymw.exchange.tunnel import Switched

if TYPE_CHECKING:
    from proxymw.exchange.request import Request
    from proxymw.rules.origins import Origin

_log: Final = logging.getLogger("proxymw.upstream")
_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


_TLS_ADVICE: Final = {
    "WRONG_VERSION_NUMBER": "no TLS is spoken there: is it http://, or another port?",
    "RECORD_LAYER_FAILURE": "no TLS is spoken there: is it http://, or another port?",
    "mismatch": "the certificate is for another name: say Transport(server_hostname=...)",
    "not valid for": "the certificate is for another name: say Transport(server_hostname=...)",
    "unable to get": "its authority is not known: say Transport(ca=...)",
    "self-signed": "its authority is not known: say Transport(ca=...)",
    "self signed": "its authority is not known: say Transport(ca=...)",
    "expired": "the certificate has expired",
}


class Sender(Protocol):
    """What the forwarder needs of a transport. A scripted one can stand in for tests."""

    def send(
        self,
        origin: Origin,
        request: Request,
        limits: Limits | None = None,
        *,
        interim: Interim | None = None,
        own: bool = True,
    ) -> Response:
        """Send ``request`` and read the head of the answer. Raises ``UpstreamError`` or ``RequestRefused``.

        ``own`` False leaves out the origin's Date and Server fields.
        """


class _Free:
    """The unused connections of a pool without a limit, last in, first out. What urllib3 asks of a queue."""

    def __init__(self, maxsize: int) -> None:
        # A deque's own methods are atomic; a Queue with its three conditions costs more than the request's bytes.
        self._free: deque[Any] = deque()
        self._maxsize = maxsize

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self._free.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, conn: Any, block: bool = True, timeout: float | None = None) -> None:
        if conn is None:
            return
        if len(self._free) >= self._maxsize:
            raise queue.Full
        self._free.append(conn)

    def qsize(self) -> int:
        return len(self._free)


class _PoolMixin(HTTPConnectionPool):
    """A urllib3 pool that makes as many connections as are needed and keeps ``maxsize`` of them, quietly."""

    QueueCls: Any = _Free

    def _put_conn(self, conn: Any) -> None:
        try:
            self.pool.put(conn, block=False)  # type: ignore[union-attr]
        except (AttributeError, queue.Full):
            # More were open than are kept, or the pool was closed meanwhile.
            conn.close()


class _PlainPool(_PoolMixin):
    ConnectionCls = PlainConnection


class _SecurePool(_PoolMixin, HTTPSConnectionPool):
    ConnectionCls = SecureConnection


class _LimitedPlainPool(_PlainPool):
    """With urllib3's own queue ``maxsize`` is a limit, for which requests wait."""

    QueueCls = queue.LifoQueue


class _LimitedSecurePool(_SecurePool):
    QueueCls = queue.LifoQueue


_POOLS: Final[dict[tuple[str, bool], Any]] = {
    ("http", False): _PlainPool,
    ("http", True): _LimitedPlainPool,
    ("https", False): _SecurePool,
    ("https", True): _LimitedSecurePool,
}


class Transport:
    """The connections of this process to its origins, shared by all that forward; safe across threads and forks.

    ``connect``, ``first_byte``, ``between_bytes``, ``total``: seconds, see ``Limits``; a rule or a member may say
    otherwise. ``size``: unused connections kept for each origin. ``ttl``: seconds that one is kept unused, less than
    origins keep theirs; ``max_age``: seconds after which it is not used again, so that a new DNS answer takes effect.

    TLS is verified against the system's authorities or those in the file ``ca``, for the name in the URL, or for
    ``server_hostname`` (sent as SNI). ``certificate`` is the path of our own, its key in the same file or in ``key``.
    ``minimum_tls``: ``"1.2"`` or ``"1.3"``. ``verify=False`` accepts anyone, and says so in the log.
    """

    _live: ClassVar[weakref.WeakSet[Transport]] = weakref.WeakSet()

    def __init__(
        self,
        *,
        connect: float = 5.0,
        first_byte: float = 60.0,
        between_bytes: float = 60.0,
        total: float | None = None,
        size: int = 32,
        acquire: float = 1.0,
        ttl: float = 4.0,
        max_age: float = 300.0,
        ca: str | None = None,
        verify: bool = True,
        certificate: str | None = None,
        key: str | None = None,
        server_hostname: str | None = None,
        minimum_tls: str = "1.2",
    ) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(f"size must be a number of connections, 1 or more, got {size!r}")
        if minimum_tls not in ("1.2", "1.3"):
            raise ConfigError(f"minimum_tls must be '1.2' or '1.3', got {minimum_tls!r}")
        for name, value in (("connect", connect), ("first_byte", first_byte), ("between_bytes", between_bytes)):
            if value is None:
                raise ConfigError(f"{name} must be a number of seconds, got None")
        self.limits = Limits(connect, first_byte, between_bytes, total, None, acquire, ttl)
        self.size = size
        self.max_age = max_age
        self._tls = (ca, verify, certificate, key, minimum_tls)
        self._server_hostname = server_hostname
        for name, path in (("ca", ca), ("certificate", certificate), ("key", key)):
            if path is not None and not os.path.isfile(path):
                raise ConfigError(f"{name} must be an existing PEM file, got {path!r}")
        if not verify:
            _log.warning("event=tls_unverified: certificates of origins are not checked")
        self._start()
        _at_fork(self)

    def __repr__(self) -> str:
        pools = ", ".join(sorted(str(key[0] if isinstance(key, tuple) else key) for key in self._pools))
        return f"<Transport to {pools or 'no origin yet'}>"

    def _start(self) -> None:
        """Begin with no connections, here or in a child process: sockets must not be shared."""
        self._pools: dict[object, HTTPConnectionPool] = {}
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def send(
        self,
        origin: Origin,
        request: Request,
        limits: Limits | None = None,
        *,
        interim: Interim | None = None,
        own: bool = True,
    ) -> Response:
        """Send ``request`` over a connection that is free, or a new one. See ``Sender.send``."""
        head = request.head(origin)
        if limits is None:
            limits = self.limits
            pool = self._pools.get(origin.url) or self._pool(origin.url, origin, limits)
        else:
            limits = limits.over(self.limits)
            key = (origin.url, limits.max, limits.ttl)
            pool = self._pools.get(key) or self._pool(key, origin, limits)
        total = time.monotonic() + limits.total if limits.total is not None else None
        conn = self._checkout(pool, limits)
        try:
            if conn.sock is None:
                self._connect(conn, limits)
            assert limits.between_bytes is not None
            sent, whole = conn.send_request(head, request, limits.first_byte, total)
            if request.wrote is not None:
                request.wrote(sent)
            answer, rest, line = conn.read_head(limits.first_byte, interim, own)
            if request.method == "HEAD" or answer.status == 204 or answer.status == 304:
                answer = _without_body(answer)
            if answer.status == 101 and request.upgrade is not None:
                return Switched(
                    answer, request.upgrade, conn, rest, partial(_give_back, pool, conn, False, False), sent, line
                )
            if not whole:
                # What is left of the request would be read as the next one.
                answer = answer._replace(keep=False)
            return _response(pool, conn, answer, rest, limits.between_bytes, sent, line)
        except BaseException:
            # Including the end of a greenlet or a worker: half an exchange is never pooled.
            conn.close()
            pool._put_conn(conn)
            raise

    def _checkout(self, pool: HTTPConnectionPool, limits: Limits) -> Any:
        try:
            return pool._get_conn(limits.acquire)
        except foreign.EmptyPoolError as error:
            raise PoolExhausted(f"all {limits.max} connections are in use") from error
        except foreign.ClosedPoolError as error:
            raise PoolExhausted("the transport is closed") from error

    def _connect(self, conn: Any, limits: Limits) -> None:
        """Connect, and say what went wrong. urllib3's refusal is a timeout by class, so the order matters."""
        conn.timeout = limits.connect
        try:
            conn.connect()
        except foreign.NameResolutionError as error:
            raise NameUnresolved(str(error.__cause__)) from error
        except foreign.NewConnectionError as error:
            raise _not_connected(error.__cause__) from error
        except foreign.ConnectTimeoutError as error:
            raise ConnectTimeout(f"not connected within {limits.connect} s") from error
        except TimeoutError as error:
            raise ConnectTimeout("the TLS handshake took too long") from error
        except (ssl.SSLError, ssl.CertificateError, foreign.SSLError) as error:
            raise TLSRefused(_advised(str(error))) from error
        except OSError as error:
            # The origin hung up during the handshake, or a file descriptor was missing.
            raise OutOfFiles(str(error)) if error.errno in _OUT_OF_FILES else TLSRefused(str(error)) from error
        except (foreign.LocationParseError, UnicodeError) as error:
            raise NameUnresolved(str(error)) from error

    def _pool(self, key: object, origin: Origin, limits: Limits) -> HTTPConnectionPool:
        """The pool of an origin, made when it is first needed."""
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(origin, limits)
            return self._pools[key]

    def _new_pool(self, origin: Origin, limits: Limits) -> HTTPConnectionPool:
        options: dict[str, Any] = {
            "maxsize": limits.max or self.size,
            "block": limits.max is not None,
            "unix_path": origin.socket,
            "ttl": limits.ttl,
            "max_age": self.max_age,
        }
        if origin.scheme == "https":
            options |= {"ssl_context": self._tls_context(), "server_hostname": self._server_hostname}
        pool: HTTPConnectionPool = _POOLS[origin.scheme, limits.max is not None](origin.host, origin.port, **options)
        return pool

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            ca, verify, certificate, key, minimum = self._tls
            context = ssl.create_default_context(cafile=ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_3 if minimum == "1.3" else ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
            if not verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if certificate:
                context.load_cert_chain(certificate, key)
            self._context = context
        return self._context

    def close(self) -> None:
        """Close the unused connections; those in use close as they end. It may be used again."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()


def _not_connected(cause: BaseException | None) -> UpstreamError:
    """Why there is no connection: files ran out here, nobody answered there, or nobody listens."""
    code = getattr(cause, "errno", None)
    if code in _OUT_OF_FILES:
        return OutOfFiles(str(cause))
    if code == errno.ETIMEDOUT or isinstance(cause, TimeoutError):
        return ConnectTimeout(str(cause))
    return ConnectRefused(str(cause))


def _whole_response(
    pool: HTTPConnectionPool, conn: Any, head: Head, body: bytes, clean: bool, sent: int, line: int
) -> Response:
    """A response of which nothing is missing; its connection is given back before anyone hears of it."""
    _give_back(pool, conn, head.keep, clean)
    return Response(head.status, head.headers, body, head.dated, sent, line + len(body), head.mapped)


def _response(
    pool: HTTPConnectionPool, conn: Any, head: Head, rest: bytes, pause: float, sent: int, line: int
) -> Response:
    """A response by the rules of RFC 9112 6.3, ``rest`` being what came with the head."""
    framing: Framing
    if head.chunked:
        framing = ChunkedFraming(rest)
        if framing.done:
            # The length is known after all.
            head.headers.append(("Content-Length", str(len(framing.at_hand))))
            return _whole_response(pool, conn, head, framing.at_hand, framing.clean, sent, line)
    elif head.length is not None:
        if len(rest) >= head.length:
            # Bytes behind the end belong to nobody.
            clean = len(rest) == head.length
            return _whole_response(pool, conn, head, rest[: head.length], clean, sent, line)
        framing = LengthFraming(head.length, rest)
    else:
        framing = CloseFraming(rest)
    return StreamedResponse(
        head.status,
        head.headers,
        framing,
        partial(conn.read_body, pause=pause),
        partial(_give_back, pool, conn, head.keep),
        dated=head.dated,
        sent=sent,
        received=line,
        mapped=head.mapped,
    )


def _advised(problem: str) -> str:
    """A TLS failure with what to do about it."""
    for sign, advice in _TLS_ADVICE.items():
        if sign in problem:
            return f"{advice} ({problem})"
    return problem


def _without_body(head: Head) -> Head:
    """RFC 9112 6.3, rule 1: what ends with its head, whatever that says of a length. RFC 9110 8.6: none in a 204."""
    headers = head.headers
    if head.status == 204:
        headers = [pair for pair in headers if pair[0].lower() != "content-length"]
    return head._replace(headers=headers, length=0, chunked=False)


def _give_back(pool: HTTPConnectionPool, conn: Any, keep: bool, clean: bool) -> None:
    """End a connection's exchange: back to the pool only if it is provably clean."""
    if keep and clean:
        conn.park()
    else:
        conn.close()
    pool._put_conn(conn)


_default: Sender | None = None
_default_lock = threading.Lock()
_fork_hook_set = False


def default_transport() -> Sender:
    """The transport that is used where none is given: one for the process, made on first use."""
    global _default
    found = _default
    if found is None:
        with _default_lock:
            found = _default = _default or Transport()
    return found


def replace_default(transport: Sender | None) -> Sender | None:
    """Let ``transport`` stand where none is given (None: one that is made on next use); gives what stood there."""
    global _default
    with _default_lock:
        before, _default = _default, transport
    return before


def _at_fork(transport: Transport) -> None:
    """See to it that a child process gets connections of its own."""
    global _fork_hook_set
    with _register_lock:
        Transport._live.add(transport)
        if not _fork_hook_set:
            os.register_at_fork(after_in_child=_after_fork)
            _fork_hook_set = True


_register_lock = threading.Lock()


def _after_fork() -> None:
    global _default_lock, _register_lock
    _default_lock, _register_lock = threading.Lock(), threading.Lock()
    for transport in list(Transport._live):
        transport._start()
