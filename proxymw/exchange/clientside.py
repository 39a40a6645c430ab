"""What a server shows of the client's connection, and of itself, beyond WSGI. Any of it may be missing."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import ssl
import struct
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIEnvironment

#: Servers that show the client's socket, as told to who asks in vain.
SERVERS: Final = "gunicorn's gthread, gevent and sync workers and werkzeug's development server"

_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)
# Linux's include/net/tcp_states.h: the peer has sent FIN, or the connection is no more.
_GONE: Final = frozenset({4, 5, 6, 7, 8, 9, 11})


def client_socket(environ: WSGIEnvironment) -> Any:
    """The client's socket, or None where the server does not show it or speaks something else than HTTP/1 on it."""
    sock: Any = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if sock is None or environ.get("SERVER_PROTOCOL", "HTTP/1.1")[5:6] > "1":
        return None
    worker = gunicorn_worker()
    if worker is not None and getattr(worker.cfg, "protocol", "http") != "http":
        return None
    return sock


def client_watch(environ: WSGIEnvironment) -> Callable[[], bool] | None:
    """Tells whether the client has gone, without waiting; None where the server does not let us see it.

    A client that has closed its sending side counts as gone, as it does for other proxies.
    """
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if sock is not None:
        return partial(has_ended, sock)
    # waitress has it where it looks ahead (channel_request_lookahead).
    told: Callable[[], bool] | None = environ.get("waitress.client_disconnected")
    if told is None and "uwsgi" in sys.modules and "uwsgi.version" in environ:
        return _uwsgi_watch(sys.modules["uwsgi"])
    return told


def _uwsgi_watch(uwsgi: Any) -> Callable[[], bool] | None:
    """uWSGI has the descriptor of the client's connection. It stays uWSGI's."""
    try:
        number = int(uwsgi.connection_fd())
    except (AttributeError, OSError, ValueError):
        return None

    def gone() -> bool:
        sock = socket.socket(fileno=number)
        try:
            return has_ended(sock)
        finally:
            sock.detach()

    return gone


def has_ended(sock: Any) -> bool:
    """Whether the peer of ``sock`` has closed, or no longer sends. Takes nothing from it and does not wait."""
    try:
        if _TCP_INFO is not None and sock.family != socket.AF_UNIX:
            state: int = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
            return state in _GONE
        if isinstance(sock, ssl.SSLSocket):
            return False
        before = sock.gettimeout()
        # Not MSG_DONTWAIT: gevent's sockets would wait all the same.
        sock.settimeout(0.0)
        try:
            return bool(sock.recv(1, socket.MSG_PEEK) == b"")
        finally:
            sock.settimeout(before)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP)


def show_cut(environ: WSGIEnvironment) -> None:
    """Let the client see that its response was cut, where only a reset can tell: HTTP/1.0 ends bodies by closing."""
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if sock is not None and environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()  # not left to the server, which would end it in good order first


def early_bytes(environ: WSGIEnvironment, *, take: bool) -> bytes:
    """What the server has read behind the request; ``take`` it and the server no longer has it."""
    source: Any = environ.get("wsgi.input")
    unreader: Any = getattr(getattr(source, "reader", None), "unreader", None)
    if hasattr(unreader, "take_buffered"):
        return bytes(unreader.take_buffered() if take else unreader.buf.getvalue())
    sock: Any = environ.get("werkzeug.socket")
    if sock is None or not hasattr(source, "peek"):
        return b""
    before = sock.gettimeout()
    sock.settimeout(0.0)
    try:
        waiting = source.peek()
        return bytes(source.read(len(waiting)) if take else waiting)
    except OSError:
        return b""
    finally:
        sock.settimeout(before)


def has_sent_on(environ: WSGIEnvironment) -> bool:
    """Whether the client has sent anything behind its request, read by the server or not."""
    if early_bytes(environ, take=False):
        return True
    sock: Any = client_socket(environ)
    if sock is None:
        return False
    if isinstance(sock, ssl.SSLSocket):
        return sock.pending() > 0
    before = sock.gettimeout()
    sock.settimeout(0.0)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
    finally:
        sock.settimeout(before)


def gunicorn_worker() -> Any:
    """The gunicorn worker that this process is, or None: it is who handles SIGTERM here."""
    worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return worker if hasattr(worker, "alive") and hasattr(worker, "cfg") else None


def server_slots(worker: Any) -> int:
    """How many requests a gunicorn worker serves at once."""
    if callable(getattr(worker, "timeout_ctx", None)):
        return int(worker.cfg.worker_connections)
    return int(worker.cfg.threads)
